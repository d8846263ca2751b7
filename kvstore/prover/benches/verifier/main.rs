//! What an operation costs the verifier alone: `cargo bench -p zetakv-prover --bench verifier`, or `python -m bench verifier`.
//!
//! One thread, no prover, no sockets, no disk. Logs are recorded, then processed while the clock runs. Operations come in requests with a
//! MAC, half gets and half puts of values of 8 bytes, and are answered in receipts with a MAC; both are in the figures.
//!
//! - *cached*: the leaves are in the verified cache.
//! - *blum*: each leaf is added from Blum, worked on, and evicted to Blum; all leaves of a request are added before the first operation.
//! - *merkle_root*: nothing but the root is cached: the whole path is added, and evicted again.
//! - *merkle_cached*: the same below the upper nodes of the tree, which stay in the cache.
//! - *carry over*: a cut: each record in Blum goes over to the next epoch. Per record.
//!
//! Prints JSON: for each of these, samples of nanoseconds per operation, CPU and wall time, and bytes of log per operation.

mod tree;
mod world;

use std::fmt::Write as _;

use tree::NodeId;
use world::{SLOTS, Spent, World};

/// Leaves in the verified cache, with all nodes above them: neighbours, so that these are few.
const CACHED_LEAVES: usize = 16_384;
/// Leaves in Blum.
const BLUM_LEAVES: usize = 65_536;
/// Records of a path from the root to a leaf, at the most.
const PATH_MAX: usize = 256;
/// Requests of one sample; of Merkle cases, which are slower, fewer.
const REQUESTS: usize = 512;
const MERKLE_REQUESTS: usize = 16;

struct Options {
    records: usize,
    rounds: usize,
    operations: usize,
    upper: usize,
}

impl Options {
    /// From the command line; cargo adds `--bench`.
    fn parse() -> Self {
        let mut options = Self {
            records: 1_000_000,
            rounds: 15,
            operations: 64,
            upper: 32_768,
        };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let field = match name.as_str() {
                "--records" => &mut options.records,
                "--rounds" => &mut options.rounds,
                "--operations" => &mut options.operations,
                "--upper" => &mut options.upper,
                other => panic!("unknown option {other}: --records, --rounds, --operations or --upper"),
            };
            let value = arguments.next().and_then(|value| value.parse().ok());
            *field = value.unwrap_or_else(|| panic!("{name} takes a number"));
        }
        assert!((1..=512).contains(&options.operations) && options.rounds > 0);
        assert!(options.records >= options.operations);
        assert!(
            options.upper + 1 + PATH_MAX <= SLOTS as usize,
            "the upper nodes and a path must fit into the cache"
        );
        options
    }
}

/// Samples of one case.
#[derive(Default)]
struct Samples {
    cpu_ns: Vec<f64>,
    wall_ns: Vec<f64>,
    log_bytes: f64,
}

impl Samples {
    fn add(&mut self, spent: Spent, operations: usize) {
        let each = 1.0 / operations as f64;
        self.cpu_ns.push(spent.cpu.as_nanos() as f64 * each);
        self.wall_ns.push(spent.wall.as_nanos() as f64 * each);
        self.log_bytes = spent.log_bytes as f64 * each;
    }

    /// `round` records some requests of operations, and says how many operations there are. The first sample warms up.
    fn collect(world: &mut World, rounds: usize, mut round: impl FnMut(&mut World) -> usize) -> Self {
        let mut samples = Self::default();
        for number in 0..=rounds {
            let operations = round(world);
            let spent = world.process();
            if number > 0 {
                samples.add(spent, operations);
            }
        }
        samples
    }
}

fn cached(world: &mut World, options: &Options) -> Samples {
    let leaves = world.tree.leaves[..CACHED_LEAVES.min(options.records)].to_vec();
    let (mut log, mut added, mut next) = (Vec::new(), Vec::new(), 1);
    for &leaf in &leaves {
        for id in world.tree.uncached_path(leaf) {
            world.tree.add_merkle(id, next, &mut log);
            added.push(id);
            next += 1;
        }
    }
    world.record(log);
    world.process();
    let samples = Samples::collect(world, options.rounds, |world| {
        for _ in 0..REQUESTS {
            let chosen: Vec<NodeId> = (0..options.operations)
                .map(|_| leaves[world.rng.usize(..leaves.len())])
                .collect();
            let mut log = Vec::new();
            let writes = world.mixed_request(&chosen, &mut log);
            for (leaf, write) in chosen.into_iter().zip(writes) {
                world.run(leaf, write, &mut log);
            }
            world.record(log);
        }
        REQUESTS * options.operations
    });
    evict(world, &added);
    samples
}

fn blum(world: &mut World, options: &Options) -> Samples {
    let leaves = world.tree.leaves[..BLUM_LEAVES.min(options.records)].to_vec();
    world.bring_to_blum(&leaves);
    Samples::collect(world, options.rounds, |world| {
        for _ in 0..REQUESTS {
            // neighbours from a random one on, so that all are distinct
            let first = world.rng.usize(..world.in_blum());
            let places: Vec<usize> = (first..first + options.operations)
                .map(|place| place % world.in_blum())
                .collect();
            let chosen: Vec<NodeId> = places.iter().map(|place| world.leaf_in_blum(*place)).collect();
            let mut log = Vec::new();
            let writes = world.mixed_request(&chosen, &mut log);
            for (slot, &place) in (1..).zip(&places) {
                world.add_blum(place, slot, &mut log);
            }
            for (&leaf, &write) in chosen.iter().zip(&writes) {
                world.run(leaf, write, &mut log);
            }
            for &place in &places {
                world.evict_blum(place, &mut log);
            }
            world.record(log);
        }
        REQUESTS * options.operations
    })
}

/// `upper`: nodes from the top that stay in the cache.
fn merkle(world: &mut World, options: &Options, upper: usize) -> Samples {
    let (upper, mut log) = (world.tree.upper(upper), Vec::new());
    for (slot, &id) in (1..).zip(&upper) {
        world.tree.add_merkle(id, slot, &mut log);
    }
    world.record(log);
    world.process();
    let free = upper.len() as u32 + 1;
    let samples = Samples::collect(world, options.rounds, |world| {
        for _ in 0..MERKLE_REQUESTS {
            let chosen: Vec<NodeId> = (0..options.operations)
                .map(|_| world.tree.leaves[world.rng.usize(..world.tree.leaves.len())])
                .collect();
            let mut log = Vec::new();
            let writes = world.mixed_request(&chosen, &mut log);
            for (leaf, write) in chosen.into_iter().zip(writes) {
                let path = world.tree.uncached_path(leaf);
                for (slot, &id) in (free..).zip(&path) {
                    world.tree.add_merkle(id, slot, &mut log);
                }
                world.run(leaf, write, &mut log);
                for &id in path.iter().rev() {
                    world.tree.evict_merkle(id, &mut log);
                }
            }
            world.record(log);
        }
        MERKLE_REQUESTS * options.operations
    });
    evict(world, &upper);
    samples
}

/// Evict records that were added in this order.
fn evict(world: &mut World, added: &[NodeId]) {
    let mut log = Vec::new();
    for &id in added.iter().rev() {
        world.tree.evict_merkle(id, &mut log);
    }
    world.record(log);
    world.process();
}

fn carry_over(world: &mut World, options: &Options) -> Samples {
    let mut samples = Samples::default();
    for number in 0..=options.rounds {
        let spent = world.cut();
        if number > 0 {
            samples.add(spent, world.in_blum());
        }
    }
    samples
}

fn main() {
    let options = Options::parse();
    let mut world = World::new(options.operations);
    world.load(options.records);
    // Merkle before Blum: what is in Blum is not found along the tree
    let all = [
        ("cached", cached(&mut world, &options)),
        ("merkle_cached", merkle(&mut world, &options, options.upper)),
        ("merkle_root", merkle(&mut world, &options, 0)),
        ("blum", blum(&mut world, &options)),
        ("carry_over", carry_over(&mut world, &options)),
    ];
    let mut json = String::new();
    for (name, samples) in &all {
        let separator = if json.is_empty() { "[" } else { ",\n " };
        let Samples {
            cpu_ns,
            wall_ns,
            log_bytes,
        } = samples;
        write!(
            json,
            r#"{separator}{{"name": "{name}", "log_bytes": {log_bytes}, "cpu_ns": {cpu_ns:?}, "wall_ns": {wall_ns:?}}}"#
        )
        .expect("a String takes all");
    }
    println!("{json}]");
}
