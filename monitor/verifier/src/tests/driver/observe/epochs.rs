//! The clock and the sums, for the model.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Epochs;
use crate::tests::driver::{DriverSum, text};

impl Epochs<DriverSum> {
    pub(crate) fn observe(&self, lines: &mut Vec<String>) {
        lines.push(format!("clock {}", text::ts(self.clock)));
        text::multiset("added", &self.sums.added, lines);
        text::multiset("evicted", &self.sums.evicted, lines);
        if let Some(closing) = &self.closing {
            text::multiset("closing_added", &closing.sums.added, lines);
            text::multiset("closing_evicted", &closing.sums.evicted, lines);
            text::multiset("carried", &closing.carried, lines);
        }
    }

    pub(crate) fn observe_clocks(&self, lines: &mut Vec<String>, threads: usize) {
        let published = |thread: usize| self.clocks.published(thread as u16).map(text::ts);
        let published: Vec<_> = (0..threads).filter_map(published).collect();
        let certified = self.clocks.certified_epoch();
        lines.push(format!("published {} certified {certified}", published.join(" ")));
    }
}
