//! One verifier thread: reads its log, entry by entry, checks each, and answers.
//!
//! Invariants: a violation is final, and nothing that was answered in the same call leaves with it; nothing that a client sent can cause
//! one. It copies nothing from the log but what it has checked, and keeps no reference to it.

#[cfg(test)]
#[path = "tests/frozen/thread.rs"]
mod frozen;
#[cfg(test)]
#[path = "tests/driver/observe/thread.rs"]
mod observe;
mod requests;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::marker::PhantomData;

use crate::cache::Cache;
use crate::chain::{Chain, LogConfig, ReplayedSessions};
use crate::check::{Fault, check};
use crate::clocks::Clocks;
use crate::codec::Reader;
use crate::crypto::{Crypto, Element, Mac};
use crate::entry::{Entry, Slot, ThreadId};
use crate::epochs::{Closing, Epochs};
use crate::key::{Key, LEAF_DEPTH};
use crate::machine::{OperationResult, Role, StateMachine};
use crate::output::Output;
use crate::queue::Queue;
use crate::receipt::RECEIPT_HEADER_BYTES;
use crate::request::{MAC_BYTES, OPERATIONS_PER_REQUEST_MAX};
use crate::sessions::{SessionKeys, Sessions};
use crate::time::Timestamp;
use crate::value::Node;
use crate::violation::{Violation, ViolationCode};

/// How a thread starts.
pub struct ThreadConfig {
    /// Its number.
    pub thread: ThreadId,
    /// Slots of its verified cache.
    pub slots: u32,
    /// The last certified epoch.
    pub certified_epoch: u32,
    /// The root's value: on thread 0, and on no other.
    pub root: Option<Node>,
    /// Bytes of operations that may wait in the queue.
    pub queue_bytes: usize,
}

/// How far a call of [`Verifier::process`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All entries are done.
    Done,
    /// The entry at `consumed` waits for another thread's clock; those before it are done.
    Waiting {
        /// Bytes of the log that are done.
        consumed: usize,
    },
    /// The thread has failed, for ever.
    Failed(Violation),
}

/// What one thread hands over of an epoch, for the [`crate::aggregate::Aggregator`].
pub struct Snapshot<S> {
    /// The thread.
    pub thread: ThreadId,
    /// The epoch.
    pub epoch: u32,
    /// What the thread added from Blum with timestamps of the epoch.
    pub added: S,
    /// What the thread evicted to Blum in the epoch.
    pub evicted: S,
    /// What the thread carried over into the next one.
    pub carried: S,
    /// What else the thread had when the epoch ended.
    pub end: EpochEnd,
}

/// What a thread has at the end of an epoch, beside what is in Blum.
pub struct EpochEnd {
    /// The root's value, from the thread that has it.
    pub root: Option<Node>,
    /// For each session, its number and the last sequence up to which all requests have run or been refused.
    pub sessions: Vec<(u64, u64)>,
    /// The tag of its write-ahead log, if it has one.
    pub tag: Option<Mac>,
}

/// What an entry comes to, if it is no fault.
enum Step {
    Done,
    Wait,
}

/// A verifier thread, generic over cryptography, operations and the depth of the tree (tests search small ones).
pub struct Verifier<C: Crypto, M: StateMachine, const DEPTH: u16 = LEAF_DEPTH> {
    thread: ThreadId,
    crypto: C,
    cache: Cache<DEPTH>,
    epochs: Epochs<C::Sum>,
    sessions: Sessions,
    queue: Queue,
    /// Of the write-ahead log, if the host keeps one.
    chain: Option<Chain>,
    /// Header and results so far of the receipt of the request at the head.
    receipt: Vec<u8>,
    /// Of the closing epoch.
    end: Option<EpochEnd>,
    snapshot: Option<Snapshot<C::Sum>>,
    /// Bytes of the log that are done, in this incarnation.
    offset: u64,
    /// The key of the record that the last call waits for.
    waiting_for: Key,
    failed: Option<Violation>,
    machine: PhantomData<M>,
}

impl<C: Crypto, M: StateMachine, const DEPTH: u16> Verifier<C, M, DEPTH> {
    /// A thread at the start of the first open epoch.
    ///
    /// `carried` is the sum of what earlier incarnations carried over into this epoch: given to one thread only.
    /// Returns `None` if there is no epoch left, or no slot for the root.
    pub fn new(config: ThreadConfig, mut crypto: C, carried: C::Sum, clocks: Arc<Clocks>) -> Option<Self> {
        let epochs = Epochs::new(config.thread, config.certified_epoch, carried, clocks)?;
        crypto.prepare_epoch(epochs.clock().epoch);
        let results_max = usize::from(OPERATIONS_PER_REQUEST_MAX) * OperationResult::ENCODED_BYTES_MAX;
        Some(Self {
            thread: config.thread,
            crypto,
            cache: Cache::new(config.slots, config.root)?,
            epochs,
            sessions: Sessions::new(config.thread),
            queue: Queue::new(config.queue_bytes),
            chain: None,
            receipt: Vec::with_capacity(RECEIPT_HEADER_BYTES + results_max + MAC_BYTES),
            end: None,
            snapshot: None,
            offset: 0,
            waiting_for: Key::ROOT,
            failed: None,
            machine: PhantomData,
        })
    }

    /// The host keeps a write-ahead log: the thread begins with its replay. Before anything else.
    pub fn keep_log(&mut self, config: LogConfig) {
        self.chain = Some(Chain::new(config, self.thread, &self.crypto));
    }

    /// What was replayed, once the replay has ended.
    pub fn replayed_sessions(&self) -> Option<&ReplayedSessions> {
        let ended = self.chain.as_ref().filter(|chain| !chain.is_replaying());
        ended.map(Chain::replayed_sessions)
    }

    /// Begin a session, with sequence 1 and generation 1.
    pub fn open_session(&mut self, keys: SessionKeys) {
        self.sessions.open(keys);
    }

    /// Reject what comes for this session from now on. What is admitted still runs, and the session is in all snapshots until it has.
    pub fn close_session(&mut self, session: u64) {
        self.sessions.close(session);
    }

    /// Change what a session's client may do from now on; requests of one with no role are rejected. What is admitted keeps its role.
    pub fn set_role(&mut self, session: u64, role: Option<Role>) {
        self.sessions.set_role(session, role);
    }

    /// The snapshot of the last `verify_epoch`, once. There is never more than one: the next epoch closes only when this one is certified.
    pub fn take_snapshot(&mut self) -> Option<Snapshot<C::Sum>> {
        self.snapshot.take()
    }

    /// The thread's clock.
    pub const fn clock(&self) -> Timestamp {
        self.epochs.clock()
    }

    /// Check a piece of the log, which holds whole entries, and append the answers.
    ///
    /// After [`Progress::Waiting`] the caller comes again with the rest of the piece, or gives up by [`Self::time_out`]. It lets answers out
    /// only after [`Progress::Done`]: so nothing leaves a thread that fails in the same piece.
    pub fn process(&mut self, log: &[u8], outputs: &mut Vec<u8>) -> Progress {
        if let Some(violation) = self.failed {
            return Progress::Failed(violation);
        }
        let answered = outputs.len();
        let mut reader = Reader::new(log);
        let mut consumed = 0;
        while reader.remaining() > 0 {
            let step = match Entry::decode(&mut reader) {
                Ok(entry) => self.step(&entry, outputs),
                Err(malformed) => Err(Fault::new(malformed.into(), Key::ROOT)),
            };
            match step {
                Ok(Step::Done) => {}
                Ok(Step::Wait) => return Progress::Waiting { consumed },
                Err(fault) => {
                    outputs.truncate(answered);
                    return Progress::Failed(self.fail(fault));
                }
            }
            self.offset += (log.len() - reader.remaining() - consumed) as u64;
            consumed = log.len() - reader.remaining();
        }
        if let Some(tag) = self.chain.as_mut().and_then(Chain::take_untold) {
            Output::Logged(&tag).encode(outputs);
        }
        Progress::Done
    }

    /// Give up waiting: the other thread's clock has not passed the timestamp in time.
    pub fn time_out(&mut self) -> Violation {
        match self.failed {
            Some(violation) => violation,
            None => self.fail(Fault::new(ViolationCode::ClockNotPassed, self.waiting_for)),
        }
    }

    fn fail(&mut self, fault: Fault) -> Violation {
        let violation = Violation {
            code: fault.code,
            thread: self.thread,
            epoch: self.epochs.clock().epoch,
            offset: self.offset,
            key: fault.key,
        };
        self.failed = Some(violation);
        violation
    }

    fn step(&mut self, entry: &Entry<'_>, outputs: &mut Vec<u8>) -> Result<Step, Fault> {
        match *entry {
            Entry::AddMerkle {
                slot,
                parent,
                key,
                value,
            } => {
                self.cache.add_merkle(&self.crypto, slot, parent, key, value)?;
            }
            Entry::EvictMerkle { slot, parent } => self.cache.evict_merkle(&self.crypto, slot, parent)?,
            Entry::AddBlum {
                slot,
                ts,
                thread,
                ref key,
                ref value,
            } => {
                return self.add_blum(slot, &Element { key, value, ts, thread });
            }
            Entry::EvictBlum { slot, ts } => self.evict_blum(slot, ts)?,
            Entry::EvictBlumMerkle { slot, parent, ts } => self.evict_blum_merkle(slot, parent, ts)?,
            Entry::NextEpoch => self.next_epoch(outputs)?,
            Entry::CarryOver {
                ts,
                thread,
                ref key,
                ref value,
            } => self
                .epochs
                .carry_over(&self.crypto, &Element { key, value, ts, thread })?,
            Entry::VerifyEpoch => self.verify_epoch(outputs)?,
            Entry::Tick => self.epochs.tick()?,
            Entry::Request(request) => self.request(request, outputs)?,
            Entry::Run(slots) => self.run(&slots, outputs)?,
            Entry::RunAbsent { parent } => self.run_absent(parent, outputs)?,
            Entry::Resume(resume) => self.resume(resume, outputs)?,
            Entry::ReplayMark(incarnation) => replaying(&mut self.chain)?.mark(&self.crypto, incarnation)?,
            Entry::Replay { role, request } => self.replay(role, request, outputs)?,
            Entry::EndReplay(tag) => replaying(&mut self.chain)?.end_replay(&self.crypto, tag)?,
        }
        Ok(Step::Done)
    }

    fn add_blum(&mut self, slot: Slot, element: &Element<'_>) -> Result<Step, Fault> {
        let key = *element.key;
        self.cache.check_addable(slot, &key, element.value)?;
        check!(add_blum_not_root: !key.is_root(), else RootIsPermanent(key));
        let passed = self.epochs.check_add(&key, element.ts, element.thread)?;
        if !passed {
            self.waiting_for = key;
            return Ok(Step::Wait);
        }
        self.epochs.add(&self.crypto, element)?;
        self.cache.insert(slot, key, *element.value, None);
        Ok(Step::Done)
    }

    fn evict_blum(&mut self, slot: Slot, ts: Timestamp) -> Result<(), Fault> {
        let record = self.cache.evictable(slot)?;
        check!(evict_blum_came_from_blum: record.parent.is_none(), else NotAddedByBlum(record.key));
        self.epochs.evict(&self.crypto, &record.key, &record.value, ts)?;
        self.cache.remove(slot);
        Ok(())
    }

    fn evict_blum_merkle(&mut self, slot: Slot, parent: Slot, ts: Timestamp) -> Result<(), Fault> {
        let record = *self.cache.evictable(slot)?;
        check!(evict_blum_merkle_came_from_merkle: record.parent.is_some(), else NotAddedByMerkle(record.key));
        self.cache.evict_to_blum(slot, &record, parent)?;
        self.epochs.evict(&self.crypto, &record.key, &record.value, ts)
    }

    fn next_epoch(&mut self, outputs: &mut Vec<u8>) -> Result<(), Fault> {
        check!(next_epoch_between_requests: !self.queue.in_progress(), else RequestInProgress(Key::ROOT));
        // what a tag holds has run in the epoch of that tag, so that a replay from the next one needs none of it
        let nothing_left = |chain: &Chain| !chain.is_replaying() && self.queue.is_empty();
        check!(next_epoch_after_all_logged: self.chain.as_ref().is_none_or(nothing_left), else RequestInProgress(Key::ROOT));
        let root = self.cache.root();
        let permanent = usize::from(root.is_some());
        check!(next_epoch_cache_empty: self.cache.occupied() == permanent, else CacheNotEmpty(Key::ROOT));
        if !self.epochs.next_epoch()? {
            Output::EpochNotYet.encode(outputs);
            return Ok(());
        }
        let mut sessions = self.sessions.hand_over(&self.queue);
        sessions.extend(self.chain.iter_mut().flat_map(Chain::hand_over));
        let tag = self.chain.as_ref().map(|chain| *chain.tag());
        self.end = Some(EpochEnd { root, sessions, tag });
        Ok(())
    }

    fn verify_epoch(&mut self, outputs: &mut Vec<u8>) -> Result<(), Fault> {
        let (epoch, Closing { sums, carried }) = self.epochs.verify_epoch(&self.crypto)?;
        self.crypto.prepare_epoch(self.epochs.clock().epoch);
        self.snapshot = self.end.take().map(|end| Snapshot {
            thread: self.thread,
            epoch,
            added: sums.added,
            evicted: sums.evicted,
            carried,
            end,
        });
        Output::HandedOver(epoch).encode(outputs);
        Ok(())
    }
}

/// The chain of a thread that has a write-ahead log.
fn replaying(chain: &mut Option<Chain>) -> Result<&mut Chain, Fault> {
    let no_log = Fault::new(ViolationCode::NotReplaying, Key::ROOT);
    chain.as_mut().ok_or(no_log)
}
