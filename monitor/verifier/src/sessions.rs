//! The sessions of one thread, and whether what arrives in a client's name was made by that client, for this thread, now.
//!
//! Nothing here can fail the thread: what is not authentic may be the host's invention, and is rejected without any change of state.

#[cfg(test)]
#[path = "tests/driver/observe/sessions.rs"]
mod observe;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::crypto::{Crypto, Mac, MacKey};
use crate::entry::ThreadId;
use crate::machine::Role;
use crate::queue::{Queue, QueuedResume};
use crate::request::{MacDomain, RESUME_BYTES, Rejection, RequestHeader, UnverifiedRequest, UnverifiedResume};

/// Generation of a new session.
const FIRST_GENERATION: u32 = 1;

/// A new session, as one thread needs it.
pub struct SessionKeys {
    /// Its number: not 0, and used once in an incarnation.
    pub session: u64,
    /// What its client may do.
    pub role: Role,
    /// For the MACs of its requests to this thread.
    pub request_key: Zeroizing<MacKey>,
    /// For the MACs of this thread's receipts.
    pub receipt_key: Zeroizing<MacKey>,
}

/// A session on one thread.
pub(crate) struct Session {
    keys: SessionKeys,
    /// None: its requests are rejected.
    role: Option<Role>,
    open: bool,
    generation: u32,
    /// The last sequence that was admitted or refused.
    sequence: u64,
}

/// A request that the session's client made, that is meant for this thread, and that is its next.
pub(crate) struct AuthenticRequest<'a> {
    pub header: RequestHeader,
    pub operations: &'a [u8],
    pub mac: Mac,
    pub role: Role,
    pub receipt_key: Zeroizing<MacKey>,
}

pub(crate) struct Sessions {
    thread: ThreadId,
    sessions: BTreeMap<u64, Session>,
}

impl Sessions {
    pub const fn new(thread: ThreadId) -> Self {
        Self {
            thread,
            sessions: BTreeMap::new(),
        }
    }

    pub fn open(&mut self, keys: SessionKeys) {
        let session = Session {
            role: Some(keys.role),
            keys,
            open: true,
            generation: FIRST_GENERATION,
            sequence: 0,
        };
        self.sessions.insert(session.keys.session, session);
    }

    pub fn close(&mut self, session: u64) {
        let Some(closed) = self.sessions.get_mut(&session) else {
            return;
        };
        closed.open = false;
        if closed.sequence == 0 {
            self.sessions.remove(&session); // there is nothing to hand over, and the next handover may be far
        }
    }

    pub fn set_role(&mut self, session: u64, role: Option<Role>) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.role = role;
        }
    }

    fn find(&mut self, session: u64) -> Result<&mut Session, Rejection> {
        match self.sessions.get_mut(&session) {
            Some(session) if session.open => Ok(session),
            _ => Err(Rejection::UnknownSession),
        }
    }

    /// Check a request. Its sequence is still the next one.
    pub fn authenticate<'a, C: Crypto>(
        &mut self,
        crypto: &C,
        request: &'a [u8],
    ) -> Result<AuthenticRequest<'a>, Rejection> {
        // what cannot be split has no MAC that could be right
        let request = UnverifiedRequest::split(request).map_err(|_| Rejection::BadMac)?;
        let header = request.header;
        let thread = self.thread;
        let session = self.find(header.session)?;
        let role = session.role.ok_or(Rejection::UnknownSession)?;
        if header.thread != thread {
            return Err(Rejection::WrongThread);
        }
        if !crypto.mac_is(
            &session.keys.request_key,
            MacDomain::Request,
            &[request.covered],
            request.mac,
        ) {
            return Err(Rejection::BadMac);
        }
        if header.generation != session.generation {
            return Err(Rejection::BadGeneration);
        }
        if session.sequence.checked_add(1) != Some(header.sequence) {
            return Err(Rejection::BadSequence);
        }
        Ok(AuthenticRequest {
            header,
            operations: request.operations,
            mac: *request.mac,
            role,
            receipt_key: session.keys.receipt_key.clone(),
        })
    }

    /// The request that has just been checked is admitted or refused: its sequence is used up.
    pub fn consume(&mut self, request: &AuthenticRequest<'_>) {
        if let Some(session) = self.sessions.get_mut(&request.header.session) {
            session.sequence = request.header.sequence;
        }
    }

    /// Check a resume, and begin its generation.
    pub fn resume<C: Crypto>(&mut self, crypto: &C, resume: &[u8; RESUME_BYTES]) -> Result<QueuedResume, Rejection> {
        let resume = UnverifiedResume::split(resume).map_err(|_| Rejection::BadMac)?;
        let thread = self.thread;
        let session = self.find(resume.session)?;
        if resume.thread != thread {
            return Err(Rejection::WrongThread);
        }
        if !crypto.mac_is(
            &session.keys.request_key,
            MacDomain::Resume,
            &[resume.covered],
            resume.mac,
        ) {
            return Err(Rejection::BadMac);
        }
        if resume.generation <= session.generation {
            return Err(Rejection::BadGeneration);
        }
        session.generation = resume.generation;
        Ok(QueuedResume {
            session: resume.session,
            generation: resume.generation,
            last_sequence: session.sequence,
            nonce: *resume.nonce,
            receipt_key: session.keys.receipt_key.clone(),
        })
    }

    /// The last sequence of each session of which it and all before have run or been refused. Closed sessions without any left are forgotten.
    pub fn hand_over(&mut self, queue: &Queue) -> Vec<(u64, u64)> {
        let waiting = queue.first_sequences();
        let completed = |(id, session): (&u64, &Session)| match waiting.get(id) {
            Some(first_waiting) => (*id, first_waiting - 1), // sequences start at 1
            None => (*id, session.sequence),
        };
        let handed_over = self.sessions.iter().map(completed).collect();
        self.sessions
            .retain(|id, session| session.open || waiting.contains_key(id));
        handed_over
    }
}
