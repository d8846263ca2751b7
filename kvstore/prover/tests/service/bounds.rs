//! What clients send cannot fill the memory of a worker, nor have others wait for the next epoch.

use crate::client::Action;
use crate::world::{Shape, World};

const SHAPE: Shape = Shape {
    threads: 1,
    slots: 1024,
    hot_records_max: 1000,
    keys: 400,
};

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
