//! Crashes with a write-ahead log: whatever was answered is there after the restart, once, with the results that were told.

use crate::world::{Shape, World};

const TINY: Shape = Shape {
    threads: 1,
    slots: 80,
    hot_records_max: 150,
    keys: 300,
};

/// Work, and crash in any phase of an epoch: before, in or after a cut, with its checkpoint durable or not.
fn work_and_crash(mut world: World) -> World {
    for _ in 0..world.rng.usize(0..3) {
        let rounds = world.rng.usize(0..60);
        world.run(rounds);
        world.cut(false);
        let rounds = world.rng.usize(0..30);
        world.run(rounds);
        world.certify(false);
    }
    let rounds = world.rng.usize(0..60);
    world.run(rounds);
    match world.rng.u8(0..3) {
        0 => {}
        1 => world.start_cut(false),
        _ => world.cut(false), // nothing of it is durable
    }
    let rounds = world.rng.usize(0..30);
    world.run(rounds);
    let under_way = world.rng.usize(0..20);
    world.crash(under_way)
}

#[test]
fn what_was_answered_survives_every_crash_and_what_was_not_kept_never_comes_back() {
    for (seed, threads) in [(604, 1), (601, 1), (602, 2), (603, 4)] {
        let mut world = World::with_log(seed, Shape { threads, ..TINY });
        for _ in 0..8 {
            world = work_and_crash(world);
        }
        let counts = world.counts();
        assert!(
            counts.replayed > 100 && counts.records_torn > 5 && counts.crashes_in_replay > 0,
            "{counts:?}"
        );
        world.run(100);
        world.cut(true);
        world.quiesce();
        world.certify(false);
        world.check_durable_records();
    }
}

#[test]
fn another_number_of_threads_after_a_checkpoint() {
    let mut world = World::with_log(700, TINY);
    for threads in [2, 4, 1, 2] {
        world = work_and_crash(world);
        world = world.restart_with_threads(threads);
    }
    world = work_and_crash(world);
    world.cut(false);
    world.quiesce();
    world.certify(false);
    world.check_durable_records();
}
