//! A start with a write-ahead log, from `started` to `live`.
//!
//! Invariant: until it is live an incarnation has no session, tells nobody anything, and the register names the one before. So a crash before
//! leaves nothing but one more mark in the log; and who is told what was lost is told by an incarnation that every later replay must have in
//! it. Only the sealed state is committed to at once: a certificate of it leaves with `started`.

use std::collections::BTreeMap;

use zetakv_verifier::ReplayedSessions;
use zetakv_verifier::codec::Malformed;
use zetakv_verifier::entry::ThreadId;

use crate::error::Error;
use crate::identity::Secret;
use crate::register::{Commitment, TrustedRegister};
use crate::sessions::{ENDED_MAX, EndedSession, Sessions};
use crate::ticket;

/// What is known until the incarnation is live.
pub struct Replay {
    /// What the register holds.
    committed: Commitment,
    /// What it will hold.
    begun: Commitment,
    tickets: BTreeMap<u64, EndedSession>,
    /// Of each thread, once its replay has ended.
    replayed: Vec<Option<ReplayedSessions>>,
}

impl Replay {
    /// The replay of so many threads.
    pub fn new(committed: Commitment, begun: Commitment, threads: ThreadId) -> Self {
        Self {
            committed,
            begun,
            tickets: BTreeMap::new(),
            replayed: (0..threads).map(|_| None).collect(),
        }
    }

    /// The host offers a ticket. Of two for one number the first counts: only one session of it can have been in the log.
    pub fn take_ticket(&mut self, ticket: &[u8], key: &Secret) -> Result<(), Malformed> {
        let (number, session) = ticket::open(ticket, key)?;
        if self.tickets.len() < ENDED_MAX {
            self.tickets.entry(number).or_insert(session);
        }
        Ok(())
    }

    /// A thread has ended its replay.
    pub fn thread_ended(&mut self, thread: ThreadId, replayed: ReplayedSessions) {
        if let Some(place) = self.replayed.get_mut(usize::from(thread)) {
            *place = Some(replayed);
        }
    }

    /// Whether all threads have.
    pub fn has_ended(&self) -> bool {
        self.replayed.iter().all(Option::is_some)
    }

    /// From now on clients are answered: by this incarnation, from what was replayed in `epoch`.
    pub fn go_live(self, register: &mut dyn TrustedRegister, sessions: &mut Sessions, epoch: u32) -> Result<(), Error> {
        register.commit(&self.committed, &self.begun)?;
        sessions.learn(self.tickets);
        for (thread, replayed) in self.replayed.into_iter().flatten().enumerate() {
            sessions.note_replayed(thread, &replayed, epoch);
        }
        Ok(())
    }
}
