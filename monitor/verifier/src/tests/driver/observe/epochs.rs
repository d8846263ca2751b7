//! The clock and the sums, for the model.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Epochs;
use crate::tests::driver::{DriverSum, text};

impl Epochs<DriverSum> {
    pub(crate) fn observe(&self, lines: &mut Vec<String>) {
        let key = text::optional(self.last_evict_key.map(|key| text::key(&key)));
        let (clock, verified) = (text::ts(self.clock), self.last_verified);
        lines.push(format!("clock {clock} last_evict_key {key} verified {verified}"));
        text::multiset("added", &self.added, lines);
        text::multiset("evicted", &self.evicted, lines);
        text::multiset("evicted_next", &self.evicted_next, lines);
    }

    pub(crate) fn observe_clocks(&self, lines: &mut Vec<String>, threads: usize) {
        let published = |thread: usize| self.clocks.published(thread as u16).map(text::ts);
        let published: Vec<_> = (0..threads).filter_map(published).collect();
        let certified = self.clocks.certified_epoch();
        lines.push(format!("published {} certified {certified}", published.join(" ")));
    }
}
