//! Honest logs of an epoch that closes while operations go on, in the next one.

use std::vec::Vec;

use super::symbolic::SymbolicCrypto;
use super::world::{
    Answer, EMPTY_NODE, FOUND_NULL, Log, NULL, SESSION, World, found, get, increment, leaf, node_of, put, ts,
};
use crate::aggregate::HeldEpoch;
use crate::crypto::Crypto;
use crate::machine::OperationResult;
use crate::standard_crypto::StandardCrypto;
use crate::thread::Progress;
use crate::violation::Violation;

type Held = HeldEpoch<<SymbolicCrypto as Crypto>::Sum>;

#[track_caller]
fn assert_holds<S>(submitted: Result<Option<HeldEpoch<S>>, Violation>) -> HeldEpoch<S> {
    let held = submitted.unwrap_or_else(|violation| panic!("{violation:?}"));
    held.expect("all threads are in")
}

/// What carries over the leaves of [`World::two_in_blum`] with "a" and "b", each.
fn carry_over_two() -> [Log; 2] {
    [
        Log::new().carry_over("000", leaf("a"), ts(1, 5), 0),
        Log::new().carry_over("100", leaf("b"), ts(1, 6), 0),
    ]
}

fn operations_run_with<C: Crypto>(crypto: impl Fn() -> C) {
    let mut world = World::new(1, crypto);
    world.two_in_blum("a", "b");
    let [first, second] = carry_over_two();
    world.accepted(0, Log::new().next_epoch());
    world.admit(
        0,
        2,
        &[get("000"), put("000", "c"), get("100"), put("100", "d"), get("010")],
    );
    // one that is not carried over yet
    let not_yet = Log::new().add_blum(1, "000", leaf("a"), ts(2, 0), 0);
    assert_eq!(
        world.accepted(0, not_yet.run(&[1]).run(&[1]).evict_blum(1, ts(2, 5))),
        []
    );
    world.accepted(0, second);
    // one that is
    let already = Log::new().add_blum(2, "100", leaf("b"), ts(2, 0), 0);
    assert_eq!(world.accepted(0, already.run(&[2]).run(&[2])), []);
    world.accepted(0, first);
    // the epoch is handed over in the middle of the request, with the record in the cache
    assert_holds(world.hand_over(0));
    let results = world.results(0, Log::new().run_absent(0));
    let expected = [
        found("a"),
        OperationResult::Ok,
        found("b"),
        OperationResult::Ok,
        FOUND_NULL,
    ];
    assert_eq!(results, expected);

    world.admit(0, 3, &[get("000"), get("100")]);
    let log = Log::new()
        .add_blum(1, "000", leaf("c"), ts(2, 5), 0)
        .run(&[1])
        .run(&[2])
        .evict_blum(1, ts(2, 8))
        .evict_blum(2, ts(2, 9));
    world.admit(0, 4, &[increment("000", 1)]);
    assert_eq!(world.results(0, log), [found("c"), found("d")]);
    let carried = Log::new()
        .carry_over("100", leaf("d"), ts(2, 9), 0)
        .carry_over("000", leaf("c"), ts(2, 8), 0);
    let held = assert_holds(world.close(0, carried));
    assert_eq!((held.epoch, &held.sessions[&SESSION]), (2, &std::vec![3]));
}

#[test]
fn operations_run_while_an_epoch_closes() {
    let symbolic = SymbolicCrypto::default();
    operations_run_with(|| symbolic.clone());
    operations_run_with(|| StandardCrypto::new([9; 32]));
}

/// All orders of these numbers.
fn orders(numbers: &[usize]) -> Vec<Vec<usize>> {
    if numbers.is_empty() {
        return std::vec![Vec::new()];
    }
    let starting_with = |first: usize| {
        let others: Vec<_> = numbers.iter().copied().filter(|other| *other != first).collect();
        orders(&others)
            .into_iter()
            .map(move |order| [&[first], &order[..]].concat())
    };
    numbers.iter().copied().flat_map(starting_with).collect()
}

#[test]
fn records_are_carried_over_in_any_order_before_they_are_added_and_after() {
    let node = node_of("0", &[("000", None), ("010", None)]);
    // a node, what is below it, and what is not
    let records = [
        ("0", node, ts(1, 7)),
        ("000", NULL, ts(1, 5)),
        ("010", NULL, ts(1, 6)),
        ("100", NULL, ts(1, 8)),
    ];
    let evicted = Log::new()
        .add_merkle(1, 0, "0", EMPTY_NODE)
        .add_merkle(2, 1, "000", NULL)
        .add_merkle(3, 1, "010", NULL)
        .add_merkle(4, 0, "100", NULL)
        .evict_blum_merkle(2, 1, ts(1, 5))
        .evict_blum_merkle(3, 1, ts(1, 6))
        .evict_blum_merkle(1, 0, ts(1, 7))
        .evict_blum_merkle(4, 0, ts(1, 8));
    let carry_over = |log: Log, record: usize| {
        let (path, value, moment) = records[record];
        log.carry_over(path, value, moment, 0)
    };
    for order in orders(&[0, 1, 2, 3]) {
        // each record is used after so many have been carried over: before it is, or when it has been
        for used_after in 0..=order.len() {
            let mut world = World::symbolic(1);
            world.accepted(0, Log([evicted.0.clone(), Log::new().next_epoch().0].concat()));
            world.accepted(0, order[..used_after].iter().copied().fold(Log::new(), carry_over));
            for (slot, (path, value, _)) in (1..).zip(records) {
                world.accepted(0, Log::new().add_blum(slot, path, value, ts(2, 0), 0));
            }
            world.admit(0, 1, &[put("000", "new")]);
            assert_eq!(world.results(0, Log::new().run(&[2])), [OperationResult::Ok]);
            world.accepted(0, order[used_after..].iter().copied().fold(Log::new(), carry_over));
            assert_holds(world.hand_over(0));

            let mut carried = Log::new();
            for (slot, (path, value, _)) in (1..).zip(records) {
                let moment = ts(2, 10 + slot);
                world.accepted(0, Log::new().evict_blum(slot, moment));
                let value = if path == "000" { leaf("new") } else { value };
                carried = carried.carry_over(path, value, moment, 0);
            }
            assert_eq!(assert_holds(world.close(0, carried)).epoch, 2);
        }
    }
}

#[test]
fn what_is_sealed_is_as_it_was_when_the_epoch_began_to_close() {
    let mut world = World::symbolic(1);
    let hash = |value| Some(world.crypto.hash(&leaf(value)));
    let (hash_of_a, hash_of_c) = (hash("a"), hash("c"));
    let hash_of_000 = |held: &Held| held.root.sides[0].expect("the leaf").hash;
    world.admit(0, 1, &[put("000", "a"), put("100", "b")]);
    world.admit(0, 2, &[put("100", "late")]); // admitted before the cut, and run after it
    let log = Log::new()
        .add_merkle(1, 0, "000", NULL)
        .add_merkle(2, 0, "100", NULL)
        .run(&[1])
        .run(&[2])
        .evict_merkle(1, 0)
        .evict_blum_merkle(2, 0, ts(1, 6))
        .next_epoch();
    world.accepted(0, log);
    let late = Log::new().add_blum(2, "100", leaf("b"), ts(2, 0), 0).run(&[2]);
    assert_eq!(world.results(0, late), [OperationResult::Ok]);
    world.admit(0, 3, &[put("000", "c")]);
    let change_root = Log::new()
        .add_merkle(1, 0, "000", leaf("a"))
        .run(&[1])
        .evict_merkle(1, 0);
    world.accepted(0, change_root.evict_blum(2, ts(2, 9)));
    assert_eq!(world.accepted(0, Log::new().next_epoch()), [Answer::EpochNotYet]); // that was no cut
    world.accepted(0, Log::new().carry_over("100", leaf("b"), ts(1, 6), 0));
    let first = assert_holds(world.hand_over(0));
    assert_eq!(
        (hash_of_000(&first), &first.sessions[&SESSION]),
        (hash_of_a, &std::vec![1])
    );
    let second = assert_holds(world.close(0, Log::new().carry_over("100", leaf("late"), ts(2, 9), 0)));
    assert_eq!(
        (hash_of_000(&second), &second.sessions[&SESSION]),
        (hash_of_c, &std::vec![3])
    );

    // what runs again after a crash has the values of the cut, and of no moment after it
    for (value, moment, holds) in [("b", ts(2, 0), true), ("late", ts(2, 9), false)] {
        let crypto = world.crypto.clone();
        let mut restarted = World::restarted(1, || crypto.clone(), 1, first.root, &first.carried);
        restarted.admit(0, 1, &[get("000"), get("100")]);
        let log = Log::new()
            .add_merkle(1, 0, "000", leaf("a"))
            .add_blum(2, "100", leaf(value), moment, 0)
            .run(&[1])
            .run(&[2]);
        assert_eq!(restarted.results(0, log), [found("a"), found(value)]);
        restarted.accepted(0, Log::new().evict_merkle(1, 0).evict_blum(2, ts(2, 20)));
        let submitted = restarted.close(0, Log::new().carry_over("100", leaf(value), ts(2, 20), 0));
        assert_eq!(submitted.is_ok(), holds, "{value}");
    }
}

#[test]
fn one_thread_is_an_epoch_ahead_of_another() {
    let mut world = World::symbolic(2);
    world.two_in_blum("a", "b");
    let [first, _] = carry_over_two();
    world.accepted(0, Log::new().next_epoch());
    // the one behind still takes what the other evicted before
    world.admit(1, 1, &[get("100"), put("100", "of epoch 1")]);
    let behind = Log::new()
        .add_blum(1, "100", leaf("b"), ts(1, 6), 0)
        .run(&[1])
        .run(&[1]);
    assert_eq!(world.results(1, behind), [found("b"), OperationResult::Ok]);
    world.admit(0, 2, &[put("000", "of epoch 2")]);
    let ahead = Log::new().add_blum(1, "000", leaf("a"), ts(2, 0), 0).run(&[1]);
    assert_eq!(world.results(0, ahead), [OperationResult::Ok]);
    world.accepted(0, first.evict_blum(1, ts(2, 3)).tick());
    assert!(matches!(world.hand_over(0), Ok(None)));
    // the one ahead waits for what the other will carry over, until that one comes after it
    let early = Log::new().add_blum(1, "100", leaf("of epoch 1"), ts(2, 0), 1);
    world.accepted(1, Log::new().evict_blum(1, ts(1, 9)).tick());
    assert_eq!(world.process(0, &early).0, Progress::Waiting { consumed: 0 });
    world.accepted(1, Log::new().next_epoch());
    world.admit(0, 3, &[get("100")]);
    assert_eq!(world.results(0, early.run(&[1])), [found("of epoch 1")]);
    world.admit(1, 2, &[get("000")]);
    let taken = Log::new().add_blum(1, "000", leaf("of epoch 2"), ts(2, 3), 0);
    assert_eq!(world.results(1, taken.run(&[1])), [found("of epoch 2")]);
    world.accepted(1, Log::new().carry_over("100", leaf("of epoch 1"), ts(1, 9), 1));
    let held = assert_holds(world.hand_over(1));
    assert_eq!(held.sessions[&SESSION], [1, 1], "none of epoch 2");

    for (thread, path, value) in [(0, "100", "of epoch 1"), (1, "000", "of epoch 2")] {
        world.accepted(thread, Log::new().evict_blum(1, ts(2, 20)));
        let submitted = world.close(thread, Log::new().carry_over(path, leaf(value), ts(2, 20), thread));
        assert_eq!(submitted.expect("holds").is_some(), thread == 1);
    }
}

#[test]
fn what_was_carried_over_and_not_touched_is_carried_over_by_any_thread() {
    let mut world = World::symbolic(2);
    world.two_in_blum("a", "b");
    let carried = carry_over_two().map(|log| log.0).concat();
    assert!(matches!(world.close(0, Log(carried)), Ok(None)));
    assert_holds(world.close(1, Log::new()));
    // thread 1 is an epoch ahead, and takes with it what thread 0 has carried over before
    world.accepted(1, Log::new().next_epoch());
    world.admit(1, 1, &[get("000"), put("000", "c")]);
    let log = Log::new()
        .add_blum(1, "000", leaf("a"), ts(3, 0), 1)
        .run(&[1])
        .run(&[1]);
    assert_eq!(world.results(1, log), [found("a"), OperationResult::Ok]);
    world.accepted(
        1,
        Log::new()
            .carry_over("000", leaf("a"), ts(2, 0), 0)
            .evict_blum(1, ts(3, 5))
            .tick(),
    );
    assert!(matches!(world.hand_over(1), Ok(None)));
    assert_holds(world.close(0, Log::new().carry_over("100", leaf("b"), ts(2, 0), 0)));
    world.admit(0, 2, &[get("000")]);
    let log = Log::new().add_blum(1, "000", leaf("c"), ts(3, 5), 1).run(&[1]);
    assert_eq!(world.results(0, log), [found("c")]);
    world.accepted(0, Log::new().evict_blum(1, ts(3, 9)));
    assert!(matches!(
        world.close(0, Log::new().carry_over("000", leaf("c"), ts(3, 9), 0)),
        Ok(None)
    ));
    assert_holds(world.close(1, Log::new().carry_over("100", leaf("b"), ts(3, 0), 0)));
}

#[test]
fn a_resume_is_answered_while_an_epoch_closes() {
    let mut world = World::symbolic(1);
    world.admit(0, 1, &[get("000")]);
    world.accepted(0, Log::new().next_epoch());
    let resume = world.make_resume(0, 2);
    assert_eq!(
        world.accepted(0, Log::new().resume(&resume)),
        [],
        "its turn has not come"
    );
    match &world.accepted(0, Log::new().run_absent(0))[..] {
        [Answer::Receipt(receipt, _), Answer::Resumed(resumed)] => {
            assert_eq!((receipt.ts, resumed.ts), (ts(2, 1).to_u64(), ts(2, 1).to_u64()));
            assert_eq!(resumed.last_sequence, 1);
        }
        other => panic!("{other:?}"),
    }
    let held = assert_holds(world.hand_over(0));
    assert_eq!(held.sessions[&SESSION], [0], "it ran in the next epoch");
}
