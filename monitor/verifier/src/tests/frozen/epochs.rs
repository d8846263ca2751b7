//! The clock and sums of a thread, taken out and put back as a whole: for the search over all states. Only in the tests of this crate.

use super::{Epochs, Sums};
use crate::key::Key;
use crate::time::Timestamp;

/// What [`Epochs`] holds, but for its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub clock: Timestamp,
    pub last_evict_key: Option<Key>,
    pub last_verified: u32,
}

impl<S: Clone + Default> Epochs<S> {
    pub fn moment(&self) -> Moment {
        Moment {
            clock: self.clock,
            last_evict_key: self.last_evict_key,
            last_verified: self.last_verified,
        }
    }

    pub fn set(&mut self, moment: &Moment, sums: Sums<S>) {
        self.clock = moment.clock;
        self.last_evict_key = moment.last_evict_key;
        self.last_verified = moment.last_verified;
        self.added = sums.added;
        self.evicted = sums.evicted;
        self.evicted_next = sums.evicted_next;
        self.clocks.publish(self.thread, self.clock);
    }

    pub fn take_sums(&mut self) -> Sums<S> {
        Sums {
            added: core::mem::take(&mut self.added),
            evicted: core::mem::take(&mut self.evicted),
            evicted_next: core::mem::take(&mut self.evicted_next),
        }
    }
}
