//! Logs of honest hosts, all of which are accepted.

use super::symbolic::SymbolicCrypto;
use super::world::{Answer, EMPTY_NODE, FOUND_NULL, Log, NULL, SESSION, World, exchange, found, get, leaf, put, ts};
use crate::crypto::Crypto;
use crate::machine::{OperationResult, Role};
use crate::value::{Node, Value};

#[test]
fn idle_epochs() {
    let mut world = World::symbolic(3);
    for epoch in 1..=5 {
        assert!(matches!(world.close(2, Log::new()), Ok(None)));
        assert!(matches!(world.close(0, Log::new()), Ok(None)));
        let held = world.close(1, Log::new()).expect("holds").expect("all are in");
        assert_eq!((held.epoch, held.root), (epoch, Node::default()));
        assert_eq!(world.threads[1].clock(), ts(epoch + 1, 1));
    }
}

#[test]
fn the_next_epoch_waits_for_the_certificate() {
    let mut world = World::symbolic(2);
    assert!(matches!(world.close(0, Log::new()), Ok(None)));
    let clock = world.threads[0].clock();
    assert_eq!(world.accepted(0, Log::new().next_epoch()), [Answer::EpochNotYet]);
    assert_eq!(world.threads[0].clock(), clock, "nothing was done");
    assert!(matches!(world.close(1, Log::new()), Ok(Some(_))));
    assert_eq!(world.accepted(0, Log::new().next_epoch()), []);
}

#[test]
fn an_epoch_that_is_closing_is_closed_once() {
    let mut world = World::symbolic(1);
    world.accepted(
        0,
        Log::new()
            .add_merkle(1, 0, "000", NULL)
            .evict_blum_merkle(1, 0, ts(1, 5)),
    );
    world.accepted(0, Log::new().next_epoch());
    let clock = world.threads[0].clock();
    assert_eq!(world.accepted(0, Log::new().next_epoch()), [Answer::EpochNotYet]);
    assert_eq!(world.threads[0].clock(), clock, "nothing was done");
    world.accepted(0, Log::new().carry_over("000", NULL, ts(1, 5), 0));
    assert!(matches!(world.hand_over(0), Ok(Some(_))));
}

#[test]
fn records_go_from_thread_to_thread() {
    let mut world = World::symbolic(2);
    world.two_in_blum("a", "b");
    world.accepted(0, Log::new().tick());
    world.admit(1, 1, &[exchange("000", "100"), get("000")]);
    let borrow = Log::new()
        .add_blum(1, "000", leaf("a"), ts(1, 5), 0)
        .add_blum(2, "100", leaf("b"), ts(1, 6), 0);
    world.accepted(1, borrow);
    let results = world.results(1, Log::new().run(&[1, 2]).run(&[1]));
    assert_eq!(results, [OperationResult::Ok, found("b")]);
    world.accepted(1, Log::new().evict_blum(1, ts(1, 8)).evict_blum(2, ts(1, 9)).tick());
    world.admit(0, 2, &[get("100")]);
    let back = Log::new()
        .add_blum(3, "000", leaf("b"), ts(1, 8), 1)
        .add_blum(4, "100", leaf("a"), ts(1, 9), 1);
    world.accepted(0, back);
    assert_eq!(world.results(0, Log::new().run(&[4])), [found("a")]);
    assert!(matches!(world.close(1, Log::new()), Ok(None)));
    // one to Merkle, one stays hot
    world.accepted(0, Log::new().evict_merkle(3, 0).evict_blum(4, ts(1, 20)));
    let held = world.close(0, Log::new().carry_over("100", leaf("a"), ts(1, 20), 0));
    let root = held.expect("holds").expect("all are in").root;
    let sides = root.sides.map(|side| side.expect("a child"));
    assert_eq!(sides.map(|side| side.hash), [Some(world.crypto.hash(&leaf("b"))), None]);
    // both are found again
    world.admit(0, 3, &[get("000"), get("100")]);
    let again = Log::new()
        .add_merkle(1, 0, "000", leaf("b"))
        .add_blum(2, "100", leaf("a"), ts(2, 0), 0);
    world.accepted(0, again);
    assert_eq!(
        world.results(0, Log::new().run(&[1]).run(&[2])),
        [found("b"), found("a")]
    );
}

#[test]
fn splits_of_cached_and_of_evicted_records() {
    let mut world = World::symbolic(1);
    let hash = |value: &Value| world.crypto.hash(value);
    let (null_hash, empty) = (hash(&NULL), EMPTY_NODE);
    // above a cached leaf, above an evicted one, above one in Blum
    let log = Log::new()
        .add_merkle(1, 0, "000", NULL)
        .add_merkle(2, 0, "00", empty)
        .add_merkle(3, 2, "001", NULL)
        .evict_merkle(1, 2)
        .evict_merkle(3, 2)
        .evict_merkle(2, 0)
        .add_merkle(4, 0, "0", empty)
        .add_merkle(5, 0, "111", NULL)
        .evict_blum_merkle(5, 0, ts(1, 9))
        .add_merkle(6, 0, "1", empty)
        .add_blum(5, "111", NULL, ts(1, 9), 0);
    world.accepted(0, log);
    let node_00 = super::world::node_of("00", &[("000", Some(null_hash)), ("001", Some(null_hash))]);
    world.accepted(
        0,
        Log::new().add_merkle(2, 4, "00", node_00).add_merkle(1, 2, "000", NULL),
    );
    world.admit(0, 1, &[get("000"), get("111")]);
    assert_eq!(
        world.results(0, Log::new().run(&[1]).run(&[5])),
        [FOUND_NULL, FOUND_NULL]
    );
    let away = Log::new()
        .evict_merkle(1, 2)
        .evict_merkle(2, 4)
        .evict_merkle(4, 0)
        .evict_blum(5, ts(1, 20))
        .evict_blum_merkle(6, 0, ts(1, 21));
    world.accepted(0, away);
    let node_1 = super::world::node_of("1", &[("111", None)]);
    let carried = Log::new()
        .carry_over("111", NULL, ts(1, 20), 0)
        .carry_over("1", node_1, ts(1, 21), 0);
    assert!(matches!(world.close(0, carried), Ok(Some(_))));
}

#[test]
fn a_write_that_is_forbidden_needs_no_record() {
    let mut world = World::symbolic(1);
    world.threads[0].set_role(SESSION, Some(Role::Read));
    let request = world.make_request(0, 1, |_| {}, &[put("000", "x")]);
    let answers = world.accepted(0, Log::new().request(&request));
    assert_eq!(answers, [Answer::Admitted(Role::Read)]);
    assert_eq!(world.results(0, Log::new().run_absent(0)), [OperationResult::Forbidden]);
}

#[test]
fn absent_keys_are_read_without_adding_them() {
    let mut world = World::symbolic(1);
    let read = |world: &mut World<SymbolicCrypto>, sequence, path, parent| {
        world.admit(0, sequence, &[get(path)]);
        assert_eq!(world.results(0, Log::new().run_absent(parent)), [FOUND_NULL]);
    };
    read(&mut world, 1, "000", 0); // an empty side
    world.accepted(0, Log::new().add_merkle(1, 0, "000", NULL));
    read(&mut world, 2, "001", 0); // a side that names another leaf
    world.accepted(0, Log::new().add_merkle(2, 0, "00", EMPTY_NODE));
    read(&mut world, 3, "010", 0); // a side that names a node elsewhere
    read(&mut world, 4, "001", 2); // a node below the root
    world.accepted(0, Log::new().evict_blum_merkle(1, 2, ts(1, 9)));
    read(&mut world, 5, "001", 2); // a side in Blum
}

#[test]
fn a_restart_carries_what_is_in_blum_whatever_the_number_of_threads() {
    let mut world = World::symbolic(2);
    world.admit(1, 1, &[put("000", "a")]);
    world.accepted(
        0,
        Log::new()
            .add_merkle(1, 0, "000", NULL)
            .evict_blum_merkle(1, 0, ts(1, 2))
            .tick(),
    );
    let write = Log::new().add_blum(1, "000", NULL, ts(1, 2), 0).run(&[1]);
    world.accepted(1, write.evict_blum(1, ts(1, 5)));
    assert!(matches!(world.close(0, Log::new()), Ok(None)));
    let held = world
        .close(1, Log::new().carry_over("000", leaf("a"), ts(1, 5), 1))
        .expect("holds")
        .expect("all are in");

    for carried in [held.carried.clone(), Default::default()] {
        let crypto = world.crypto.clone();
        let mut restarted = World::restarted(1, || crypto.clone(), 1, held.root, &carried);
        // evicted by a thread that runs no more
        restarted.accepted(0, Log::new().add_blum(1, "000", leaf("a"), ts(2, 0), 1));
        restarted.admit(0, 1, &[get("000")]);
        assert_eq!(restarted.results(0, Log::new().run(&[1])), [found("a")]);
        restarted.accepted(0, Log::new().evict_blum(1, ts(2, 5)));
        let holds = restarted.close(0, Log::new().carry_over("000", leaf("a"), ts(2, 5), 0));
        assert_eq!(holds.is_ok(), carried == held.carried);
    }
}
