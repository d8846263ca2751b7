//! Does to the real monitor what an action of the session model says, and tells what came of it in the model's words.

use std::collections::BTreeMap;

use zetakv_monitor::wire::kind;
use zetakv_session_model::action::{Action, Outcome, Refusal, Rejection, Replay, Tickets};
use zetakv_session_model::state::{Former as ModelFormer, Id, STRANGE, State, Step, Tag};
use zetakv_verifier::entry::Entry;
use zetakv_verifier::machine::Role;
use zetakv_verifier::output::Output;
use zetakv_verifier::request::{RESUME_BYTES, Rejection as MonitorRejection};
use zetakv_verifier::violation::ViolationCode;

use crate::client::{Client, TOKEN, get};
use crate::host::{Control, Log};
use crate::monitor_process::{MonitorProcess, Scratch};
use crate::service::ROLLBACK;

/// A resume whose answer is awaited.
struct SentResume {
    bytes: [u8; RESUME_BYTES],
    session: Id,
}

/// What the model numbers, as the real thing; and the real monitor.
pub struct Driver {
    scratch: Scratch,
    monitor: Option<MonitorProcess>,
    connections: Option<(Control, Log)>,
    incarnations: Vec<[u8; 16]>,
    seals: Vec<Vec<u8>>,
    clients: Vec<Client>,
    requests: Vec<Vec<u8>>,
    resumes: Vec<SentResume>,
    tags: BTreeMap<Tag, [u8; 16]>,
    /// The certificates, by sealed state.
    certificates: BTreeMap<Id, Vec<u8>>,
}

impl Driver {
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let monitor = MonitorProcess::start(&scratch, &[]);
        Self {
            scratch,
            monitor: Some(monitor),
            connections: None,
            incarnations: vec![[0; 16]],
            seals: vec![Vec::new()],
            clients: Vec::new(),
            requests: Vec::new(),
            resumes: Vec::new(),
            tags: BTreeMap::new(),
            certificates: BTreeMap::new(),
        }
    }

    /// Do it, unless it cannot be done there. `after` is the model's state after the action: what its client has signed is in there.
    pub fn apply(&mut self, action: &Action, expected: &Outcome, after: &State) -> Outcome {
        let outcome = match expected {
            Outcome::Impossible => Outcome::Impossible,
            _ => self.apply_to_monitor(action, expected, after),
        };
        self.sign(after);
        if let Outcome::Refused(refusal) = &outcome
            && *refusal != Refusal::Rollback
        {
            // it has failed for good; a new process is a new chance
            self.connections = None;
            drop(self.monitor.take());
            self.monitor = Some(MonitorProcess::start(&self.scratch, &[]));
        }
        outcome
    }

    fn apply_to_monitor(&mut self, action: &Action, expected: &Outcome, after: &State) -> Outcome {
        match action {
            Action::Start { sealed, replay } => self.start(*sealed, replay.as_ref(), after),
            Action::Live { tickets } => self.live(*tickets, after),
            Action::Welcome(hello) => {
                let former = after.hellos[usize::from(*hello)].former;
                self.open(former)
            }
            Action::Stranger => {
                self.open(None);
                self.sign(after);
                self.admit((self.requests.len() - 1) as Id, after)
            }
            Action::Admit(request) => self.admit(*request, after),
            Action::Resume(resume) => self.resume(*resume),
            Action::Run => self.run(),
            Action::Cut => self.cut(after),
            Action::Commit => self.commit(after),
            Action::Close(session) => self.close(*session),
            Action::Sign => Outcome::Certified((self.seals.len() - 1) as Id),
            _ => expected.clone(), // nothing to the monitor
        }
    }

    /// Sign what the model's client has sent.
    fn sign(&mut self, state: &State) {
        for request in &state.requests[self.requests.len()..] {
            let client = &self.clients[usize::from(request.session)];
            let key = if request.op == STRANGE {
                b"strange".to_vec()
            } else {
                vec![request.op]
            };
            let (generation, sequence) = (u32::from(request.generation), u64::from(request.sequence));
            self.requests
                .push(client.request_of(generation, 0, sequence, 0, &[get(&key)]));
        }
        for resume in &state.resumes[self.resumes.len()..] {
            let client = &self.clients[usize::from(resume.session)];
            let bytes = client.resume(u32::from(resume.generation), 0);
            let session = resume.session;
            self.resumes.push(SentResume { bytes, session });
        }
    }

    fn tag(&self, chain: &Tag) -> [u8; 16] {
        self.tags.get(chain).copied().unwrap_or_default()
    }

    /// The monitor has told the tag of the model's chain.
    fn note_tag(&mut self, after: &State, tag: [u8; 16]) {
        let chain = after.monitor.as_ref().and_then(|monitor| monitor.tag.clone());
        self.tags.insert(chain.expect("the model has a log, too"), tag);
    }

    fn start(&mut self, sealed: Id, replay: Option<&Replay>, after: &State) -> Outcome {
        self.connections = None;
        let monitor = self.monitor.as_ref().expect("it runs");
        let mut control = Control::open(monitor);
        control.send_start_with(1, replay.is_some(), &self.seals[usize::from(sealed)]);
        let (answer, body) = control.connection.receive().expect("an answer");
        if answer == kind::NOT_STARTED {
            assert_eq!(body[..2], ROLLBACK.to_le_bytes());
            return Outcome::Refused(Refusal::Rollback);
        }
        assert_eq!(answer, kind::STARTED);
        let incarnation: [u8; 16] = body[16..32].try_into().expect("16");
        monitor.incarnation.set(incarnation);
        self.incarnations.push(incarnation);
        assert_eq!(body[69], 0, "no overrides");
        let certificate = body[70..].to_vec();
        assert_eq!(certificate.is_empty(), sealed == 0);
        if sealed != 0 {
            let first = self.certificates.entry(sealed).or_insert_with(|| certificate.clone());
            assert_eq!(*first, certificate, "the same certificate, byte for byte");
        }
        let mut log = Log::open(monitor, 0);
        let incarnation = (self.incarnations.len() - 1) as u8;
        if let Some(replay) = replay {
            let shown = self.tag(&replay.told);
            let mut entries: Vec<_> = replay.steps.iter().map(|step| self.entry(*step)).collect();
            entries.push(Entry::EndReplay(&shown));
            match log.process(&entries).list()[..] {
                [Output::Failed(violation)] => {
                    assert_eq!(violation[36..38], (ViolationCode::LogChanged as u16).to_le_bytes());
                    return Outcome::Refused(Refusal::LogChanged);
                }
                [Output::Logged(tag)] => {
                    let tag = *tag;
                    self.note_tag(after, tag);
                }
                ref other => panic!("{other:?}"),
            }
        }
        self.connections = Some((control, log));
        Outcome::Started(incarnation)
    }

    fn entry(&self, step: Step) -> Entry<'_> {
        match step {
            Step::Mark(incarnation) => Entry::ReplayMark(&self.incarnations[usize::from(incarnation)]),
            Step::Request(request) => Entry::Replay {
                role: Some(Role::Admin),
                request: &self.requests[usize::from(request)],
            },
        }
    }

    fn connected(&mut self) -> &mut (Control, Log) {
        self.connections.as_mut().expect("an incarnation")
    }

    fn live(&mut self, tickets: Tickets, after: &State) -> Outcome {
        let with_ticket = self
            .clients
            .iter()
            .zip(&after.sessions)
            .filter(|(_, session)| session.has_ticket);
        let mut offered: Vec<_> = with_ticket.map(|(client, _)| client.ticket.clone()).collect();
        match tickets {
            Tickets::None => offered.clear(),
            Tickets::OldestFirst => {}
            Tickets::NewestFirst => offered.reverse(),
        }
        let (control, _) = self.connected();
        for ticket in &offered {
            control.connection.send(kind::TICKET, &[ticket]);
        }
        control.connection.send(kind::LIVE, &[]);
        match control.connection.receive().expect("an answer").0 {
            kind::IS_LIVE => Outcome::Done,
            kind::FAILED => Outcome::Refused(Refusal::BadHostMessage),
            other => panic!("a message of type {other:#x}"),
        }
    }

    fn open(&mut self, former: Option<Id>) -> Outcome {
        let former = former.map(|session| self.clients[usize::from(session)].former());
        let fingerprint = self.monitor.as_ref().expect("it runs").fingerprint;
        let admin = self.scratch.admin_key();
        let (control, _) = self.connected();
        let client = Client::open(control, &fingerprint, Some(&admin), former.as_ref()).expect("the admin");
        let outcome = Outcome::Welcomed {
            number: client.session as u8,
            epoch: client.epoch as u8,
            former: match client.former_status {
                0 => ModelFormer::NotAsked,
                1 => ModelFormer::Known {
                    last: client.former_last[0] as u8,
                    replayed: client.former_replayed[0] as u8,
                    replay_epoch: client.replay_epoch as u8,
                },
                2 => ModelFormer::Unknown,
                _ => ModelFormer::MayBeReplayed,
            },
        };
        self.clients.push(client);
        outcome
    }

    fn admit(&mut self, request: Id, after: &State) -> Outcome {
        let bytes = self.requests[usize::from(request)].clone();
        let outputs = self.connected().1.process(&[Entry::Request(&bytes)]);
        match outputs.list()[..] {
            [Output::Admitted(_)] => Outcome::Admitted,
            [Output::Admitted(_), Output::Logged(tag)] => {
                let tag = *tag;
                self.note_tag(after, tag);
                Outcome::Admitted
            }
            [Output::Rejected(reason)] => Outcome::Rejected(rejection(reason)),
            ref other => panic!("{other:?}"),
        }
    }

    fn resume(&mut self, resume: Id) -> Outcome {
        let bytes = self.resumes[usize::from(resume)].bytes;
        let outputs = self.connected().1.process(&[Entry::Resume(&bytes)]);
        match outputs.list()[..] {
            [] => Outcome::Resumed(None),
            [Output::Resumed(resumed)] => {
                let sent = &self.resumes[usize::from(resume)];
                let last = self.clients[usize::from(sent.session)].check_resumed(&sent.bytes, resumed) as u8;
                Outcome::Resumed(Some(last))
            }
            [Output::Rejected(reason)] => Outcome::Rejected(rejection(reason)),
            ref other => panic!("{other:?}"),
        }
    }

    fn run(&mut self) -> Outcome {
        let outputs = self.connected().1.process(&[Entry::RunAbsent { parent: 0 }]);
        let list = outputs.list();
        let [Output::Receipt(receipt), ref resumed @ ..] = list[..] else {
            panic!("{list:?}");
        };
        let sequence = u64::from_le_bytes(receipt[16..24].try_into().expect("8")) as u8;
        let last_of = |output: &Output<'_>| {
            let Output::Resumed(resumed) = output else {
                panic!("{output:?}")
            };
            let answered = |sent: &&SentResume| sent.bytes[..14] == resumed[..14];
            let sent = self.resumes.iter().find(answered).expect("what it answers");
            self.clients[usize::from(sent.session)].check_resumed(&sent.bytes, resumed) as u8
        };
        Outcome::Ran(sequence, resumed.iter().map(last_of).collect())
    }

    fn cut(&mut self, after: &State) -> Outcome {
        let (control, log) = self.connected();
        let outputs = log.process(&[Entry::NextEpoch, Entry::VerifyEpoch]);
        let epoch = match outputs.list()[..] {
            [Output::HandedOver(epoch)] => epoch,
            [Output::Failed(violation)] => return Outcome::Refused(refusal(violation)),
            ref other => panic!("{other:?}"),
        };
        let (answer, body) = control.connection.receive().expect("an answer");
        if answer == kind::FAILED {
            return Outcome::Refused(refusal(&body));
        }
        assert_eq!((answer, &body[..4]), (kind::SEALED, &epoch.to_le_bytes()[..]));
        self.seals.push(body[4..].to_vec());
        let id = (self.seals.len() - 1) as Id;
        assert_eq!(u32::from(after.seal(id).epoch), epoch);
        Outcome::Sealed(id)
    }

    /// Commits and signs: in the real monitor nothing comes between.
    fn commit(&mut self, after: &State) -> Outcome {
        let sealed = (self.seals.len() - 1) as Id;
        let epoch = u32::from(after.seal(sealed).epoch);
        let certificate = self.connected().0.durable(epoch);
        let incarnation = self.incarnations[usize::from(after.seal(sealed).incarnation)];
        assert_eq!(
            (&certificate[20..36], &certificate[36..40]),
            (&incarnation[..], &epoch.to_le_bytes()[..])
        );
        self.certificates.insert(sealed, certificate);
        Outcome::Done
    }

    fn close(&mut self, session: Id) -> Outcome {
        let number = self.clients[usize::from(session)].session;
        let (control, _) = self.connected();
        control.close_session(number);
        control.connection.send(kind::ADMIN, &[&TOKEN]); // is answered when the close has been taken
        control.connection.expect(kind::ADMIN_REJECTED);
        Outcome::Done
    }
}

fn rejection(reason: u8) -> Rejection {
    const UNKNOWN_SESSION: u8 = MonitorRejection::UnknownSession as u8;
    const BAD_MAC: u8 = MonitorRejection::BadMac as u8; // of another session that has the number now
    const BAD_SEQUENCE: u8 = MonitorRejection::BadSequence as u8;
    match reason {
        UNKNOWN_SESSION | BAD_MAC => Rejection::UnknownSession,
        BAD_SEQUENCE => Rejection::BadSequence,
        _ => Rejection::BadGeneration,
    }
}

fn refusal(violation: &[u8]) -> Refusal {
    match u16::from_le_bytes([violation[36], violation[37]]) {
        code if code == ViolationCode::RequestInProgress as u16 => Refusal::RequestInProgress,
        code if code == ViolationCode::BadHostMessage as u16 => Refusal::BadHostMessage,
        other => panic!("violation {other}"),
    }
}
