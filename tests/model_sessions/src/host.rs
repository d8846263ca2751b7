//! What can happen next: every message that a hostile host can deliver, within the bounds of a configuration. An honest host is a part of it.

use crate::action::{Action, Outcome, Replay, Tickets};
use crate::rules::{Rule, Rules};
use crate::state::{Id, Inc, Phase, Receipt, Session, State, Step, Tag, Verdict};

/// Whether starts have a write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// None has.
    Never,
    /// Each has.
    Always,
    /// As the host likes.
    Either,
}

/// The bounds of a search.
#[derive(Clone, Debug)]
pub struct Config {
    /// For people.
    pub name: &'static str,
    /// Operations of the client.
    pub ops: usize,
    /// Starts.
    pub logs: Logs,
    /// The host's disk is honest: it starts from what it stored, and replays what it logged. Messages are lost and repeated all the same.
    pub honest: bool,
    /// Incarnations at the most.
    pub incarnations_max: u8,
    /// Sealed states at the most.
    pub seals_max: usize,
    /// The first incarnation that closes an epoch.
    pub cuts_from: Inc,
    /// Hellos at the most.
    pub hellos_max: usize,
    /// Sessions at the most.
    pub sessions_max: usize,
    /// Resumes at the most.
    pub resumes_max: usize,
    /// Requests at the most.
    pub requests_max: usize,
    /// Sessions of somebody else at the most.
    pub strangers_max: u8,
    /// Closed and forgotten sessions at the most.
    pub closings_max: u8,
    /// Whether the host writes marks of former incarnations into replays of nothing.
    pub marks: bool,
    /// What holds.
    pub rules: Rules,
}

impl State {
    /// All actions that may change this state.
    pub fn actions(&self, config: &Config) -> Vec<Action> {
        let mut actions = Vec::new();
        self.client_actions(config, &mut actions);
        self.network_actions(&mut actions);
        self.monitor_actions(config, &mut actions);
        if self.incarnations < config.incarnations_max {
            self.starts(config, &mut actions);
        }
        actions
    }

    fn client_actions(&self, config: &Config, actions: &mut Vec<Action>) {
        let more_hellos = self.hellos.len() < config.hellos_max;
        let has_session = self.client.current.is_some();
        match self.client.phase {
            Phase::New if more_hellos => actions.push(Action::SendHello),
            Phase::Ready | Phase::Resuming(..) if has_session => {
                if self.resumes.len() < config.resumes_max {
                    actions.push(Action::SendResume(false));
                    actions.push(Action::SendResume(true));
                }
                if more_hellos {
                    actions.push(Action::GiveUp);
                }
            }
            Phase::Greeting(..) if more_hellos => actions.push(Action::GiveUp),
            _ => {}
        }
        let wants = self.client.verdicts.contains(&Verdict::Waiting);
        if self.client.phase == Phase::Ready && wants && self.requests.len() < config.requests_max {
            actions.push(Action::Send);
        }
    }

    fn network_actions(&self, actions: &mut Vec<Action>) {
        actions.extend((0..self.receipts.len()).map(|id| Action::GetReceipt(id as Id)));
        if let Phase::Resuming(..) = self.client.phase {
            actions.extend((0..self.resumed.len()).map(|id| Action::GetResumed(id as Id)));
        }
        if let Phase::Greeting(hello, _) = self.client.phase {
            let of_hello = (0..).zip(&self.welcomes).filter(|(_, welcome)| welcome.hello == hello);
            actions.extend(of_hello.map(|(id, _)| Action::GetWelcome(id)));
        }
        if self.client.current.is_some() {
            actions.extend(self.certificates.iter().map(|id| Action::GetCertificate(*id)));
        }
    }

    fn monitor_actions(&self, config: &Config, actions: &mut Vec<Action>) {
        let Some(monitor) = &self.monitor else { return };
        if monitor.unsigned.is_some() {
            actions.push(Action::Sign); // nothing comes between, but a crash
            return;
        }
        let logged = monitor.tag.as_ref().is_none_or(|tag| *tag == self.disk.log);
        if config.honest && !logged {
            actions.push(Action::Store); // nothing is answered before it
            return;
        }
        if !monitor.live {
            for tickets in [Tickets::None, Tickets::OldestFirst, Tickets::NewestFirst] {
                let differs = tickets != Tickets::NewestFirst || self.numbers_are_given_again();
                let offers = if config.honest {
                    tickets == Tickets::OldestFirst
                } else {
                    differs
                };
                if offers {
                    actions.push(Action::Live { tickets });
                }
            }
        } else {
            // what answers another hello is of no use, since the client has thrown the secret of that one away
            if let Phase::Greeting(hello, _) = self.client.phase
                && self.sessions.len() < config.sessions_max
            {
                actions.push(Action::Welcome(hello));
            }
            if self.strangers < config.strangers_max {
                actions.push(Action::Stranger);
            }
            if self.seals.len() <= config.seals_max && monitor.incarnation >= config.cuts_from {
                actions.push(Action::Cut);
            }
        }
        actions.extend((0..self.requests.len()).map(|id| Action::Admit(id as Id)));
        actions.extend((0..self.resumes.len()).map(|id| Action::Resume(id as Id)));
        actions.push(Action::Run);
        if let Some(pending) = monitor.pending {
            if config.honest && self.disk.stored != pending {
                actions.push(Action::Store);
            }
            if !config.honest || self.disk.stored == pending || !config.rules.hold(Rule::DurableBeforeCommit) {
                actions.push(Action::Commit);
            }
            if !config.rules.hold(Rule::CommitBeforeSign) {
                actions.push(Action::Sign);
            }
        }
        if self.closings < config.closings_max {
            actions.extend(
                monitor
                    .sessions
                    .iter()
                    .filter(|live| live.open)
                    .map(|live| Action::Close(live.session)),
            );
            actions.extend(monitor.ended.by_number.keys().map(|number| Action::Forget(*number)));
        }
    }

    fn numbers_are_given_again(&self) -> bool {
        let same =
            |(place, session): (usize, &Session)| self.sessions[..place].iter().any(|it| it.number == session.number);
        self.sessions.iter().enumerate().any(same)
    }

    fn starts(&self, config: &Config, actions: &mut Vec<Action>) {
        let sealed = if config.honest {
            self.disk.stored..self.disk.stored + 1
        } else {
            0..self.seals.len() as Id
        };
        for sealed in sealed {
            if config.logs != Logs::Always {
                actions.push(Action::Start { sealed, replay: None });
            }
            if config.logs != Logs::Never {
                let replays = self.replays(config, sealed).into_iter();
                actions.extend(replays.map(|replay| Action::Start {
                    sealed,
                    replay: Some(replay),
                }));
            }
        }
    }

    /// What a host may replay from a sealed state: what it has tags for, and if tags are not checked anything like it.
    fn replays(&self, config: &Config, sealed: Id) -> Vec<Replay> {
        let base = self.replay_base(config.rules, sealed);
        let after_base = |tag: &Tag| tag.strip_prefix(base.as_slice()).map(<[Step]>::to_vec);
        let replay = |steps: Tag, told: &Tag| Replay {
            steps,
            told: told.clone(),
        };
        if config.honest {
            return vec![replay(after_base(&self.disk.log).unwrap_or_default(), &self.disk.log)];
        }
        let mut replays = vec![replay(Tag::new(), &base)];
        if config.marks {
            replays.push(replay(vec![Step::Mark(self.register.1)], &base)); // where there are no requests, marks are not checked
        }
        for told in &self.tags {
            let Some(steps) = after_base(told) else { continue };
            let requests = steps.iter().filter(|step| matches!(step, Step::Request(_))).count();
            if requests == 0 {
                continue;
            }
            replays.push(replay(steps.clone(), told));
            if !config.rules.hold(Rule::ReplayIsLogged) {
                for left_out in 0..steps.len() {
                    let mut fewer = steps.clone();
                    fewer.remove(left_out);
                    replays.push(replay(fewer, told));
                }
                for request in 0..self.requests.len() as Id {
                    let more = [steps.as_slice(), &[Step::Request(request)]].concat();
                    replays.push(replay(more, told));
                }
            }
        }
        replays
    }

    /// Do it.
    pub fn apply(&mut self, config: &Config, action: &Action) -> Outcome {
        let rules = config.rules;
        let outcome = match action {
            Action::Start { sealed, replay } => self.start(rules, *sealed, replay.as_ref()),
            Action::Live { tickets } => self.live(rules, *tickets),
            Action::Welcome(hello) => self.welcome(rules, *hello),
            Action::Admit(request) => self.admit(rules, *request),
            Action::Resume(resume) => self.resume(rules, *resume),
            Action::Run => self.run(),
            Action::Cut => self.cut(rules),
            Action::Store => self.store(),
            Action::Commit => self.commit(),
            Action::Sign => self.sign(rules),
            Action::Close(session) => self.count_closing(|state| state.close(*session)),
            Action::Forget(number) => self.count_closing(|state| state.forget(*number)),
            Action::SendHello | Action::GiveUp => self.send_hello(None),
            Action::SendResume(refused) => self.send_resume(*refused),
            Action::Stranger => self.stranger(rules),
            Action::Send => self.send(),
            Action::GetReceipt(receipt) => self.get_receipt(rules, *receipt),
            Action::GetResumed(resumed) => self.get_resumed(rules, *resumed),
            Action::GetWelcome(welcome) => self.get_welcome(rules, *welcome),
            Action::GetCertificate(sealed) => self.get_certificate(rules, *sealed),
        };
        self.reduce(rules);
        outcome
    }

    fn count_closing(&mut self, closing: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        let outcome = closing(self);
        self.closings += u8::from(outcome == Outcome::Done);
        outcome
    }

    /// An honest host's disk has all that it was told.
    fn store(&mut self) -> Outcome {
        let Some(monitor) = &self.monitor else {
            return Outcome::Impossible;
        };
        match &monitor.tag {
            Some(tag) if *tag != self.disk.log => self.disk.log.clone_from(tag),
            _ => self.disk.stored = monitor.pending.unwrap_or(self.disk.stored),
        }
        Outcome::Done
    }

    /// Forget what no action can use any more, so that states that differ only in it are one.
    pub fn reduce(&mut self, rules: Rules) {
        let Self {
            client,
            requests,
            receipts,
            resumes,
            resumed,
            welcomes,
            ..
        } = self;
        let current = client.current.as_ref();
        let is_due = |receipt: &Receipt| {
            current.is_some_and(|current| {
                let same_session = requests[usize::from(receipt.request)].session == current.session;
                let in_flight = current.in_flight.iter().any(|sent| sent.request == receipt.request);
                in_flight || (same_session && !rules.hold(Rule::ReceiptOfRequest))
            })
        };
        receipts.retain(is_due);
        let exact = rules.hold(Rule::ResumedHasNonce) || rules.hold(Rule::ResumedNamesGeneration);
        resumed.retain(|answer| match client.phase {
            Phase::Resuming(asked, _) => answer.resume == asked || !exact,
            _ => !exact && current.is_some_and(|it| it.session == resumes[usize::from(answer.resume)].session),
        });
        welcomes.retain(|welcome| matches!(client.phase, Phase::Greeting(hello, _) if hello == welcome.hello));
    }
}
