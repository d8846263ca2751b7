//! Timestamps: an epoch, and a counter within it.

/// A moment of a verifier thread's clock. Ordered by epoch, then counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// The epoch.
    pub epoch: u32,
    /// The counter, which starts at 0 in each epoch.
    pub counter: u32,
}

impl Timestamp {
    /// A moment.
    pub const fn new(epoch: u32, counter: u32) -> Self {
        Self { epoch, counter }
    }

    /// From its number: epoch in the upper half.
    pub const fn from_u64(number: u64) -> Self {
        Self {
            epoch: (number >> 32) as u32,
            counter: number as u32,
        }
    }

    /// Its number.
    pub const fn to_u64(self) -> u64 {
        (self.epoch as u64) << 32 | self.counter as u64
    }

    /// The next moment of the same epoch; `None` at the counter's end.
    pub fn next(self) -> Option<Self> {
        Some(Self::new(self.epoch, self.counter.checked_add(1)?))
    }

    /// The first moment of the next epoch; `None` after the last.
    pub fn next_epoch(self) -> Option<Self> {
        Some(Self::new(self.epoch.checked_add(1)?, 0))
    }
}
