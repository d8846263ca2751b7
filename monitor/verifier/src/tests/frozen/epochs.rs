//! The clock and sums of a thread, taken out and put back as a whole: for the search over all states. Only in the tests of this crate.

use super::{Closing, Epochs, Sums};
use crate::time::Timestamp;

/// What [`Epochs`] holds, but for its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub clock: Timestamp,
    pub is_closing: bool,
}

impl<S: Clone + Default> Epochs<S> {
    pub fn moment(&self) -> Moment {
        Moment {
            clock: self.clock,
            is_closing: self.closing.is_some(),
        }
    }

    /// What is given for a closing epoch is dropped if none is closing.
    pub fn set(&mut self, moment: &Moment, sums: Sums<S>, closing: Closing<S>) {
        self.clock = moment.clock;
        self.sums = sums;
        self.closing = moment.is_closing.then_some(closing);
        self.clocks.publish(self.thread, self.clock);
    }

    /// The sums of the clock's epoch and of the closing one, empty if none is closing. The thread goes on with empty ones.
    pub fn take_sums(&mut self) -> (Sums<S>, Closing<S>) {
        let nothing = || Closing {
            sums: Sums::default(),
            carried: S::default(),
        };
        let closing = self
            .closing
            .as_mut()
            .map(|closing| core::mem::replace(closing, nothing()));
        (core::mem::take(&mut self.sums), closing.unwrap_or_else(nothing))
    }
}
