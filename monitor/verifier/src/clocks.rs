//! What the threads of one monitor tell each other: how far their clocks are, and which epoch is certified.
//!
//! This is what lifts the sequential consistency of offline memory checking to linearizability: a record that another thread evicted may be
//! added only when that thread's clock has passed the eviction, so a record is in one place at a time in real time.
//!
//! Each number has one writer, and never goes back. What is needed of memory order is that reading a number brings with it all that its
//! writer did before: so stores release and loads acquire. Nothing compares two numbers of different writers as of one moment, so no total
//! order of them is needed. `tests/interleavings.rs` shows that this suffices, and that nothing weaker does.

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::entry::ThreadId;
#[cfg(loom)]
use crate::tests::watched_atomics::{AtomicU32, AtomicU64, Ordering};
use crate::time::Timestamp;

/// Verifier threads at the most: the number of partitions of the tree.
pub const THREADS_MAX: usize = 64;

/// One clock on its own cache line, so that threads do not slow each other down.
#[repr(align(64))]
#[derive(Debug)]
struct PaddedClock(AtomicU64);

/// The published clocks of all threads, of any number: those that do not run stay at the start of the first open epoch.
#[derive(Debug)]
pub struct Clocks {
    clocks: [PaddedClock; THREADS_MAX],
    certified_epoch: AtomicU32,
}

impl Clocks {
    /// Clocks of an incarnation that starts after `certified_epoch`: all at counter 1 of the next epoch.
    ///
    /// Returns `None` if there is no next epoch.
    pub fn new(certified_epoch: u32) -> Option<Self> {
        let start = Timestamp::new(certified_epoch.checked_add(1)?, 1).to_u64();
        Some(Self {
            clocks: core::array::from_fn(|_| PaddedClock(AtomicU64::new(start))),
            certified_epoch: AtomicU32::new(certified_epoch),
        })
    }

    /// Publish a thread's clock. Release: whoever reads it with acquire also sees that all evictions before it have happened.
    pub fn publish(&self, thread: ThreadId, clock: Timestamp) {
        if let Some(PaddedClock(published)) = self.clocks.get(usize::from(thread)) {
            published.store(clock.to_u64(), Ordering::Release);
        }
    }

    /// The published clock of a thread; `None` if there can be no such thread. Acquire: what that thread ran before is before what the caller
    /// runs next.
    pub fn published(&self, thread: ThreadId) -> Option<Timestamp> {
        self.clocks
            .get(usize::from(thread))
            .map(|PaddedClock(published)| Timestamp::from_u64(published.load(Ordering::Acquire)))
    }

    /// The latest published clock of those that are not beyond an epoch. The loads are of different moments, so it may be too early: but not
    /// earlier than any clock that the caller can have heard of, for that was published before; unless its thread has gone beyond the epoch.
    pub fn latest_until(&self, epoch: u32) -> Timestamp {
        let clocks = self.clocks.iter();
        clocks
            .map(|PaddedClock(published)| Timestamp::from_u64(published.load(Ordering::Acquire)))
            .filter(|clock| clock.epoch <= epoch)
            .max()
            .unwrap_or_default()
    }

    /// Say that an epoch is certified. Release: threads that see it may open the epoch after the next.
    pub fn certify(&self, epoch: u32) {
        self.certified_epoch.store(epoch, Ordering::Release);
    }

    /// The last certified epoch. Acquire: what the register commits to is committed before the caller opens another epoch.
    pub fn certified_epoch(&self) -> u32 {
        self.certified_epoch.load(Ordering::Acquire)
    }
}
