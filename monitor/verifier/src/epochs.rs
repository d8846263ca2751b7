//! The clock of one thread, its epochs, and the multisets of what it added from and evicted to Blum.
//!
//! Invariants: the clock is in the epoch after the last verified one, or that epoch is *closing*, and the clock is in the next. What a thread
//! adds and evicts is of the clock's epoch; only what is carried over is taken from the closing one, and is the first of the next, at its
//! counter 0, where no eviction is. So the sums are those of one epoch or of two, and what was carried from the first to the second.
//! Evictions are strictly increasing, and the published clock never goes back.

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

/// What a thread added and evicted with timestamps of one epoch.
#[derive(Clone, Default)]
pub(crate) struct Sums<S> {
    pub added: S,
    pub evicted: S,
}

/// The closing epoch, and what was carried over into the next.
pub(crate) struct Closing<S> {
    pub sums: Sums<S>,
    pub carried: S,
}

pub(crate) struct Epochs<S> {
    thread: ThreadId,
    clocks: Arc<Clocks>,
    /// Its epoch is above 0, the last certified one of a first start.
    clock: Timestamp,
    /// Of the clock's epoch, but for what is carried over while `closing`.
    sums: Sums<S>,
    closing: Option<Closing<S>>,
}

impl<S: Clone + Default> Epochs<S> {
    /// At the start of the epoch after `certified_epoch`, of which `carried` has been evicted already; `None` if there is none.
    pub fn new(thread: ThreadId, certified_epoch: u32, carried: S, clocks: Arc<Clocks>) -> Option<Self> {
        Some(Self {
            thread,
            clocks,
            clock: Timestamp::new(certified_epoch.checked_add(1)?, 1),
            sums: Sums {
                added: S::default(),
                evicted: carried,
            },
            closing: None,
        })
    }

    pub const fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Whether no thread's clock has reached this moment: nobody can have told it to a client.
    pub fn is_ahead_of_all(&self, ts: Timestamp) -> bool {
        ts > self.clock && ts > self.clocks.latest_until(u32::MAX)
    }

    /// Whether this clock may pass a moment in the next epoch only. That is so where no clock shows that it has been in this one: those that
    /// have gone on do not tell how far they came, and what nobody has seen may be so late that after it there is no time left.
    pub fn is_for_later(&self, ts: Timestamp) -> bool {
        ts > self.clock && ts > self.clocks.latest_until(self.clock.epoch)
    }

    /// Move the clock forward; `None` is beyond its end.
    fn advance(&mut self, to: Option<Timestamp>, key: &Key) -> Result<(), Fault> {
        let Some(to) = to else {
            return Err(Fault::new(ViolationCode::ClockOverflow, *key));
        };
        self.clock = to;
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
        check!(add_blum_epoch_not_over: ts.epoch >= self.clock.epoch, else EpochClosed(*key));
        check!(add_blum_epoch_reached: ts.epoch <= self.clock.epoch, else EpochInFuture(*key));
        let published = self.published(key, thread)?;
        Ok(holds!(add_blum_clock_passed: thread == self.thread || published > ts))
    }

    /// Note that a record was added which `thread` evicted at `ts`, and pass that moment.
    pub fn add<C: Crypto<Sum = S>>(&mut self, crypto: &C, element: &Element<'_>) -> Result<(), Fault> {
        crypto.add_element(element.ts.epoch, &mut self.sums.added, element);
        self.pass(element.ts, element.key)
    }

    fn published(&self, key: &Key, thread: ThreadId) -> Result<Timestamp, Fault> {
        let published = self.clocks.published(thread);
        published.ok_or(Fault::new(ViolationCode::UnknownThread, *key))
    }

    /// Note that a record is evicted at `ts`, which must be after the clock, so after all earlier evictions of this thread, and in its epoch.
    pub fn evict<C: Crypto<Sum = S>>(
        &mut self,
        crypto: &C,
        key: &Key,
        value: &Value,
        ts: Timestamp,
    ) -> Result<(), Fault> {
        check!(evict_in_epoch_of_clock: ts.epoch == self.clock.epoch, else TimestampEpoch(*key));
        check!(evict_later_than_before: ts > self.clock, else TimestampNotIncreasing(*key));
        let element = Element {
            key,
            value,
            ts,
            thread: self.thread,
        };
        crypto.add_element(ts.epoch, &mut self.sums.evicted, &element);
        self.clock = ts;
        self.clocks.publish(self.thread, ts);
        Ok(())
    }

    /// Note that a record goes over from the closing epoch, in which `element` was evicted last, to the start of the next.
    ///
    /// To other threads, and to this one, it is there from `next_epoch` on, when this thread's clock passed that start: so it must be settled
    /// by then. What another thread evicts in the closing epoch may not be, but for what that thread has carried over itself.
    pub fn carry_over<C: Crypto<Sum = S>>(&mut self, crypto: &C, element: &Element<'_>) -> Result<(), Fault> {
        let Element { key, ts, thread, .. } = *element;
        self.published(key, thread)?;
        let Some(closing) = &mut self.closing else {
            return Err(Fault::new(ViolationCode::EpochNotClosing, *key));
        };
        let start = Timestamp::new(self.clock.epoch, 0);
        check!(carry_over_from_closing_epoch: ts.epoch == start.epoch - 1, else EpochNotClosing(*key));
        let is_settled = thread == self.thread || ts.counter == 0;
        check!(carry_over_settled: is_settled, else CarriedFromOther(*key));
        crypto.add_element(ts.epoch, &mut closing.sums.added, element);
        let carried = Element {
            ts: start,
            thread: self.thread,
            ..*element
        };
        crypto.add_element(start.epoch, &mut closing.carried, &carried);
        Ok(())
    }

    /// Begin to close the clock's epoch. `Ok(false)`, and nothing done: the one before it is not certified, so it may be closing still.
    pub fn next_epoch(&mut self) -> Result<bool, Fault> {
        if self.clocks.certified_epoch() < self.clock.epoch - 1 {
            return Ok(false);
        }
        self.advance(self.clock.next_epoch().and_then(Timestamp::next), &Key::ROOT)?;
        self.closing = Some(Closing {
            sums: core::mem::take(&mut self.sums),
            carried: S::default(),
        });
        Ok(true)
    }

    /// Hand the closing epoch over: its number, its sums, and what was carried over into the next.
    pub fn verify_epoch<C: Crypto<Sum = S>>(&mut self, crypto: &C) -> Result<(u32, Closing<S>), Fault> {
        let Some(closing) = self.closing.take() else {
            return Err(Fault::new(ViolationCode::EpochNotClosingYet, Key::ROOT));
        };
        crypto.merge(&mut self.sums.evicted, &closing.carried);
        Ok((self.clock.epoch - 1, closing))
    }
}
