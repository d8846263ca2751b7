//! What is done to which record: the mixes and key distributions of YCSB.

use fastrand::Rng;

use crate::options::{Distribution, Mix};
use crate::records::VARIANTS;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the record.
    Get,
    /// Write one of the values of its class.
    Put(u8),
    /// Read, modify and write it: add 1.
    Increment,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Number of the record.
    pub record: u32,
    /// What is done to it.
    pub action: Action,
}

/// The operations of one thread of the generator.
pub struct Source {
    rng: Rng,
    kind: Kind,
}

enum Kind {
    /// Put every record once.
    Load { next: u32, step: u32, count: u32 },
    /// A mix, without an end, on the first `keys` records.
    Mix {
        mix: Mix,
        keys: u32,
        zipfian: Option<Zipfian>,
    },
}

impl Source {
    /// Puts of the records `first`, `first + step` and so on, below `count`.
    pub fn load(first: u32, step: u32, count: u32) -> Self {
        Self {
            rng: Rng::with_seed(u64::from(first)),
            kind: Kind::Load {
                next: first,
                step,
                count,
            },
        }
    }

    /// A mix over the first `keys` records, without an end.
    pub fn mix(mix: Mix, distribution: Distribution, keys: u32, seed: u64) -> Self {
        let zipfian = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipfian => Some(Zipfian::new()),
        };
        Self {
            rng: Rng::with_seed(seed),
            kind: Kind::Mix { mix, keys, zipfian },
        }
    }

    /// A number from 0 to 1, for who needs chance beside the operations.
    pub fn chance(&mut self) -> f64 {
        self.rng.f64()
    }
}

impl Iterator for Source {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        let variant = |rng: &mut Rng| Action::Put(rng.u8(..VARIANTS as u8));
        match &mut self.kind {
            Kind::Load { next, step, count } => {
                let record = (*next < *count).then_some(*next)?;
                *next = next.saturating_add(*step);
                let action = variant(&mut self.rng);
                Some(Operation { record, action })
            }
            Kind::Mix { mix, keys, zipfian } => {
                let record = match zipfian {
                    Some(zipfian) => (scramble(zipfian.draw(self.rng.f64())) % u64::from(*keys)) as u32,
                    None => self.rng.u32(..*keys),
                };
                let action = if self.rng.f64() < mix.reads() {
                    Action::Get
                } else if *mix == Mix::F {
                    Action::Increment
                } else {
                    variant(&mut self.rng)
                };
                Some(Operation { record, action })
            }
        }
    }
}

/// Zipfian numbers with constant 0.99 over 10^10 items, as YCSB's scrambled distribution draws them (method: Gray et al., "Quickly
/// generating billion-record synthetic databases", SIGMOD 1994). Which record an item is, its hash decides.
struct Zipfian {
    alpha: f64,
    eta: f64,
    second: f64,
}

impl Zipfian {
    const ITEMS: f64 = 1e10;
    const CONSTANT: f64 = 0.99;
    /// The sum of 1 / i^0.99 over all items.
    const ZETA: f64 = 26.469_028_201_783_02;

    fn new() -> Self {
        let second = 1.0 + 0.5f64.powf(Self::CONSTANT);
        Self {
            alpha: 1.0 / (1.0 - Self::CONSTANT),
            eta: (1.0 - (2.0 / Self::ITEMS).powf(1.0 - Self::CONSTANT)) / (1.0 - second / Self::ZETA),
            second,
        }
    }

    /// The item of a number from 0 to 1; 0 is the most frequent.
    fn draw(&self, chance: f64) -> u64 {
        let scaled = chance * Self::ZETA;
        if scaled < 1.0 {
            0
        } else if scaled < self.second {
            1
        } else {
            (Self::ITEMS * (self.eta * chance - self.eta + 1.0).powf(self.alpha)) as u64
        }
    }
}

/// FNV-1a over the eight bytes of an item.
fn scramble(item: u64) -> u64 {
    item.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_puts_each_record_once() {
        let mut records: Vec<u32> = (0..3)
            .flat_map(|first| Source::load(first, 3, 100))
            .map(|operation| operation.record)
            .collect();
        records.sort_unstable();
        assert_eq!(records, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn zipfian_frequencies_follow_the_law() {
        let (zipfian, mut rng) = (Zipfian::new(), Rng::with_seed(1));
        let mut counts = [0u32; 3];
        for _ in 0..1_000_000 {
            if let Some(count) = counts.get_mut(zipfian.draw(rng.f64()) as usize) {
                *count += 1;
            }
        }
        for (rank, count) in counts.into_iter().enumerate().take(2) {
            let expected = 1e6 / ((rank + 1) as f64).powf(0.99) / Zipfian::ZETA;
            assert!((f64::from(count) / expected - 1.0).abs() < 0.05, "{counts:?}");
        }
    }

    #[test]
    fn mixes_have_their_shares() {
        for (mix, reads) in [(Mix::A, 0.5), (Mix::B, 0.95), (Mix::C, 1.0), (Mix::F, 0.5)] {
            let source = Source::mix(mix, Distribution::Uniform, 1000, 1);
            let operations: Vec<_> = source.take(100_000).collect();
            let gets = operations
                .iter()
                .filter(|operation| operation.action == Action::Get)
                .count();
            assert!((gets as f64 / 1e5 - reads).abs() < 0.01);
            let increments = operations.iter().any(|operation| operation.action == Action::Increment);
            assert_eq!(increments, mix == Mix::F);
        }
    }
}
