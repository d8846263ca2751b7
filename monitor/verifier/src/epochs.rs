//! The clock of one thread, its epochs, and the multisets of what it added from and evicted to Blum.
//!
//! Invariants: at any time one epoch is *open* (clock.epoch = last verified + 1), or it is *closing* and the one after it has begun
//! (clock.epoch = last verified + 2). So three sums are all there ever are: added and evicted of the first, evicted of the second.
//! Evictions are strictly increasing in (clock, key in post-order), and the published clock never goes back.

#[cfg(test)]
#[path = "tests/frozen/epochs.rs"]
mod frozen;
#[cfg(test)]
#[path = "tests/driver/observe/epochs.rs"]
mod observe;

use alloc::sync::Arc;

use crate::check::{Fault, check, holds};
use crate::clocks::Clocks;
use crate::crypto::{Crypto, Element};
use crate::entry::ThreadId;
use crate::key::Key;
use crate::time::Timestamp;
use crate::value::Value;
use crate::violation::ViolationCode;

#[cfg(test)]
pub(crate) use frozen::Moment;

/// The three sums of an epoch that is handed over.
pub(crate) struct Sums<S> {
    pub added: S,
    pub evicted: S,
    pub evicted_next: S,
}

pub(crate) struct Epochs<S> {
    thread: ThreadId,
    clocks: Arc<Clocks>,
    clock: Timestamp,
    /// The last record evicted at `clock`; None, which is below every key, if there is none.
    last_evict_key: Option<Key>,
    last_verified: u32,
    added: S,
    evicted: S,
    evicted_next: S,
}

impl<S: Clone + Default> Epochs<S> {
    /// At the start of the epoch after `certified_epoch`, of which `carried` has been evicted already; `None` if there is none.
    pub fn new(thread: ThreadId, certified_epoch: u32, carried: S, clocks: Arc<Clocks>) -> Option<Self> {
        Some(Self {
            thread,
            clocks,
            clock: Timestamp::new(certified_epoch.checked_add(1)?, 1),
            last_evict_key: None,
            last_verified: certified_epoch,
            added: S::default(),
            evicted: carried,
            evicted_next: S::default(),
        })
    }

    pub const fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Whether the thread is between `next_epoch` and `verify_epoch`.
    pub const fn closing(&self) -> bool {
        self.clock.epoch != self.open_epoch()
    }

    /// The epoch that is verified next.
    const fn open_epoch(&self) -> u32 {
        self.last_verified + 1 // the clock has been there, so it exists
    }

    /// Whether no thread's clock has reached this moment: nobody can have told it to a client.
    pub fn is_ahead_of_all(&self, ts: Timestamp) -> bool {
        ts > self.clock && ts > self.clocks.latest()
    }

    /// Move the clock forward; `None` is beyond its end.
    fn advance(&mut self, to: Option<Timestamp>, key: &Key) -> Result<(), Fault> {
        let Some(to) = to else {
            return Err(Fault::new(ViolationCode::ClockOverflow, *key));
        };
        self.clock = to;
        self.last_evict_key = None;
        self.clocks.publish(self.thread, to);
        Ok(())
    }

    /// Move the clock past a moment, if it is not.
    pub fn pass(&mut self, ts: Timestamp, key: &Key) -> Result<(), Fault> {
        if self.clock > ts {
            return Ok(());
        }
        self.advance(ts.next(), key)
    }

    /// Move the clock by one.
    pub fn tick(&mut self) -> Result<(), Fault> {
        self.advance(self.clock.next(), &Key::ROOT)
    }

    /// Whether a record may be added that `thread` evicted at `ts`. `Ok(false)`: not before the published clock of that thread has passed.
    pub fn check_add(&self, key: &Key, ts: Timestamp, thread: ThreadId) -> Result<bool, Fault> {
        check!(add_blum_epoch_not_verified: ts.epoch > self.last_verified, else EpochClosed(*key));
        check!(add_blum_epoch_reached: ts.epoch <= self.clock.epoch, else EpochInFuture(*key));
        let in_closing = !self.closing() || ts.epoch == self.open_epoch();
        check!(add_blum_epoch_is_closing: in_closing, else EpochNotClosing(*key));
        let Some(published) = self.clocks.published(thread) else {
            return Err(Fault::new(ViolationCode::UnknownThread, *key));
        };
        Ok(holds!(add_blum_clock_passed: thread == self.thread || published > ts))
    }

    /// Note that a record was added which `thread` evicted at `ts`, and pass that moment.
    pub fn add<C: Crypto<Sum = S>>(&mut self, crypto: &C, element: &Element<'_>) -> Result<(), Fault> {
        crypto.add_element(element.ts.epoch, &mut self.added, element);
        self.pass(element.ts, element.key)
    }

    /// Note that a record is evicted at `ts`, which must be after all earlier evictions of this thread, and in its epoch.
    pub fn evict<C: Crypto<Sum = S>>(
        &mut self,
        crypto: &C,
        key: &Key,
        value: &Value,
        ts: Timestamp,
    ) -> Result<(), Fault> {
        check!(evict_in_epoch_of_clock: ts.epoch == self.clock.epoch, else TimestampEpoch(*key));
        let key_is_later = self.last_evict_key.is_none_or(|last| last.cmp_post_order(key).is_lt());
        let is_later = ts > self.clock || (ts == self.clock && key_is_later);
        check!(evict_later_than_before: is_later, else TimestampNotIncreasing(*key));
        let element = Element {
            key,
            value,
            ts,
            thread: self.thread,
        };
        let evicted = if self.closing() {
            &mut self.evicted_next
        } else {
            &mut self.evicted
        };
        crypto.add_element(ts.epoch, evicted, &element);
        self.clock = ts;
        self.last_evict_key = Some(*key);
        self.clocks.publish(self.thread, ts);
        Ok(())
    }

    /// Begin to close the open epoch. `Ok(false)`, and nothing done: the one before it is not certified.
    pub fn next_epoch(&mut self) -> Result<bool, Fault> {
        check!(next_epoch_once: !self.closing(), else EpochAlreadyClosing(Key::ROOT));
        if self.clocks.certified_epoch() < self.last_verified {
            return Ok(false);
        }
        self.advance(self.clock.next_epoch(), &Key::ROOT)?;
        Ok(true)
    }

    /// Whether the closing epoch can be handed over: nothing has moved the clock since `next_epoch`, so all was drained to that moment.
    pub fn check_verify(&self) -> Result<(), Fault> {
        let at_start = self.closing() && self.clock.counter == 0;
        check!(verify_epoch_clock_at_start: at_start, else EpochNotClosingYet(Key::ROOT));
        Ok(())
    }

    /// Hand the closing epoch over, and open the next.
    pub fn verify_epoch(&mut self) -> Result<(u32, Sums<S>), Fault> {
        let epoch = self.open_epoch();
        let sums = Sums {
            added: core::mem::take(&mut self.added),
            evicted: core::mem::replace(&mut self.evicted, self.evicted_next.clone()),
            evicted_next: core::mem::take(&mut self.evicted_next),
        };
        self.last_verified = epoch;
        self.tick()?;
        Ok((epoch, sums))
    }
}
