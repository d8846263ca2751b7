//! Honest provers are never accused, and clients always get what a plain map would give them: random work, with caches and hot sets so
//! small that every way through the prover is taken.

use crate::world::{Limits, Shape, World};
use zetakv_prover::rows::{HOT_PREFIX, NODE_PREFIX, RECORD_PREFIX};

const TINY: Shape = Shape {
    threads: 1,
    slots: 80,
    hot_records_max: 150,
    keys: 400,
};

fn epochs(world: &mut World, count: usize, rounds: usize) {
    for _ in 0..count {
        let before = world.rng.usize(0..rounds);
        world.run(before);
        world.cut(false);
        let while_not_durable = world.rng.usize(0..rounds / 4);
        world.run(while_not_durable);
        world.certify(false);
    }
}

fn clean_stop(world: &mut World) {
    world.cut(true);
    world.quiesce();
    world.certify(false);
    world.check_durable_records();
    assert_eq!(world.rows_of(HOT_PREFIX).len(), 64, "only partition nodes stay in Blum");
}

#[test]
fn one_thread() {
    for seed in 0..8 {
        let mut world = World::new(seed, TINY);
        epochs(&mut world, 20, 60);
        world.check_durable_records();
        clean_stop(&mut world);
        assert!(world.receipts > 500 && world.rejections > 20 && world.resumes > 5);
        let used = |kind: usize| world.entries[kind] > 0;
        assert!(
            (1..13).all(used) && used(16),
            "all entries but those of a replay are used: {:?}",
            world.entries
        );
    }
}

#[test]
fn several_threads() {
    let mut outputs = [0; 10];
    for (seed, threads) in [(100, 2), (101, 4), (102, 64)] {
        let shape = Shape {
            threads,
            keys: 2000,
            ..TINY
        };
        let mut world = World::new(seed, shape);
        epochs(&mut world, 10, 100 * usize::from(threads));
        world.check_durable_records();
        clean_stop(&mut world);
        outputs = core::array::from_fn(|kind| outputs[kind] + world.outputs[kind]);
    }
    assert!(
        outputs[1..8].iter().all(|count| *count > 0),
        "all answers occur: {outputs:?}"
    );
}

#[test]
fn restarts_with_other_numbers_of_threads() {
    let mut world = World::new(200, TINY);
    for threads in [2, 4, 1, 1, 8, 2] {
        epochs(&mut world, 3, 120);
        if world.rng.bool() {
            clean_stop(&mut world);
        }
        let lost = world.rng.usize(0..100); // not durable: nobody may see it again
        world.run(lost);
        let shape = Shape { threads, ..world.shape };
        world = world.restart(shape);
    }
    epochs(&mut world, 3, 120);
    world.check_durable_records();
}

#[test]
fn nodes_are_stored_when_many_records_are_below() {
    let shape = Shape { keys: 6000, ..TINY };
    let mut world = World::new(250, shape);
    for _ in 0..4 {
        epochs(&mut world, 3, 120);
        let lost = world.rng.usize(0..100);
        world.run(lost);
        world = world.restart(shape);
    }
    clean_stop(&mut world);
    let expected = nodes_with_many_below(&world.rows_of(RECORD_PREFIX), 0);
    assert!(expected > 10, "{expected} nodes");
    // the spine but for the root, and the partition nodes, always have rows
    assert_eq!(world.rows_of(NODE_PREFIX).len(), 126 + expected);
}

/// Below the partition nodes, how many nodes have more than 16 of these paths below, which are sorted and share all bits before `bit`.
fn nodes_with_many_below(paths: &[&[u8]], bit: usize) -> usize {
    if paths.len() <= 16 {
        return 0;
    }
    let (left, right) = paths.split_at(paths.partition_point(|path| path[bit / 8] & 0x80 >> (bit % 8) == 0));
    let is_node_below_partition = bit > 6 && !left.is_empty() && !right.is_empty();
    usize::from(is_node_below_partition) + nodes_with_many_below(left, bit + 1) + nodes_with_many_below(right, bit + 1)
}

#[test]
fn a_roomy_cache_keeps_everything() {
    let shape = Shape {
        slots: 4096,
        hot_records_max: 100_000,
        ..TINY
    };
    let mut world = World::new(300, shape);
    epochs(&mut world, 30, 60);
    world.check_durable_records();
    world = world.restart(shape);
    epochs(&mut world, 20, 60);
    clean_stop(&mut world);
}

#[test]
fn a_cut_that_comes_before_the_certificate_is_postponed() {
    let roomy = Limits {
        hot_bytes_max: usize::MAX,
        kept_value_bytes_max: 1024,
        warm_bytes_max: 4 << 20,
        read_bytes_max: 256 << 20,
    };
    let mut world = World::with_limits(400, TINY, roomy);
    for _ in 0..5 {
        world.run(50);
        world.cut(false);
        world.certify(true);
        world.start_cut(false);
        world.run(40);
        assert!(!world.has_handed_over(), "the epoch before is not certified");
        world.certify_late();
        world.finish_cut();
        world.certify(false);
    }
    assert!(world.outputs[8] > 0, "the monitor has said that it is too early");
}
