//! The requests that a thread has admitted and not finished, in their order.
//!
//! Invariants: only authentic, well-formed requests are in it, with all that their receipts need, so that what happens to the session
//! meanwhile does not matter; a resume is never at the head. Memory is allocated once.

#[cfg(test)]
#[path = "tests/driver/observe/queue.rs"]
mod observe;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::codec::{Malformed, Reader};
use crate::crypto::{Mac, MacKey};
use crate::machine::{Role, StateMachine};
use crate::time::Timestamp;

/// Requests and resumes that wait at the most: what one batch of the host may hold.
pub const QUEUED_MAX: usize = 4096;

/// An admitted request, without its operations.
pub(crate) struct QueuedRequest {
    pub session: u64,
    pub generation: u32,
    pub sequence: u64,
    pub after_ts: Timestamp,
    pub role: Role,
    pub mac: Mac,
    pub receipt_key: Zeroizing<MacKey>,
    pub operations: u16,
    /// Operations that have run.
    pub done: u16,
}

/// An admitted resume.
pub(crate) struct QueuedResume {
    pub session: u64,
    pub generation: u32,
    /// The last sequence that was admitted before it.
    pub last_sequence: u64,
    pub nonce: [u8; 16],
    pub receipt_key: Zeroizing<MacKey>,
}

pub(crate) enum Queued {
    Request(QueuedRequest),
    Resume(QueuedResume),
}

pub(crate) struct Queue {
    waiting: VecDeque<Queued>,
    /// The operations of all waiting requests, one after the other, from `read` on. Its capacity is twice `bytes_max`, so that what waits
    /// is moved to its front only once in `bytes_max` bytes.
    operations: Vec<u8>,
    read: usize,
    bytes_max: usize,
}

impl Queue {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            waiting: VecDeque::with_capacity(QUEUED_MAX),
            operations: Vec::with_capacity(2 * bytes_max),
            read: 0,
            bytes_max,
        }
    }

    /// Whether there is room for one more, with operations of so many bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.waiting.len() < QUEUED_MAX && self.operations.len() - self.read + bytes <= self.bytes_max
    }

    /// Put a request at the end; there must be room for it.
    pub fn push_request(&mut self, request: QueuedRequest, operations: &[u8]) {
        if self.operations.len() + operations.len() > self.operations.capacity() {
            self.operations.drain(..self.read);
            self.read = 0;
        }
        self.operations.extend_from_slice(operations);
        self.waiting.push_back(Queued::Request(request));
    }

    /// Put a resume at the end; there must be a request before it.
    pub fn push_resume(&mut self, resume: QueuedResume) {
        self.waiting.push_back(Queued::Resume(resume));
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The request at the head.
    pub fn head(&mut self) -> Option<&mut QueuedRequest> {
        match self.waiting.front_mut()? {
            Queued::Request(request) => Some(request),
            Queued::Resume(_) => None,
        }
    }

    /// Whether some operations of the request at the head have run, and not all.
    pub fn in_progress(&self) -> bool {
        matches!(self.waiting.front(), Some(Queued::Request(request)) if request.done > 0)
    }

    /// The next operation of the request at the head, and where it ends.
    pub fn next_operation<M: StateMachine>(&self) -> Result<(M::Operation, usize), Malformed> {
        let mut reader = Reader::new(&self.operations[self.read..]);
        let operation = M::decode(&mut reader)?;
        Ok((operation, self.operations.len() - reader.remaining()))
    }

    /// The operation that ends there has run. Returns its request if it was the last, and takes it out.
    pub fn finish_operation(&mut self, end: usize) -> Option<QueuedRequest> {
        self.read = end;
        let request = self.head()?;
        request.done += 1;
        if request.done < request.operations {
            return None;
        }
        match self.waiting.pop_front()? {
            Queued::Request(request) => Some(request),
            Queued::Resume(_) => None, // it was a request just above
        }
    }

    /// Take out the resume at the head.
    pub fn pop_resume(&mut self) -> Option<QueuedResume> {
        match self.waiting.pop_front()? {
            Queued::Resume(resume) => Some(resume),
            request @ Queued::Request(_) => {
                self.waiting.push_front(request);
                None
            }
        }
    }

    /// For each session that has requests here, the first sequence that has not run.
    pub fn first_sequences(&self) -> BTreeMap<u64, u64> {
        let mut first = BTreeMap::new();
        for queued in &self.waiting {
            if let Queued::Request(request) = queued {
                first.entry(request.session).or_insert(request.sequence);
            }
        }
        first
    }
}

#[cfg(test)]
#[path = "tests/queue.rs"]
mod tests;
