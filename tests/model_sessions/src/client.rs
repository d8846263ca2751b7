//! The client's side: what it concludes. Functions follow `client/kvstore_client`: `_session`, `_lane`, `_recovery`, `_outcomes`.

use crate::action::Outcome;
use crate::rules::{Rule, Rules};
use crate::state::{
    Client, Current, Epoch, Former, GENESIS, Hello, Id, Inc, Phase, Request, Resume, Sent, State, Verdict, put,
};

impl State {
    /// Send a hello, which asks about this session, or about the current one.
    pub fn send_hello(&mut self, former: Option<Id>) -> Outcome {
        let former = former.or_else(|| self.client.current.as_ref().map(|current| current.session));
        let hello = put(&mut self.hellos, Hello { former });
        self.client.phase = Phase::Greeting(hello, self.client.chain.len() as Epoch);
        Outcome::Done
    }

    /// Resume: after a reconnect, or, if the host has refused changes, to know what has not run and never will.
    pub fn send_resume(&mut self, refused: bool) -> Outcome {
        let Some(current) = self.client.current.as_mut() else {
            return Outcome::Impossible;
        };
        current.generation += 1;
        let resume = Resume {
            session: current.session,
            generation: current.generation,
        };
        self.client.phase = Phase::Resuming(put(&mut self.resumes, resume), refused);
        Outcome::Done
    }

    /// Send a request with the next operation.
    pub fn send(&mut self) -> Outcome {
        let next = self
            .client
            .verdicts
            .iter()
            .position(|verdict| *verdict == Verdict::Waiting);
        let (Some(op), Some(current)) = (next, self.client.current.as_mut()) else {
            return Outcome::Impossible;
        };
        current.sequence += 1;
        let request = Request {
            session: current.session,
            generation: current.generation,
            sequence: current.sequence,
            op: op as u8,
        };
        let request = put(&mut self.requests, request);
        current.in_flight.push(Sent {
            request,
            epoch_min: current.epoch_min,
        });
        self.client.verdicts[op] = Verdict::InFlight;
        Outcome::Done
    }

    /// A receipt arrives.
    pub fn get_receipt(&mut self, rules: Rules, id: Id) -> Outcome {
        let Some(receipt) = self.receipts.get(usize::from(id)).copied() else {
            return Outcome::Impossible;
        };
        let Some(current) = self.client.current.as_mut() else {
            return Outcome::Impossible;
        };
        let Some(sent) = current.in_flight.first().copied() else {
            return Outcome::Impossible;
        };
        let answers = if rules.hold(Rule::ReceiptOfRequest) {
            receipt.request == sent.request
        } else {
            self.requests[usize::from(receipt.request)].session == current.session
        };
        if !answers {
            return Outcome::Impossible;
        }
        if receipt.epoch < sent.epoch_min {
            self.client.phase = Phase::Alarmed;
            return Outcome::Done;
        }
        current.in_flight.remove(0);
        let request = self.request(sent.request);
        self.client.verdicts[usize::from(request.op)] = Verdict::Provisional {
            incarnation: self.session(request.session).incarnation,
            first: receipt.epoch,
            epoch: receipt.epoch,
            session: request.session,
            sequence: request.sequence,
        };
        self.follow(rules);
        Outcome::Done
    }

    /// The answer to a resume arrives.
    pub fn get_resumed(&mut self, rules: Rules, id: Id) -> Outcome {
        let Some(resumed) = self.resumed.get(usize::from(id)).copied() else {
            return Outcome::Impossible;
        };
        let Phase::Resuming(asked, refused) = self.client.phase else {
            return Outcome::Impossible;
        };
        let (ours, theirs) = (
            self.resumes[usize::from(asked)],
            self.resumes[usize::from(resumed.resume)],
        );
        let same_nonce = asked == resumed.resume || !rules.hold(Rule::ResumedHasNonce);
        let same_generation = ours.generation == theirs.generation || !rules.hold(Rule::ResumedNamesGeneration);
        let Some(current) = self.client.current.as_mut() else {
            return Outcome::Impossible;
        };
        if !same_nonce || !same_generation || ours.session != theirs.session {
            return Outcome::Impossible;
        }
        let first = current
            .in_flight
            .first()
            .map(|sent| self.requests[usize::from(sent.request)].sequence);
        let acknowledged = first.map_or(current.sequence, |first| first - 1);
        if resumed.last < acknowledged || resumed.last > current.sequence {
            self.client.phase = Phase::Alarmed;
            return Outcome::Done;
        }
        let in_flight = std::mem::take(&mut current.in_flight);
        current.sequence = resumed.last;
        let session = current.session;
        for sent in in_flight {
            let request = self.request(sent.request);
            let verdict = &mut self.client.verdicts[usize::from(request.op)];
            *verdict = if request.sequence <= resumed.last {
                Verdict::Provisional {
                    incarnation: self.sessions[usize::from(session)].incarnation,
                    first: sent.epoch_min.min(resumed.epoch),
                    epoch: resumed.epoch,
                    session,
                    sequence: request.sequence,
                }
            } else if refused {
                Verdict::Lost
            } else {
                Verdict::Waiting
            };
        }
        self.client.phase = Phase::Ready;
        self.follow(rules);
        Outcome::Done
    }

    /// A server hello arrives, and then the certificates up to its head.
    pub fn get_welcome(&mut self, rules: Rules, id: Id) -> Outcome {
        let Some(welcome) = self.welcomes.get(usize::from(id)).copied() else {
            return Outcome::Impossible;
        };
        let Phase::Greeting(hello, known) = self.client.phase else {
            return Outcome::Impossible;
        };
        if welcome.hello != hello {
            return Outcome::Impossible;
        }
        let chain = self.chain_to(welcome.head);
        let shared = chain.len().min(self.client.chain.len());
        if chain.len() < usize::from(known) || chain[..shared] != self.client.chain[..shared] {
            self.client.phase = Phase::Alarmed;
            return Outcome::Done;
        }
        let head = chain.len() as Epoch;
        if chain.len() > shared && rules.hold(Rule::ChainReachesHead) {
            self.client.chain = chain;
        }
        self.follow(rules);
        let incarnation = self.session(welcome.session).incarnation;
        let asked = self.hellos[usize::from(hello)].former;
        let mut lost = false;
        if let Some(asked) = asked.filter(|asked| self.session(*asked).incarnation != incarnation) {
            lost = self.session_ended(rules, asked, incarnation, welcome.former);
        }
        if let Some(former) = self.client.current.take() {
            if self.session(former.session).incarnation == incarnation {
                self.session_gone(rules, &former);
            } else {
                self.session_over(rules, &former, welcome.former, incarnation);
            }
        }
        if lost {
            for verdict in self
                .client
                .verdicts
                .iter_mut()
                .filter(|verdict| **verdict == Verdict::Waiting)
            {
                *verdict = Verdict::Lost; // not applied, since it may build on what was lost
            }
        }
        self.client.current = Some(Current {
            session: welcome.session,
            generation: 1,
            sequence: 0,
            epoch_min: head.max(self.client.chain.len() as Epoch) + 1,
            in_flight: Vec::new(),
        });
        self.client.phase = Phase::Ready;
        self.follow(rules);
        if let Some(origin) = self.origin_to_ask_about(incarnation) {
            self.send_hello(Some(origin));
        }
        Outcome::Done
    }

    /// Whose open answers another hello must ask about.
    fn origin_to_ask_about(&self, now: Inc) -> Option<Id> {
        self.client.verdicts.iter().find_map(|verdict| match *verdict {
            Verdict::Provisional {
                incarnation, session, ..
            } if incarnation != now => Some(session),
            _ => None,
        })
    }

    /// Settle what was answered in a session of a former incarnation. True if an answer was lost.
    fn session_ended(&mut self, rules: Rules, asked: Id, now: Inc, former: Former) -> bool {
        let mut lost = false;
        for op in 0..self.client.verdicts.len() {
            let Verdict::Provisional {
                incarnation,
                first,
                session,
                sequence,
                ..
            } = self.client.verdicts[op]
            else {
                continue;
            };
            if session != asked || incarnation == now {
                continue;
            }
            let loss = if self.last_epoch_of(incarnation) < first {
                Verdict::Lost
            } else {
                Verdict::Unknown
            };
            let verdict = match former {
                Former::Known {
                    replayed, replay_epoch, ..
                } if sequence <= replayed && replay_epoch > 0 => Verdict::Provisional {
                    incarnation: now,
                    first: replay_epoch,
                    epoch: replay_epoch,
                    session,
                    sequence,
                },
                Former::Known { replayed, .. } if sequence <= replayed => Verdict::Certified,
                Former::Known { replay_epoch, .. } if replay_epoch > 0 => Verdict::Lost,
                Former::MayBeReplayed => Verdict::Unknown,
                _ => loss,
            };
            lost |= matches!(verdict, Verdict::Lost | Verdict::Unknown);
            self.client.verdicts[op] = verdict;
        }
        self.follow(rules);
        lost
    }

    /// Settle what was in flight in a session of a former incarnation, which the hello asked about.
    fn session_over(&mut self, rules: Rules, former: &Current, answer: Former, now: Inc) {
        let certified_last = self.last_epoch_of(self.session(former.session).incarnation);
        for sent in &former.in_flight {
            let request = self.request(sent.request);
            let can_be_certified = sent.epoch_min <= certified_last && rules.hold(Rule::ForgottenIsUnknown);
            self.client.verdicts[usize::from(request.op)] = match answer {
                Former::Known { last, .. } if request.sequence <= last => Verdict::Certified,
                Former::Known {
                    replayed, replay_epoch, ..
                } if request.sequence <= replayed => Verdict::Provisional {
                    incarnation: now,
                    first: replay_epoch,
                    epoch: replay_epoch,
                    session: former.session,
                    sequence: request.sequence,
                },
                Former::MayBeReplayed => Verdict::Unknown,
                Former::Unknown | Former::NotAsked if can_be_certified => Verdict::Unknown,
                _ => Verdict::Waiting,
            };
        }
        self.follow(rules);
    }

    /// Settle what was in flight in a session that is gone, though its incarnation is not.
    fn session_gone(&mut self, rules: Rules, former: &Current) {
        for sent in &former.in_flight {
            let op = usize::from(self.request(sent.request).op);
            let is_unknown = rules.hold(Rule::GoneIsUnknown);
            self.client.verdicts[op] = if is_unknown { Verdict::Unknown } else { Verdict::Waiting };
        }
    }

    /// A certificate arrives: the next one of the chain.
    pub fn get_certificate(&mut self, rules: Rules, id: Id) -> Outcome {
        let (seal, client) = (self.seal(id), &self.client);
        let last = client.chain.last().copied().unwrap_or(GENESIS);
        if usize::from(seal.epoch) != client.chain.len() + 1 || seal.previous != last {
            return Outcome::Impossible;
        }
        let (epoch, incarnation) = (seal.epoch, seal.incarnation);
        self.client.chain.push(id);
        self.follow(rules);
        let of_session = self
            .client
            .current
            .as_ref()
            .map(|current| self.session(current.session).incarnation);
        if let Some(current) = self.client.current.as_mut().filter(|_| of_session == Some(incarnation)) {
            current.epoch_min = epoch + 1;
        }
        Outcome::Done
    }

    /// Settle what the chain certifies.
    fn follow(&mut self, rules: Rules) {
        for op in 0..self.client.verdicts.len() {
            if let Verdict::Provisional { incarnation, epoch, .. } = self.client.verdicts[op] {
                let certified_by = incarnation_of(&self.client, epoch).map(|id| self.seal(id).incarnation);
                let certifies = |by: Inc| by == incarnation || !rules.hold(Rule::CertificateNamesIncarnation);
                if certified_by.is_some_and(certifies) {
                    self.client.verdicts[op] = Verdict::Certified;
                }
            }
        }
    }

    /// The last epoch that an incarnation certified, as far as the chain is known.
    fn last_epoch_of(&self, incarnation: Inc) -> Epoch {
        let certified = self
            .client
            .chain
            .iter()
            .rev()
            .find(|id| self.seal(**id).incarnation == incarnation);
        certified.map_or(0, |id| self.seal(*id).epoch)
    }

    /// The states whose certificates lead to this one.
    fn chain_to(&self, head: Id) -> Vec<Id> {
        let mut chain = Vec::new();
        let mut next = head;
        while next != GENESIS {
            chain.push(next);
            next = self.seal(next).previous;
        }
        chain.reverse();
        chain
    }
}

fn incarnation_of(client: &Client, epoch: Epoch) -> Option<Id> {
    client.chain.get(usize::from(epoch).checked_sub(1)?).copied()
}
