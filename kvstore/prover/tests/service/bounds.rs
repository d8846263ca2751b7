//! What clients send cannot fill the memory of a worker, nor have others wait for the next epoch.

use crate::client::Action;
use crate::world::{Limits, Shape, World};
use zetakv_verifier::value::Node;

const SHAPE: Shape = Shape {
    threads: 1,
    slots: 1024,
    hot_records_max: 1000,
    keys: 400,
};

/// Clients send only what a test lets them.
const IDLE: Shape = Shape { keys: 0, ..SHAPE };

const MIB: usize = 1 << 20;

/// Kind of the monitor's answer "not yet".
const NOT_YET: usize = 3;

#[test]
fn many_small_requests_for_one_long_value_are_not_answered_all_at_once() {
    let mut world = World::new(500, SHAPE);
    world.request(vec![(b"long".to_vec(), Action::Put(vec![1; MIB]))]);
    for _ in 0..200 {
        world.request(vec![(b"long".to_vec(), Action::Get)]);
    }
    world.quiesce();
    assert_eq!(world.receipts, 201);
    assert!(
        world.answered_at_once_max < 66 * MIB,
        "{} bytes were answered at once",
        world.answered_at_once_max
    );
}

/// A world with this many hot records of this size, in a few epochs; how many single rows were read for gets of them afterwards.
fn rows_read_for_hot_values(value_bytes: usize, kept_value_bytes_max: usize) -> usize {
    let limits = Limits {
        hot_bytes_max: usize::MAX,
        kept_value_bytes_max,
        warm_bytes_max: 0,
        read_bytes_max: MIB,
    };
    let mut world = World::with_limits(502, IDLE, limits);
    let keys: Vec<_> = (0..50).map(|number| format!("key {number}").into_bytes()).collect();
    let put = |key: &Vec<u8>| (key.clone(), Action::Put(vec![1; value_bytes]));
    for _ in 0..2 {
        world.request(keys.iter().map(put).collect()); // what is used twice becomes hot
    }
    world.quiesce();
    for _ in 0..2 {
        world.cut(false);
        world.certify(false);
    }
    let before = world.rows_read;
    world.request(keys.iter().map(|key| (key.clone(), Action::Get)).collect());
    world.quiesce();
    world.rows_read - before
}

#[test]
fn hot_values_are_kept_up_to_their_limit_and_longer_ones_read_again() {
    assert_eq!(rows_read_for_hot_values(100, 100), 0);
    assert_eq!(rows_read_for_hot_values(101, 100), 50);
}

fn put(number: usize) -> (Vec<u8>, Action) {
    (format!("key {number}").into_bytes(), Action::Put(vec![1; 100]))
}

/// Let all requests be answered, and change the epoch.
fn end_epoch(world: &mut World) {
    world.quiesce();
    world.cut(false);
    world.certify(false);
}

/// How many records, partition nodes included, are hot after 50 with values of 100 bytes were used.
fn hot_records(hot_bytes_max: usize) -> usize {
    let limits = Limits {
        hot_bytes_max,
        ..Limits::NONE
    };
    let mut world = World::with_limits(504, IDLE, limits);
    for _ in 0..3 {
        for _ in 0..2 {
            world.request((0..50).map(put).collect());
        }
        end_epoch(&mut world);
    }
    world.hot_records()
}

#[test]
fn as_much_is_hot_as_its_bytes_allow() {
    let partitions = 64;
    assert_eq!(hot_records(0), partitions);
    assert!(hot_records(usize::MAX) >= partitions + 50);
    // what 64 nodes take, and 20 records of 256 bytes with a value of 100
    let some = 64 * (256 + size_of::<Node>()) + 20 * 356;
    assert_eq!(hot_records(some), partitions + 20);
}

/// How many records, partition nodes included, are hot after 50 were used twice, the second time so many epochs later.
fn hot_after(epochs: usize) -> usize {
    let mut world = World::with_limits(505, IDLE, Limits::NONE);
    world.request((0..50).map(put).collect());
    for _ in 0..epochs {
        end_epoch(&mut world);
    }
    world.request((0..50).map(put).collect());
    end_epoch(&mut world);
    world.hot_records()
}

#[test]
fn what_is_needed_again_soon_becomes_hot() {
    let partitions = 64;
    assert_eq!(hot_after(16), partitions + 50);
    assert_eq!(hot_after(17), partitions);
}

#[test]
fn what_is_hardly_needed_again_leaves_the_cache_at_once() {
    let partitions = 64;
    let mut world = World::with_limits(507, IDLE, Limits::NONE);
    let absent = |number| (put(number).0, Action::Get);
    for operations in [(0..500).map(put).collect(), (500..1000).map(absent).collect()] {
        world.request(operations);
        world.quiesce();
        let cached = world.cached_records();
        assert!(cached <= partitions, "{cached} cached");
    }
    world.request((0..50).map(put).collect());
    world.quiesce();
    assert!(world.cached_records() > 50, "what was used twice stays");
}

/// How many of 50 hot records, and the partition nodes, are hot after so many epochs in which nobody needed them.
fn hot_when_idle(epochs: usize) -> usize {
    let mut world = World::with_limits(506, IDLE, Limits::NONE);
    for _ in 0..2 {
        world.request((0..50).map(put).collect());
    }
    for _ in 0..=epochs {
        end_epoch(&mut world);
    }
    world.hot_records()
}

#[test]
fn what_is_not_needed_for_long_leaves_blum() {
    let partitions = 64;
    assert_eq!(hot_when_idle(63), partitions + 50);
    assert_eq!(hot_when_idle(65), partitions);
}

/// A world whose 8,000 records are hot: several logs carry them over.
fn world_with_many_hot_records(seed: u64) -> World {
    let shape = Shape {
        slots: 1000,
        hot_records_max: 10_000,
        ..IDLE
    };
    let mut world = World::with_limits(seed, shape, Limits::NONE);
    for number in (0..8000).step_by(200) {
        world.request((number..number + 200).map(put).collect());
        world.request((number..number + 200).map(put).collect());
        world.quiesce();
    }
    end_epoch(&mut world);
    assert!(world.hot_records() > 8000);
    world
}

#[test]
fn operations_run_while_an_epoch_closes() {
    let mut world = world_with_many_hot_records(507);
    world.start_cut(false);
    for number in (0..8000).cycle().step_by(77) {
        if world.has_handed_over() {
            break;
        }
        world.request(vec![put(number)]);
        world.run(1);
    }
    assert!(world.receipts_while_closing > 0);
    world.quiesce();
    world.certify(false);
}

#[test]
fn a_flood_of_resumes_keeps_no_request_waiting() {
    let mut world = World::with_limits(509, IDLE, Limits::NONE);
    for _ in 0..1000 {
        world.forged_resume();
    }
    world.request((0..50).map(put).collect());
    for turn in 0.. {
        assert!(turn < 100, "the request waits for resumes that were there before");
        world.run(1);
        if world.receipts == 1 {
            break;
        }
    }
    world.quiesce();
    assert_eq!(world.rejections, 1000);
}

/// Operations of at least a whole log are always waiting: each batch fills one, and what is asked about comes on top.
#[test]
fn an_epoch_ends_however_many_operations_wait() {
    const REQUESTS: u64 = 16;
    let mut world = world_with_many_hot_records(508);
    let mut waiting = (0..8000).step_by(512).cycle();
    let mut sent = world.receipts;
    for turn in 0.. {
        if turn == 40 {
            world.start_cut(false);
        }
        if turn > 40 && world.has_handed_over() {
            break;
        }
        assert!(turn < 400, "the epoch does not end");
        while sent < world.receipts + REQUESTS {
            let first = waiting.next().expect("a cycle");
            world.request((first..first + 512).map(|number| put(number % 8000)).collect());
            sent += 1;
        }
        world.run(1);
    }
    world.quiesce();
    world.certify(false);
}

#[test]
fn a_batch_ends_when_it_has_read_what_it_may() {
    let read_at_once_max = |read_bytes_max| {
        let limits = Limits {
            hot_bytes_max: usize::MAX,
            kept_value_bytes_max: 0,
            warm_bytes_max: 0,
            read_bytes_max,
        };
        let mut world = World::with_limits(503, IDLE, limits);
        let keys: Vec<_> = (0..400).map(|number| format!("key {number}").into_bytes()).collect();
        let put = |key: &Vec<u8>| (key.clone(), Action::Put(vec![1; 10_000]));
        world.request(keys.iter().map(put).collect());
        world.quiesce();
        for _ in 0..8 {
            // so that all rows are applied by one of them
            world.cut(true);
            world.certify(false);
        }
        world.read_at_once_max = 0;
        for _ in 0..4 {
            // a batch is a quarter of what is not answered: all keys once
            world.request(keys.iter().map(|key| (key.clone(), Action::Get)).collect());
        }
        world.quiesce();
        assert_eq!(world.receipts, 5);
        world.read_at_once_max
    };
    let all = read_at_once_max(256 * MIB);
    assert!(all > 4_000_000, "{all} bytes were read at once");
    let some = read_at_once_max(500_000);
    // what was asked for last is answered: fewer than 20 subtrees, of some 7 records each; and one record after it, alone
    assert!(some < 500_000 + 20 * 12 * 10_100, "{some} bytes were read at once");
}

#[test]
fn requests_of_many_bytes_do_not_overflow_the_queue_of_the_monitor() {
    let mut world = World::new(501, SHAPE);
    let (expected, new) = (vec![1; 40], vec![2; 40]);
    let operations: Vec<_> = (0..512)
        .map(|number| {
            let action = Action::CompareAndSet(Some(expected.clone()), Some(new.clone()));
            (format!("key {number}").into_bytes(), action)
        })
        .collect();
    for _ in 0..200 {
        world.request(operations.clone());
    }
    world.quiesce();
    assert_eq!(world.receipts, 200);
    assert_eq!(
        world.outputs[NOT_YET], 0,
        "requests were held until the next epoch, which had to wait for nothing"
    );
}
