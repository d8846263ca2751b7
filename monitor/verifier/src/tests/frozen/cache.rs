//! The records of a cache, taken out and put back as a whole: for the search over all states. Only in the tests of this crate.

use super::{Cache, Record};
use crate::entry::Slot;
use crate::key::Key;
use crate::value::Value;

impl Record {
    pub fn frozen(
        key: Key,
        value: Value,
        parent: Option<Slot>,
        linked: [Option<Slot>; 2],
        hash_is_current: bool,
    ) -> Self {
        Self {
            key,
            value,
            parent,
            linked,
            hash_is_current,
        }
    }

    pub fn hash_is_current(&self) -> bool {
        self.hash_is_current
    }

    pub fn linked(&self) -> &[Option<Slot>; 2] {
        &self.linked
    }
}

impl<const LEAF_DEPTH: u16> Cache<LEAF_DEPTH> {
    pub fn records(&self) -> &[Option<Record>] {
        &self.slots
    }

    /// One or none for each slot.
    pub fn set_records(&mut self, records: &[Option<Record>], occupied: usize) {
        self.slots.copy_from_slice(records);
        self.occupied = occupied;
    }
}
