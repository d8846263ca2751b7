//! The verifier threads of the running incarnation, each waiting for the connection that brings its log.
//!
//! Invariant: each is handed out once. When the incarnation ends, all that wait are dropped and all their connections are ended.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zetakv_verifier::SessionKeys;
use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::kv::KeyValue;
use zetakv_verifier::machine::Role;
use zetakv_verifier::standard_crypto::StandardCrypto;
use zetakv_verifier::thread::Verifier;

use crate::control::Event;
use crate::error::Error;
use crate::identity::{IncarnationId, Run};
use crate::stream::Stream;

/// A verifier thread's state machine, and what it shares with the control side.
pub struct Seat {
    /// Its number.
    pub thread: ThreadId,
    /// The state machine.
    pub verifier: Verifier<StandardCrypto, KeyValue>,
    /// Sessions that were opened, closed or changed since it looked last.
    pub changes: Arc<SessionChanges>,
    /// Where it reports.
    pub events: SyncSender<Event>,
    /// The run that it belongs to.
    pub run: Run,
    /// Whether the incarnation has ended.
    pub over: Arc<AtomicBool>,
}

/// A change of a session that a verifier thread must take over.
pub enum SessionChange {
    /// It was opened.
    Open(SessionKeys),
    /// It was closed.
    Close(u64),
    /// Its client may do this from now on; `None`: nothing.
    SetRole(u64, Option<Role>),
}

impl SessionChange {
    const fn session(&self) -> u64 {
        match self {
            Self::Open(keys) => keys.session,
            Self::Close(session) | Self::SetRole(session, _) => *session,
        }
    }
}

/// Changes that a thread has not taken over yet, by session, and in order for each.
///
/// Bounded by the live sessions, however long the thread's log is silent: what is closed before the thread has seen it leaves nothing.
#[derive(Default)]
pub struct SessionChanges(Mutex<BTreeMap<u64, Vec<SessionChange>>>);

impl SessionChanges {
    /// Add a change.
    pub fn push(&self, change: SessionChange) {
        let mut changes = lock(&self.0);
        if let SessionChange::Close(session) = change
            && let Some(earlier) = changes.remove(&session)
            && matches!(earlier.first(), Some(SessionChange::Open(_)))
        {
            return;
        }
        changes.entry(change.session()).or_default().push(change);
    }

    /// Take all.
    pub fn take(&self) -> impl Iterator<Item = SessionChange> {
        std::mem::take(&mut *lock(&self.0)).into_values().flatten()
    }
}

/// The seats of an incarnation, and the connections that have taken one.
#[derive(Default)]
struct Seating {
    free: Vec<Option<Seat>>,
    connections: Vec<Stream>,
}

/// The seats of the running incarnation; none if there is none.
#[derive(Default)]
pub struct Seats(Mutex<Seating>);

impl Seats {
    /// Offer these seats, in the order of their threads.
    pub fn offer(&self, seats: Vec<Seat>) {
        lock(&self.0).free = seats.into_iter().map(Some).collect();
    }

    /// Take a thread's seat for a connection. `None`: there is no such thread in this incarnation, or its seat is taken.
    ///
    /// A worker names its incarnation, because one that a crashed host has left behind must not sit down among those of the next.
    pub fn take(&self, thread: ThreadId, of: &IncarnationId, connection: &Stream) -> Result<Option<Seat>, Error> {
        let handle = connection.try_clone()?;
        let mut seating = lock(&self.0);
        let is_of = |seat: &mut Seat| seat.run.incarnation == *of;
        let seat = seating
            .free
            .get_mut(usize::from(thread))
            .and_then(|seat| seat.take_if(is_of));
        if seat.is_some() {
            seating.connections.push(handle);
        }
        Ok(seat)
    }

    /// End the incarnation: drop the free seats, and end the connections.
    pub fn close(&self, over: &AtomicBool) {
        over.store(true, Ordering::Release);
        let seating = std::mem::take(&mut *lock(&self.0));
        for connection in seating.connections {
            let _ = connection.shutdown(Shutdown::Both); // fails only if it has ended already
        }
    }
}

/// A panic ends the process, so no lock is ever poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn open(session: u64) -> SessionChange {
        SessionChange::Open(SessionKeys {
            session,
            role: Role::Write,
            request_key: Zeroizing::new([0; 32]),
            receipt_key: Zeroizing::new([0; 32]),
        })
    }

    #[test]
    fn sessions_that_come_and_go_unseen_leave_nothing() {
        let changes = SessionChanges::default();
        for session in 1..=1000 {
            changes.push(open(session));
            changes.push(SessionChange::SetRole(session, None));
            changes.push(SessionChange::Close(session));
        }
        assert_eq!(changes.take().count(), 0);
    }

    #[test]
    fn what_a_thread_has_seen_is_closed() {
        let changes = SessionChanges::default();
        changes.push(open(1));
        let taken: Vec<_> = changes.take().collect();
        assert!(matches!(taken[..], [SessionChange::Open(_)]));
        changes.push(SessionChange::SetRole(1, None));
        changes.push(open(2));
        changes.push(SessionChange::Close(1));
        let taken: Vec<_> = changes.take().collect();
        assert!(matches!(taken[..], [SessionChange::Close(1), SessionChange::Open(_)]));
    }
}
