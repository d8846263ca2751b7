//! What is searched: trees, threads and bounds.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::moves::Rules;
use super::steps::DEPTH;
use crate::tests::world::key;

/// A name, and what there may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Configuration {
    pub threads: usize,
    /// The paths of all records, but for the root; those of [`DEPTH`] bits are leaves.
    pub paths: &'static [&'static str],
    /// Records that a thread may hold, beside the root.
    pub slots: usize,
    /// The last moment of an epoch at which records are evicted.
    pub counter_max: u32,
    pub crashes: bool,
}

impl Configuration {
    pub const fn new(
        threads: usize,
        paths: &'static [&'static str],
        slots: usize,
        counter_max: u32,
        crashes: bool,
    ) -> Self {
        Self {
            threads,
            paths,
            slots,
            counter_max,
            crashes,
        }
    }

    /// With these checks left out. See [`super::moves`] for what depends on them.
    pub fn rules(&self, left_out: &[&'static str]) -> Rules {
        let mut leaves = 0..;
        let mut with_number = |path: &&str| {
            let is_leaf = path.len() == usize::from(DEPTH);
            (key(path), is_leaf.then(|| leaves.next().expect("endless")))
        };
        let leaves_out = |checks: &[&str]| checks.iter().any(|check| left_out.contains(check));
        Rules {
            threads: self.threads,
            keys: self.paths.iter().map(&mut with_number).collect::<Vec<_>>(),
            slots: self.slots,
            counter_max: self.counter_max,
            crashes: self.crashes,
            everything: false,
            // what `steps::is_doomed` argues from
            doom: !left_out.contains(&"evict_later_than_before") && !left_out.contains(&THE_SUMS),
            // without either, the clock leaves its epoch without `next_epoch`
            evictions_fit: !leaves_out(&["evict_in_epoch_of_clock", "add_blum_epoch_reached"]),
            additions_fit: !leaves_out(&[
                "evict_in_epoch_of_clock",
                "add_blum_epoch_reached",
                "add_blum_epoch_not_over",
                "carry_over_from_closing_epoch",
            ]),
            cache_is_emptied: !left_out.contains(&"next_epoch_cache_empty"),
            carried_is_settled: !left_out.contains(&"carry_over_settled"),
            sums_hold: !left_out.contains(&THE_SUMS),
        }
    }

    pub fn name(&self) -> String {
        let threads = if self.threads == 1 { "1 thread" } else { "2 threads" };
        let crashes = if self.crashes { ", crashes" } else { "" };
        format!(
            "{threads}, {}, {} slots, until {}{crashes}",
            self.paths.join(" "),
            self.slots,
            self.counter_max
        )
    }
}

/// The check of the aggregator, which has no name in the source: leaving it out is a matter of the cryptography.
pub const THE_SUMS: &str = "epoch_mismatch";

impl Configuration {
    /// Also what all the checks are known to refuse; and nothing is given up.
    pub fn rules_with_everything(&self) -> Rules {
        Rules {
            everything: true,
            doom: false,
            ..self.rules(&[])
        }
    }
}
