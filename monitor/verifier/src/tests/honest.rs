//! Logs of honest hosts, all of which are accepted.

use std::vec::Vec;

use super::random_logs::Random;
use super::symbolic::SymbolicCrypto;
use super::world::{
    Answer, EMPTY_NODE, FOUND_NULL, Log, NULL, SESSION, World, exchange, found, get, key, leaf, put, ts,
};
use crate::crypto::Crypto;
use crate::key::Key;
use crate::machine::{OperationResult, Role};
use crate::thread::Progress;
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
fn records_go_from_thread_to_thread() {
    let mut world = World::symbolic(2);
    world.admit(0, 1, &[put("000", "a"), put("100", "b")]);
    let lend = Log::new()
        .add_merkle(1, 0, "000", NULL)
        .add_merkle(2, 0, "100", NULL)
        .run(&[1])
        .run(&[2])
        .evict_blum_merkle(1, 0, ts(1, 5))
        .evict_blum_merkle(2, 0, ts(1, 5))
        .tick();
    world.accepted(0, lend);
    world.admit(1, 1, &[exchange("000", "100"), get("000")]);
    let borrow = Log::new()
        .add_blum(1, "000", leaf("a"), ts(1, 5), 0)
        .add_blum(2, "100", leaf("b"), ts(1, 5), 0);
    world.accepted(1, borrow);
    let results = world.results(1, Log::new().run(&[1, 2]).run(&[1]));
    assert_eq!(results, [OperationResult::Ok, found("b")]);
    world.accepted(1, Log::new().evict_blum(1, ts(1, 7)).evict_blum(2, ts(1, 7)).tick());
    world.admit(0, 2, &[get("100")]);
    let back = Log::new()
        .add_blum(3, "000", leaf("b"), ts(1, 7), 1)
        .add_blum(4, "100", leaf("a"), ts(1, 7), 1);
    world.accepted(0, back);
    assert_eq!(world.results(0, Log::new().run(&[4])), [found("a")]);
    assert!(matches!(world.close(1, Log::new()), Ok(None)));
    // one to Merkle, one stays hot
    let held = world.close(0, Log::new().evict_merkle(3, 0).evict_blum(4, ts(2, 0)));
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
    let drain = Log::new()
        .evict_merkle(1, 2)
        .evict_blum_merkle(2, 4, ts(2, 0))
        .evict_merkle(4, 0)
        .evict_blum(5, ts(2, 0))
        .evict_blum_merkle(6, 0, ts(2, 0));
    assert!(matches!(world.close(0, drain), Ok(Some(_))));
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
    world.accepted(1, Log::new().add_blum(1, "000", NULL, ts(1, 2), 0).run(&[1]));
    assert!(matches!(world.close(0, Log::new()), Ok(None)));
    let held = world
        .close(1, Log::new().evict_blum(1, ts(2, 0)))
        .expect("holds")
        .expect("all are in");

    for carried in [held.evicted_next.clone(), Default::default()] {
        let crypto = world.crypto.clone();
        let mut restarted = World::restarted(1, || crypto.clone(), 1, held.root, &carried);
        // evicted by a thread that runs no more
        restarted.accepted(0, Log::new().add_blum(1, "000", leaf("a"), ts(2, 0), 1));
        restarted.admit(0, 1, &[get("000")]);
        assert_eq!(restarted.results(0, Log::new().run(&[1])), [found("a")]);
        let holds = restarted.close(0, Log::new().evict_blum(1, ts(3, 0))).is_ok();
        assert_eq!(holds, carried == held.evicted_next);
    }
}

/// All keys of the tree but the root.
fn paths() -> Vec<std::string::String> {
    let of_depth = |depth: usize| (0..1 << depth).map(move |number: u32| std::format!("{number:0depth$b}"));
    (1..=3).flat_map(of_depth).collect()
}

#[test]
fn a_drain_at_one_timestamp_is_accepted_in_post_order_and_in_no_other() {
    let paths = paths();
    for seed in 1..=500 {
        std::println!("seed {seed}");
        let mut random = Random(seed);
        let mut order: Vec<&str> = Vec::new();
        for _ in 0..2 + random.below(5) {
            let path = &paths[random.below(paths.len())];
            if !order.contains(&path.as_str()) {
                order.push(path);
            }
        }
        let mut world = World::symbolic(1);
        let slot_of = |path: &str| paths.iter().position(|other| other == path).expect("a path") as u32 + 1;
        let mut adds = Log::new();
        for path in &order {
            let value = Value::initial(path.len() == 3);
            adds = adds.add_blum(slot_of(path), path, value, ts(1, 1), 0);
        }
        world.accepted(0, adds.next_epoch());
        let evict = |log: Log, path: &&str| log.evict_blum(slot_of(path), ts(2, 0));
        let drain = order.iter().fold(Log::new(), evict);
        let in_order = order.is_sorted_by(|a, b| key(a).cmp_post_order(&key(b)).is_lt());
        let progress = world.process(0, &drain).0;
        assert_eq!(progress == Progress::Done, in_order, "{order:?}: {progress:?}");

        order.sort_by(|a, b| key(a).cmp_post_order(&key(b)));
        let mut world = World::symbolic(1);
        let drain = order.iter().fold(adds_again(&order, slot_of), evict).verify_epoch();
        assert_eq!(world.process(0, &drain).0, Progress::Done, "{order:?}");
    }
}

fn adds_again(order: &[&str], slot_of: impl Fn(&str) -> u32) -> Log {
    let add = |log: Log, path: &&str| log.add_blum(slot_of(path), path, Value::initial(path.len() == 3), ts(1, 1), 0);
    order.iter().fold(Log::new(), add).next_epoch()
}

#[test]
fn a_whole_tree_drains_at_one_timestamp() {
    let paths = paths();
    let slot_of = |path: &str| {
        paths
            .iter()
            .position(|other| other == path)
            .map_or(0, |index| index as u32 + 1)
    };
    let parent_of = |path: &str| slot_of(&path[..path.len() - 1]);
    let mut world = World::symbolic(1);
    let add = |log: Log, path: &std::string::String| {
        log.add_merkle(slot_of(path), parent_of(path), path, Value::initial(path.len() == 3))
    };
    world.accepted(0, paths.iter().fold(Log::new(), add));
    let mut order = paths.clone();
    order.sort_by(|a, b| key(a).cmp_post_order(&key(b)));
    for (first, second) in order.iter().zip(&order[1..]) {
        let (first, second): (Key, Key) = (key(first), key(second));
        assert!(
            !first.is_proper_ancestor_of(&second),
            "no record leaves before one below it"
        );
    }
    let drain = |log: Log, path: &std::string::String| log.evict_blum_merkle(slot_of(path), parent_of(path), ts(2, 0));
    assert!(matches!(
        world.close(0, order.iter().fold(Log::new(), drain)),
        Ok(Some(_))
    ));
}
