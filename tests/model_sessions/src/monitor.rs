//! The monitor's side: what it does with what the host sends. Functions follow `monitor/daemon` and `monitor/verifier`, rule by rule.

use std::collections::BTreeMap;

use crate::action::{Outcome, Refusal, Rejection, Replay, Tickets};
use crate::rules::{Rule, Rules};
use crate::state::{
    Ended, Former, GENESIS, Id, Inc, Live, Monitor, Queued, Receipt, Replayed, Request, Resumed, STRANGE, Seal,
    Sequence, Session, State, Step, Tag, Welcome, put,
};

/// What a replay comes to, if it is accepted: the chain, the requests, and what was replayed of each session.
struct Checked {
    tag: Tag,
    queue: Vec<Queued>,
    replayed: Vec<Replayed>,
}

impl State {
    /// Start an incarnation.
    pub fn start(&mut self, rules: Rules, sealed: Id, replay: Option<&Replay>) -> Outcome {
        let (held, latest) = self.register;
        let seal = self.seal(sealed);
        let by_latest = seal.incarnation == latest || !rules.hold(Rule::RegisterHoldsIncarnation);
        let is_next = sealed != GENESIS && seal.previous == held && by_latest;
        if sealed != held && !is_next && rules.hold(Rule::RegisterHoldsState) {
            return Outcome::Refused(Refusal::Rollback);
        }
        let checked = match replay.map(|replay| self.check_replay(rules, sealed, latest, replay)) {
            Some(None) => return Outcome::Refused(Refusal::LogChanged),
            Some(Some(checked)) => Some(checked),
            None => None,
        };
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let has_log = checked.is_some();
        if !has_log && rules.hold(Rule::StartMovesRegister) {
            self.register = (sealed, incarnation);
        } else if !has_log || rules.hold(Rule::StartedCommitsState) {
            self.register = (sealed, latest);
        }
        self.release(sealed);
        let seal = self.seal(sealed);
        let mut monitor = Monitor {
            incarnation,
            live: !has_log,
            committed: (sealed, incarnation),
            epoch: seal.epoch + 1,
            pending: None,
            unsigned: None,
            head: sealed,
            sessions: Vec::new(),
            ended: seal.ended.clone(),
            told_replayed: BTreeMap::new(),
            replay_epoch: seal.epoch + 1,
            queue: Vec::new(),
            effects: seal.effects,
            tag: None,
            replayed: Vec::new(),
        };
        if let Some(Checked {
            mut tag,
            queue,
            replayed,
        }) = checked
        {
            tag.push(Step::Mark(incarnation));
            self.tell(&tag);
            monitor.tag = Some(tag);
            monitor.queue = queue;
            monitor.replayed = replayed;
        }
        self.monitor = Some(monitor);
        Outcome::Started(incarnation)
    }

    /// The chain that a replay from a sealed state goes on from.
    pub fn replay_base(&self, rules: Rules, sealed: Id) -> Tag {
        let tag = self.seal(sealed).tag.clone();
        tag.filter(|_| rules.hold(Rule::ReplayFromSealedTag))
            .unwrap_or_default()
    }

    fn check_replay(&self, rules: Rules, sealed: Id, latest: Inc, replay: &Replay) -> Option<Checked> {
        let seal = self.seal(sealed);
        let has_mark = seal.tag.is_some() && seal.incarnation == latest;
        let mut missing = (!has_mark).then_some(latest);
        let mut current = seal.incarnation;
        let (mut queue, mut by_number) = (Vec::new(), BTreeMap::new());
        for step in &replay.steps {
            match *step {
                Step::Mark(mark) => {
                    current = mark;
                    missing.take_if(|latest| *latest == mark);
                }
                Step::Request(id) => {
                    let request = self.request(id);
                    let number = self.session(request.session).number;
                    by_number.insert(number, (current, request.sequence));
                    queue.push(Queued::Request(id));
                }
            }
        }
        let tag = [self.replay_base(rules, sealed), replay.steps.clone()].concat();
        let is_logged = tag == replay.told && self.tags.contains(&tag);
        let nothing = queue.is_empty();
        if rules.hold(Rule::ReplayIsLogged) && !nothing && !is_logged {
            return None;
        }
        if rules.hold(Rule::ReplayHasLatestMark) && !nothing && missing.is_some() {
            return None;
        }
        let replayed = by_number.into_iter().map(|(number, (incarnation, sequence))| Replayed {
            number,
            incarnation,
            sequence,
        });
        Some(Checked {
            tag,
            queue,
            replayed: replayed.collect(),
        })
    }

    fn tell(&mut self, tag: &Tag) {
        if !self.tags.contains(tag) {
            self.tags.push(tag.clone());
        }
    }

    /// The certificate of a sealed state leaves.
    fn release(&mut self, sealed: Id) {
        if sealed != GENESIS && !self.certificates.contains(&sealed) {
            self.certificates.push(sealed);
        }
    }

    /// Go live.
    pub fn live(&mut self, rules: Rules, tickets: Tickets) -> Outcome {
        let Some(monitor) = self.monitor.as_mut().filter(|monitor| !monitor.live) else {
            return Outcome::Refused(Refusal::BadHostMessage);
        };
        monitor.live = true;
        if rules.hold(Rule::LiveMovesRegister) {
            self.register = monitor.committed;
        }
        let numbered = (0..)
            .zip(&self.sessions)
            .filter(|(_, session): &(Id, _)| session.has_ticket);
        let mut offered: Vec<_> = numbered.map(|(id, session)| (session.number, id)).collect();
        match tickets {
            Tickets::None => offered.clear(),
            Tickets::OldestFirst => {}
            Tickets::NewestFirst => offered.reverse(),
        }
        let known_before = monitor.ended.next_number;
        for (number, session) in offered {
            if number >= known_before {
                let ended = Ended { session, last: 0 };
                monitor.ended.by_number.entry(number).or_insert(ended);
                monitor.ended.next_number = monitor.ended.next_number.max(number + 1);
            }
        }
        for replayed in monitor.replayed.clone() {
            let Replayed {
                number,
                incarnation,
                sequence,
            } = replayed;
            monitor.ended.next_number = monitor.ended.next_number.max(number + 1);
            monitor.ended.replayed_end = monitor.ended.replayed_end.max(number + 1);
            let Some(ended) = monitor.ended.by_number.get(&number) else {
                continue;
            };
            let is_of = self.sessions[usize::from(ended.session)].incarnation == incarnation;
            if is_of || !rules.hold(Rule::ReplayedOfIncarnation) {
                monitor.told_replayed.insert(number, (ended.last, sequence));
            } else {
                monitor.ended.by_number.remove(&number);
            }
        }
        Outcome::Done
    }

    /// Open a session.
    pub fn welcome(&mut self, rules: Rules, hello: Id) -> Outcome {
        let asked = self.hellos[usize::from(hello)].former;
        let Some(monitor) = self
            .monitor
            .as_mut()
            .filter(|monitor| monitor.live && monitor.unsigned.is_none())
        else {
            return Outcome::Impossible;
        };
        let former = asked.map_or(Former::NotAsked, |asked| {
            let session = self.sessions[usize::from(asked)];
            let ended = monitor.ended.by_number.get(&session.number).filter(|ended| {
                let proved = ended.session == asked && session.incarnation != monitor.incarnation;
                proved || !rules.hold(Rule::FormerIsProved)
            });
            match ended {
                Some(ended) => {
                    let again = monitor.told_replayed.get(&session.number).copied();
                    let (last, replayed) = again.unwrap_or((ended.last, ended.last));
                    Former::Known {
                        last,
                        replayed,
                        replay_epoch: if again.is_some() { monitor.replay_epoch } else { 0 },
                    }
                }
                None if session.number < monitor.ended.replayed_end && rules.hold(Rule::UnknownMayBeReplayed) => {
                    Former::MayBeReplayed
                }
                None => Former::Unknown,
            }
        });
        let head = monitor.head;
        let Some((session, number)) = self.open() else {
            return Outcome::Impossible;
        };
        self.welcomes.push(Welcome {
            hello,
            session,
            head,
            former,
        });
        let epoch = self.seal(head).epoch;
        Outcome::Welcomed { number, epoch, former }
    }

    /// Open a session: its place, and its number.
    fn open(&mut self) -> Option<(Id, u8)> {
        let monitor = self.monitor.as_mut()?;
        let number = monitor.ended.next_number;
        monitor.ended.next_number += 1;
        let session = Session {
            incarnation: monitor.incarnation,
            number,
            has_ticket: monitor.tag.is_some(),
        };
        let session = put(&mut self.sessions, session);
        monitor.sessions.push(Live {
            session,
            open: true,
            generation: 1,
            sequence: 0,
            handed_over: 0,
        });
        Some((session, number))
    }

    /// Somebody else opens a session, and its first request is admitted.
    pub fn stranger(&mut self, rules: Rules) -> Outcome {
        let Some((session, _)) = self.open() else {
            return Outcome::Impossible;
        };
        self.strangers += 1;
        let request = Request {
            session,
            generation: 1,
            sequence: 1,
            op: STRANGE,
        };
        let request = put(&mut self.requests, request);
        self.admit(rules, request)
    }

    /// Admit a request.
    pub fn admit(&mut self, rules: Rules, id: Id) -> Outcome {
        let request = self.request(id);
        let Some(monitor) = self.monitor.as_mut() else {
            return Outcome::Impossible;
        };
        let is_it = |live: &&mut Live| live.session == request.session && live.open;
        let Some(live) = monitor.sessions.iter_mut().find(is_it) else {
            return Outcome::Rejected(Rejection::UnknownSession);
        };
        if request.generation != live.generation && rules.hold(Rule::RequestOfGeneration) {
            return Outcome::Rejected(Rejection::BadGeneration);
        }
        let is_used = request.sequence <= live.sequence && rules.hold(Rule::SequenceIsNew);
        let leaves_out = request.sequence > live.sequence + 1 && rules.hold(Rule::SequenceIsNext);
        if is_used || leaves_out {
            return Outcome::Rejected(Rejection::BadSequence);
        }
        live.sequence = live.sequence.max(request.sequence);
        monitor.queue.push(Queued::Request(id));
        if let Some(tag) = &mut monitor.tag {
            tag.push(Step::Request(id));
            let tag = tag.clone();
            self.tell(&tag);
        }
        Outcome::Admitted
    }

    /// Admit a resume.
    pub fn resume(&mut self, rules: Rules, id: Id) -> Outcome {
        let resume = self.resumes[usize::from(id)];
        let Some(monitor) = self.monitor.as_mut() else {
            return Outcome::Impossible;
        };
        let is_it = |live: &&mut Live| live.session == resume.session && live.open;
        let Some(live) = monitor.sessions.iter_mut().find(is_it) else {
            return Outcome::Rejected(Rejection::UnknownSession);
        };
        if resume.generation <= live.generation {
            return Outcome::Rejected(Rejection::BadGeneration);
        }
        live.generation = resume.generation;
        let last = live.sequence;
        if monitor.queue.is_empty() || !rules.hold(Rule::ResumeTakesTurn) {
            self.answer_resume(id, last);
            return Outcome::Resumed(Some(last));
        }
        monitor.queue.push(Queued::Resume(id, last));
        Outcome::Resumed(None)
    }

    fn answer_resume(&mut self, resume: Id, last: Sequence) {
        let epoch = self.monitor.as_ref().map_or(0, |monitor| monitor.epoch);
        self.resumed.push(Resumed { resume, last, epoch });
    }

    /// Run the next request.
    pub fn run(&mut self) -> Outcome {
        let Some(monitor) = self.monitor.as_mut() else {
            return Outcome::Impossible;
        };
        if monitor.queue.is_empty() {
            return Outcome::Impossible;
        }
        let Queued::Request(id) = monitor.queue.remove(0) else {
            return Outcome::Impossible; // a resume is never at the head
        };
        let request = self.requests[usize::from(id)];
        if let Some(effects) = monitor.effects.get_mut(usize::from(request.op)) {
            *effects += 1;
        }
        if self.sessions[usize::from(request.session)].incarnation == monitor.incarnation {
            self.receipts.push(Receipt {
                request: id,
                epoch: monitor.epoch,
            });
        }
        let mut answered = Vec::new();
        while let Some(Queued::Resume(resume, last)) = self.monitor.as_ref().and_then(|it| it.queue.first().copied()) {
            self.answer_resume(resume, last);
            answered.push(last);
            if let Some(monitor) = self.monitor.as_mut() {
                monitor.queue.remove(0);
            }
        }
        Outcome::Ran(request.sequence, answered)
    }

    /// Close and seal the epoch.
    pub fn cut(&mut self, rules: Rules) -> Outcome {
        let Some(monitor) = self.monitor.as_mut() else {
            return Outcome::Impossible;
        };
        if !monitor.live {
            return Outcome::Refused(Refusal::BadHostMessage);
        }
        if monitor.pending.is_some() || monitor.unsigned.is_some() {
            return Outcome::Impossible; // not yet
        }
        if monitor.tag.is_some() && !monitor.queue.is_empty() && rules.hold(Rule::AllLoggedHasRun) {
            return Outcome::Refused(Refusal::RequestInProgress);
        }
        for live in &mut monitor.sessions {
            let waiting = monitor.queue.iter().find_map(|queued| match queued {
                Queued::Request(id) => {
                    let request = self.requests[usize::from(*id)];
                    (request.session == live.session).then_some(request.sequence)
                }
                Queued::Resume(..) => None,
            });
            let done = match waiting.filter(|_| rules.hold(Rule::HandedOverIsDone)) {
                Some(first) => first - 1,
                None => live.sequence,
            };
            live.handed_over = live.handed_over.max(done);
            let number = self.sessions[usize::from(live.session)].number;
            if let Some(ended) = monitor.ended.by_number.get_mut(&number).filter(|_| !live.open) {
                ended.last = ended.last.max(done);
            }
        }
        for replayed in std::mem::take(&mut monitor.replayed) {
            if let Some(ended) = monitor.ended.by_number.get_mut(&replayed.number) {
                ended.last = ended.last.max(replayed.sequence);
            }
        }
        let is_waiting = |live: &Live| {
            let requests = &self.requests;
            monitor.queue.iter().any(
                |queued| matches!(queued, Queued::Request(id) if requests[usize::from(*id)].session == live.session),
            )
        };
        monitor.sessions.retain(|live| live.open || is_waiting(live));
        let mut ended = monitor.ended.clone();
        for live in monitor.sessions.iter().filter(|live| live.open) {
            let number = self.sessions[usize::from(live.session)].number;
            let entry = Ended {
                session: live.session,
                last: live.handed_over,
            };
            ended.by_number.insert(number, entry);
        }
        let seal = Seal {
            previous: monitor.committed.0,
            incarnation: monitor.incarnation,
            epoch: monitor.epoch,
            ended,
            effects: monitor.effects,
            tag: monitor.tag.clone(),
        };
        let id = put(&mut self.seals, seal);
        monitor.pending = Some(id);
        monitor.epoch += 1;
        Outcome::Sealed(id)
    }

    /// The host says that the sealed state is durable.
    pub fn commit(&mut self) -> Outcome {
        let Some(monitor) = self.monitor.as_mut() else {
            return Outcome::Impossible;
        };
        let Some(pending) = monitor.pending.take() else {
            return Outcome::Refused(Refusal::BadHostMessage);
        };
        monitor.committed = (pending, monitor.incarnation);
        monitor.unsigned = Some(pending);
        self.register = monitor.committed;
        Outcome::Done
    }

    /// The certificate leaves.
    pub fn sign(&mut self, rules: Rules) -> Outcome {
        let Some(monitor) = self.monitor.as_mut() else {
            return Outcome::Impossible;
        };
        let early = monitor.pending.filter(|_| !rules.hold(Rule::CommitBeforeSign));
        let Some(sealed) = monitor.unsigned.take().or(early) else {
            return Outcome::Impossible;
        };
        if early.is_none() {
            monitor.head = sealed;
        }
        self.release(sealed);
        Outcome::Certified(sealed)
    }

    /// The host closes a session.
    pub fn close(&mut self, session: Id) -> Outcome {
        let number = self.session(session).number;
        let Some(monitor) = self.monitor.as_mut() else {
            return Outcome::Impossible;
        };
        let is_it = |live: &&mut Live| live.session == session && live.open;
        let Some(live) = monitor.sessions.iter_mut().find(is_it) else {
            return Outcome::Impossible;
        };
        live.open = false;
        let last = live.handed_over;
        monitor.ended.by_number.insert(number, Ended { session, last });
        Outcome::Done
    }

    /// Too many sessions have ended: the monitor forgets one.
    pub fn forget(&mut self, number: u8) -> Outcome {
        let forgotten = self
            .monitor
            .as_mut()
            .and_then(|monitor| monitor.ended.by_number.remove(&number));
        if forgotten.is_some() {
            Outcome::Done
        } else {
            Outcome::Impossible
        }
    }
}
