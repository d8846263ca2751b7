//! The atomics of `clocks.rs` under loom, which can be made weaker than they are, one at a time, to show that loom would notice.

use loom::sync::atomic;
pub(crate) use loom::sync::atomic::Ordering;

use super::left_out::left_out;

/// Stores without release.
pub const RELEASE: &str = "release";
/// Loads without acquire.
pub const ACQUIRE: &str = "acquire";
/// Clocks that others see before they are there: by two. By one would only turn `>` into `≥`, which would do, since a thread evicts nothing where
/// its clock stands already.
pub const NOT_BEFORE: &str = "not_before";

fn store_ordering(ordering: Ordering) -> Ordering {
    if left_out(RELEASE) { Ordering::Relaxed } else { ordering }
}

fn load_ordering(ordering: Ordering) -> Ordering {
    if left_out(ACQUIRE) { Ordering::Relaxed } else { ordering }
}

#[derive(Debug)]
pub(crate) struct AtomicU64(atomic::AtomicU64);

impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    pub fn store(&self, value: u64, ordering: Ordering) {
        self.0.store(value, store_ordering(ordering));
    }

    pub fn load(&self, ordering: Ordering) -> u64 {
        self.0.load(load_ordering(ordering)) + 2 * u64::from(left_out(NOT_BEFORE))
    }
}

#[derive(Debug)]
pub(crate) struct AtomicU32(atomic::AtomicU32);

impl AtomicU32 {
    pub fn new(value: u32) -> Self {
        Self(atomic::AtomicU32::new(value))
    }

    pub fn store(&self, value: u32, ordering: Ordering) {
        self.0.store(value, store_ordering(ordering));
    }

    pub fn load(&self, ordering: Ordering) -> u32 {
        self.0.load(load_ordering(ordering))
    }
}
