//! Answers that wait for the certificate of their epoch.

use std::collections::BTreeMap;

use crate::target::Nanos;

/// Answers that came within this time count as one: so what waits takes little memory.
const TOGETHER: Nanos = 500_000;

/// Of each epoch, when answers came, and of how many operations.
#[derive(Default)]
pub struct Uncertified {
    epochs: BTreeMap<u32, Vec<(Nanos, u64)>>,
}

impl Uncertified {
    /// Operations of an epoch are answered.
    pub fn add(&mut self, epoch: u32, now: Nanos, operations: u64) {
        let answers = self.epochs.entry(epoch).or_default();
        match answers.last_mut() {
            Some((moment, count)) if now - *moment < TOGETHER => *count += operations,
            _ => answers.push((now, operations)),
        }
    }

    /// All up to an epoch are certified: give each to `certified`.
    pub fn certify(&mut self, epoch: u32, mut certified: impl FnMut(Nanos, u64)) {
        while let Some(first) = self.epochs.first_entry().filter(|first| *first.key() <= epoch) {
            for (moment, operations) in first.remove() {
                certified(moment, operations);
            }
        }
    }

    /// The first epoch that is waited for.
    pub fn first(&self) -> Option<u32> {
        self.epochs.first_key_value().map(|(epoch, _)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_covers_its_epoch_and_those_before() {
        let mut uncertified = Uncertified::default();
        for (epoch, now) in [(3, 10), (4, 20), (3, 30), (5, 900_000)] {
            uncertified.add(epoch, now, 7);
        }
        let mut seen = Vec::new();
        uncertified.certify(4, |moment, operations| seen.push((moment, operations)));
        assert_eq!(seen, [(10, 14), (20, 7)]);
        assert_eq!(uncertified.first(), Some(5));
    }
}
