//! Whether an epoch holds: over all threads, what was added from Blum is what was evicted to it.
//!
//! One epoch is in flight at a time, because no thread closes the next before this one is certified: so memory is bounded, and honest threads
//! cannot drift apart. It cannot tell which thread is to blame.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::crypto::{Crypto, Mac};
use crate::key::Key;
use crate::thread::Snapshot;
use crate::value::Node;
use crate::violation::{NO_THREAD, Violation, ViolationCode};

/// An epoch that holds: all that a sealed state needs to know of it.
pub struct HeldEpoch<S> {
    /// The epoch.
    pub epoch: u32,
    /// What is in Blum at its end: all threads have carried it over into the next epoch.
    pub carried: S,
    /// The root's value.
    pub root: Node,
    /// For each session, the last sequence on each thread up to which all requests have run or been refused.
    pub sessions: BTreeMap<u64, Vec<u64>>,
    /// The tags of all threads; none without write-ahead logs.
    pub tags: Vec<Mac>,
}

/// Adds up the snapshots of all threads.
pub struct Aggregator<S> {
    epoch: u32,
    snapshots: Vec<Option<Snapshot<S>>>,
}

impl<S: Clone + Default> Aggregator<S> {
    /// For so many threads, from `first_epoch` on.
    pub fn new(threads: u16, first_epoch: u32) -> Self {
        Self {
            epoch: first_epoch,
            snapshots: (0..threads).map(|_| None).collect(),
        }
    }

    /// Take a thread's snapshot. `Ok(None)`: others are missing yet.
    ///
    /// # Errors
    /// `epoch_mismatch`, final, if the epoch does not hold.
    pub fn submit<C: Crypto<Sum = S>>(
        &mut self,
        snapshot: Snapshot<S>,
        crypto: &C,
    ) -> Result<Option<HeldEpoch<S>>, Violation> {
        let mismatch = Violation {
            code: ViolationCode::EpochMismatch,
            thread: NO_THREAD,
            epoch: self.epoch,
            offset: 0,
            key: Key::ROOT,
        };
        // threads of one monitor hand over each epoch once and in order; were it otherwise, nothing would hold
        let place = self.snapshots.get_mut(usize::from(snapshot.thread)).ok_or(mismatch)?;
        if snapshot.epoch != self.epoch || place.is_some() {
            return Err(mismatch);
        }
        *place = Some(snapshot);
        if self.snapshots.iter().any(Option::is_none) {
            return Ok(None);
        }
        self.conclude(crypto).ok_or(mismatch).map(Some)
    }

    /// All threads are in: the epoch, if it holds.
    fn conclude<C: Crypto<Sum = S>>(&mut self, crypto: &C) -> Option<HeldEpoch<S>> {
        let threads = self.snapshots.len();
        let (mut added, mut evicted, mut carried) = (S::default(), S::default(), S::default());
        let mut root = None;
        let (mut sessions, mut tags) = (BTreeMap::new(), Vec::new());
        for (thread, snapshot) in self.snapshots.iter_mut().filter_map(Option::take).enumerate() {
            crypto.merge(&mut added, &snapshot.added);
            crypto.merge(&mut evicted, &snapshot.evicted);
            crypto.merge(&mut carried, &snapshot.carried);
            root = root.or(snapshot.end.root);
            tags.extend(snapshot.end.tag);
            for (session, sequence) in snapshot.end.sessions {
                sessions.entry(session).or_insert_with(|| vec![0; threads])[thread] = sequence;
            }
        }
        if !crypto.equal(&added, &evicted) {
            return None;
        }
        let epoch = self.epoch;
        self.epoch = epoch.checked_add(1)?;
        Some(HeldEpoch {
            epoch,
            carried,
            root: root?,
            sessions,
            tags,
        })
    }
}
