//! Random logs: whatever a host writes, a thread answers or fails, and stays so; it never panics.

use std::collections::BTreeSet;
use std::vec::Vec;

use super::symbolic::SymbolicCrypto;
use super::world::{EMPTY_NODE, Log, NULL, World, get, leaf, put, ts};
use crate::thread::Progress;

const SEEDS: u64 = 200;
const ENTRIES_TRIED: usize = 150;
/// The client's requests have these sequences.
const SEQUENCES: u64 = 4;

fn operations() -> [Vec<u8>; 2] {
    [get("000"), put("001", "b")]
}

/// A small generator, so that a failure is found again from the seed that is printed (xorshift64*, Vigna 2016).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// One entry, mostly of small numbers, so that it often fits what came before.
fn random_entry(random: &mut Random, request: &[u8]) -> Log {
    let paths = ["", "0", "00", "000", "001", "01", "1", "100", "1111"];
    let values = [NULL, EMPTY_NODE, leaf("a")];
    let path = paths[random.below(paths.len())];
    let value = values[random.below(values.len())];
    let (slot, parent) = (random.below(5) as u32, random.below(5) as u32);
    let counters = [0, 1, 2, 3, 5, 8, u32::MAX - 1, u32::MAX];
    let moment = ts(random.below(4) as u32, counters[random.below(counters.len())]);
    let thread = [0, 0, 0, 1, 64][random.below(5)];
    let log = Log::new();
    match random.below(16) {
        0..4 => log.add_merkle(slot, parent, path, value),
        4 => log.evict_merkle(slot, parent),
        5 => log.add_blum(slot, path, value, moment, thread),
        6 => log.evict_blum(slot, moment),
        7 => log.evict_blum_merkle(slot, parent, moment),
        8 => log.next_epoch(),
        9 => log.verify_epoch(),
        10 => log.tick(),
        11 => log.request(request),
        12 => log.run(&[slot]),
        13 => log.run_absent(parent),
        14 => log.carry_over(path, value, moment, thread),
        _ => Log((0..random.below(40))
            .map(|_| random.below(256) as u8)
            .collect::<Vec<_>>()),
    }
}

/// A world in which these entries have been accepted.
fn replay(entries: &[Log]) -> World<SymbolicCrypto> {
    let mut world = World::symbolic(2);
    for sequence in 1..=SEQUENCES {
        world.make_request(0, sequence, |_| {}, &operations()); // so that it knows their MACs
    }
    for entry in entries {
        world.accepted(0, entry.clone());
    }
    world
}

#[test]
fn random_logs_do_not_panic_and_failures_are_final() {
    let (mut accepted, mut failures) = (0, BTreeSet::new());
    for seed in 1..=SEEDS {
        std::println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)); // small seeds begin alike
        let (mut world, mut log) = (replay(&[]), Vec::new());
        for _ in 0..ENTRIES_TRIED {
            let sequence = log.len() as u64 % SEQUENCES + 1;
            let request = world.make_request(0, sequence, |_| {}, &operations());
            let entry = random_entry(&mut random, &request);
            match world.process(0, &entry).0 {
                Progress::Done => log.push(entry),
                Progress::Waiting { consumed } => assert_eq!(consumed, 0),
                Progress::Failed(violation) => {
                    let after = world.process(0, &Log::new().tick()).0;
                    assert_eq!(after, Progress::Failed(violation));
                    failures.insert(violation.code as u16);
                    // go on from before the failure
                    world = replay(&log);
                }
            }
        }
        accepted += log.len();
    }
    assert!(accepted as u64 > 10 * SEEDS, "{accepted} entries accepted");
    assert!(failures.len() > 25, "violations found: {failures:?}");
}
