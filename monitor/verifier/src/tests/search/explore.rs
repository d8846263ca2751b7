//! Breadth first over all states, level by level, on several processors: so the first attack is a shortest one.
//!
//! Of a state that has been visited only 128 bits of its BLAKE3 hash are kept. Should two states have the same, which among n states has a
//! probability of n^2 / 2^129, one of them is not searched.

use core::hash::{BuildHasherDefault, Hasher};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::vec::Vec;

use super::moves::{Move, Moves, Rules};
use super::path::Path;
use super::state::State;
use super::steps::{End, Steps};
use crate::tests::left_out::without;

/// Parts of the set of visited states, so that workers seldom wait for each other.
const SHARDS: usize = 64;
/// States that a worker takes at a time.
const CHUNK: usize = 128;

/// When to give up.
#[derive(Clone, Copy)]
pub struct Limits {
    pub depth: usize,
    pub states: usize,
    pub time: Duration,
    pub workers: usize,
}

#[derive(Default, Clone, Debug)]
pub struct Counts {
    /// Steps that were tried.
    pub steps: u64,
    pub refused: u64,
    pub waits: u64,
    pub doomed: u64,
    pub cut_off: u64,
}

/// What a search has found.
pub struct Report {
    /// New states at each depth.
    pub levels: Vec<usize>,
    pub counts: Counts,
    /// A shortest attack: the moves from the first state.
    pub attack: Option<Vec<Move>>,
    /// Whether every state that can be reached was.
    pub exhausted: bool,
    pub time: Duration,
}

impl Report {
    pub fn states(&self) -> usize {
        self.levels.iter().sum()
    }

    /// The depth to which all states were searched.
    pub fn depth(&self) -> usize {
        self.levels.len() - 1
    }
}

/// BLAKE3 has mixed the bits already.
#[derive(Default)]
struct NoHasher(u64);

impl Hasher for NoHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("fingerprints are numbers");
    }

    fn write_u128(&mut self, number: u128) {
        self.0 = number as u64;
    }
}

type Shard = HashSet<u128, BuildHasherDefault<NoHasher>>;

struct Visited(Vec<Mutex<Shard>>);

impl Visited {
    fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    /// Whether a state is new.
    fn insert(&self, encoded: &[u8]) -> bool {
        let hash = blake3::hash(encoded);
        let print = u128::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"));
        let shard = &self.0[(print >> 64) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner).insert(print)
    }
}

/// Encoded states, and of each where it came from: the number of a state of the level before, and of the move there.
#[derive(Default)]
struct Level {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    from: Vec<(u32, u16)>,
}

impl Level {
    fn push(&mut self, encoded: &[u8], from: (u32, u16)) {
        self.bytes.extend_from_slice(encoded);
        self.ends.push(self.bytes.len());
        self.from.push(from);
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    fn append(&mut self, other: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| start + end));
        self.from.extend_from_slice(&other.from);
    }
}

/// What one worker has found in a level.
#[derive(Default)]
struct Found {
    next: Level,
    counts: Counts,
    attack: Option<(u32, u16)>,
}

/// What all workers share while they search one level.
struct Shared<'a> {
    rules: &'a Rules,
    level: &'a Level,
    visited: &'a Visited,
    taken: AtomicUsize,
    stop: AtomicBool,
    deadline: Instant,
}

/// Search all states that can be reached, with these checks left out.
pub fn explore(rules: &Rules, left_out: &[&'static str], limits: Limits) -> Report {
    let started = Instant::now();
    let deadline = started + limits.time;
    let visited = Visited::new();
    let mut level = first_level(rules);
    visited.insert(level.get(0));
    let mut report = Report {
        levels: std::vec![1],
        counts: Counts::default(),
        attack: None,
        exhausted: false,
        time: Duration::ZERO,
    };
    let mut origins = Vec::new();
    while report.depth() < limits.depth && report.states() < limits.states {
        let shared = Shared {
            rules,
            level: &level,
            visited: &visited,
            taken: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            deadline,
        };
        let found = search_level(&shared, left_out, limits.workers);
        let stopped = shared.stop.into_inner();
        let mut next = Level::default();
        for of in found {
            report.counts.add(&of.counts);
            if let Some(last) = of.attack.filter(|_| report.attack.is_none()) {
                report.attack = Some(path(rules, left_out, &origins, &level, last));
            }
            next.append(&of.next);
        }
        origins.push(core::mem::take(&mut level.from));
        if stopped {
            break;
        }
        if next.from.is_empty() {
            report.exhausted = true;
            break;
        }
        report.levels.push(next.from.len());
        level = next;
    }
    report.time = started.elapsed();
    report
}

fn first_level(rules: &Rules) -> Level {
    let mut encoded = Vec::new();
    encode(rules, &mut Steps::new(rules).first_state(), &mut encoded);
    let mut level = Level::default();
    level.push(&encoded, (0, 0));
    level
}

fn encode(rules: &Rules, state: &mut State, out: &mut Vec<u8>) {
    if !rules.crashes {
        state.forget_sealed();
    }
    state.sort();
    state.encode(out);
}

fn search_level(shared: &Shared<'_>, left_out: &[&'static str], workers: usize) -> Vec<Found> {
    std::thread::scope(|scope| {
        let spawn = |_| scope.spawn(|| without(left_out, || search_part(shared)));
        let running: Vec<_> = (0..workers).map(spawn).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Found>| worker.join().expect("workers do not panic");
        running.into_iter().map(join).collect()
    })
}

fn search_part(shared: &Shared<'_>) -> Found {
    let mut found = Found::default();
    let mut steps = Steps::new(shared.rules);
    let mut moves = Moves::new(shared.rules);
    let mut encoded = Vec::new();
    loop {
        let start = shared.taken.fetch_add(CHUNK, Ordering::Relaxed);
        let end = (start + CHUNK).min(shared.level.from.len());
        if start >= end || shared.stop.load(Ordering::Relaxed) {
            return found;
        }
        for index in start..end {
            let state = State::decode(shared.level.get(index), shared.rules.threads);
            moves.of(&state);
            for (number, step) in moves.found.iter().enumerate() {
                let from = (index as u32, number as u16);
                found.counts.steps += 1;
                match steps.step(&state, step) {
                    Err(End::Refused) => found.counts.refused += 1,
                    Err(End::Waits) => found.counts.waits += 1,
                    Err(End::Doomed) => found.counts.doomed += 1,
                    Err(End::CutOff) => found.counts.cut_off += 1,
                    Err(End::Attack) => {
                        found.attack = Some(from);
                        shared.stop.store(true, Ordering::Relaxed);
                        return found;
                    }
                    Ok(mut state) => {
                        encode(shared.rules, &mut state, &mut encoded);
                        if shared.visited.insert(&encoded) {
                            found.next.push(&encoded, from);
                        }
                    }
                }
            }
        }
        if Instant::now() > shared.deadline {
            shared.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// The moves to the end of an attack, whose last one is `last`, in this level.
fn path(
    rules: &Rules,
    left_out: &[&'static str],
    origins: &[Vec<(u32, u16)>],
    level: &Level,
    last: (u32, u16),
) -> Vec<Move> {
    let mut numbers = std::vec![last.1];
    let mut index = last.0;
    for from in core::iter::once(&level.from)
        .chain(origins.iter().rev())
        .take(origins.len())
    {
        let (parent, number) = from[index as usize];
        numbers.push(number);
        index = parent;
    }
    numbers.reverse();
    without(left_out, || replayed(rules, &numbers))
}

/// The moves of these numbers, with the slots that records are really in.
fn replayed(rules: &Rules, numbers: &[u16]) -> Vec<Move> {
    let mut path = Path::new(rules);
    let mut moves = Moves::new(rules);
    for number in numbers {
        if !rules.crashes {
            path.state.forget_sealed();
        }
        moves.of(&path.state);
        let step = moves.found[usize::from(*number)];
        match path.go(&step) {
            Ok(()) | Err(End::Attack) => {}
            Err(_) => panic!("the same step comes to the same"),
        }
    }
    path.moves
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.refused += other.refused;
        self.waits += other.waits;
        self.doomed += other.doomed;
        self.cut_off += other.cut_off;
    }
}
