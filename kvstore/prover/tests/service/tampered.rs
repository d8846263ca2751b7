//! A store that somebody changed: the prover, or the monitor, says so. Nothing panics, and a prover never goes on for ever.

use crate::client::Action;
use crate::world::{Limits, Shape, Stop, World};
use zetakv_prover::{Error, rows};
use zetakv_verifier::violation::ViolationCode;

#[test]
fn changed_rows_are_found() {
    let (mut by_prover, mut by_monitor) = (0, 0);
    for seed in 0..60 {
        let shape = Shape {
            threads: 1 << (seed % 3),
            slots: 80,
            hot_records_max: 150,
            keys: 300,
        };
        let mut world = World::new(seed, shape);
        for _ in 0..3 {
            world.run(60);
            world.cut(seed % 4 == 0);
            world.quiesce();
            world.certify(false);
        }
        world.tamper(1 + seed as usize / 8);
        match world
            .try_restart(shape)
            .and_then(|mut world| world.run_until_stopped(100))
        {
            Ok(()) => {}
            Err(Stop::Prover(error)) => {
                assert!(matches!(error, Error::Store { .. }), "{error:?}");
                by_prover += 1;
            }
            Err(Stop::Violation(violation)) => {
                // what was stored is not what was proved: the prover itself made no mistake
                let code = violation.code;
                assert!(
                    matches!(code, ViolationCode::HashMismatch | ViolationCode::EpochMismatch),
                    "{code:?}"
                );
                by_monitor += 1;
            }
        }
    }
    assert!(
        by_prover > 5 && by_monitor > 5,
        "found {by_prover} by the prover, {by_monitor} by the monitor"
    );
}

/// The spine is written anew then: a node of it would be in memory twice, and asked for again and again.
#[test]
fn hot_markers_without_a_sealed_state_are_refused() {
    let shape = Shape {
        threads: 1,
        slots: 200,
        hot_records_max: 1_000,
        keys: 0,
    };
    let mut world = World::new(701, shape);
    let partition_18 = b"hH\x06";
    world.change_row(partition_18, |_| {});
    match world.try_restart(shape).map(|_| ()) {
        Err(Stop::Prover(Error::Store { key, .. })) => assert_eq!(key, partition_18),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_that_was_changed_by_hand_is_suspected_by_name() {
    let shape = Shape {
        threads: 1,
        slots: 200,
        hot_records_max: 1_000,
        keys: 0,
    };
    let key = |number: usize| format!("key {number}").into_bytes();
    for (all_to_merkle, expected) in [
        (true, ViolationCode::HashMismatch),
        (false, ViolationCode::EpochMismatch),
    ] {
        let mut world = World::with_limits(700, shape, Limits::NONE);
        for _ in 0..2 {
            // what is used twice becomes hot
            world.request((0..400).map(|number| (key(number), Action::Put(vec![7; 40]))).collect());
        }
        world.quiesce();
        world.cut(all_to_merkle);
        world.certify(false);
        world.change_row(&rows::store_key_of(&key(7)), |row| {
            *row.last_mut().expect("a byte") ^= 1
        });
        let mut world = world.try_restart(shape).expect("markers are as they were");
        world.request(vec![(key(7), Action::Get)]);
        match world.run_until_stopped(20) {
            Err(Stop::Violation(violation)) => assert_eq!(violation.code, expected),
            other => panic!("{other:?}"),
        }
        let suspects = world.suspects();
        assert_eq!(suspects.len(), 1, "{suspects:?}");
        assert_eq!(suspects[0].store_key, rows::store_key_of(&key(7)));
        assert_eq!(suspects[0].application_key, Some(key(7)));
    }
}
