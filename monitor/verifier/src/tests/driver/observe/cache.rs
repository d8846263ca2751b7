//! The slots, for the model.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Cache;
use crate::tests::driver::text;

impl<const LEAF_DEPTH: u16> Cache<LEAF_DEPTH> {
    pub(crate) fn observe(&self, lines: &mut Vec<String>) {
        for (slot, place) in self.slots.iter().enumerate() {
            if let Some(record) = place {
                let (key, value) = (text::key(&record.key), text::value(&record.value));
                let parent = text::optional(record.parent);
                let [left, right] = record.linked.map(text::optional);
                lines.push(format!(
                    "slot {slot} {key} {value} parent {parent} linked {left} {right}"
                ));
            }
        }
        let occupied = self.slots.iter().flatten().count();
        assert_eq!(self.occupied, occupied, "the number of records is kept right");
    }
}
