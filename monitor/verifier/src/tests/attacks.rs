//! Whole attacks, over threads and the aggregator, with symbolic cryptography: what a host gains where a check is left out, and that it gains
//! nothing otherwise.

use super::left_out::without;
use super::symbolic::SymbolicCrypto;
use super::world::{Log, NULL, World, found, get, key, leaf, put, ts};
use crate::aggregate::HeldEpoch;
use crate::crypto::Crypto;
use crate::entry::ThreadId;
use crate::machine::OperationResult;
use crate::thread::Progress;
use crate::time::Timestamp;
use crate::value::Value;
use crate::violation::{NO_THREAD, Violation, ViolationCode};

type Held = HeldEpoch<<SymbolicCrypto as Crypto>::Sum>;

#[track_caller]
fn assert_mismatch(submitted: Result<Option<Held>, Violation>, epoch: u32) {
    let violation = submitted.err().expect("the epoch does not hold");
    assert_eq!(violation.code, ViolationCode::EpochMismatch);
    assert_eq!((violation.thread, violation.epoch), (NO_THREAD, epoch));
}

#[track_caller]
fn assert_holds(submitted: Result<Option<Held>, Violation>) -> Held {
    let held = submitted.unwrap_or_else(|violation| panic!("{violation:?}"));
    held.expect("all threads are in")
}

/// On thread 0: the leaf 000 with "old", evicted to Blum at 1:5.
fn old_in_blum(world: &mut World<SymbolicCrypto>) {
    world.admit(0, 1, &[put("000", "old")]);
    world.accepted(
        0,
        Log::new()
            .add_merkle(1, 0, "000", NULL)
            .run(&[1])
            .evict_blum_merkle(1, 0, ts(1, 5)),
    );
}

/// Evict the record 000 from slot 1, and close the epoch with it.
#[track_caller]
fn close_with(world: &mut World<SymbolicCrypto>, thread: ThreadId, value: Value) -> Result<Option<Held>, Violation> {
    let moment = ts(world.threads[usize::from(thread)].clock().epoch, 20);
    world.accepted(thread, Log::new().evict_blum(1, moment));
    world.close(thread, Log::new().carry_over("000", value, moment, thread))
}

/// Thread 1 adds the record with the timestamp at which thread 0 evicts it later, and a client writes "new" there.
/// Returns how far thread 1 comes.
fn take_from_the_future(world: &mut World<SymbolicCrypto>) -> Progress {
    old_in_blum(world);
    world.accepted(0, Log::new().add_blum(1, "000", leaf("old"), ts(1, 5), 0));
    world.admit(1, 1, &[put("000", "new")]);
    world
        .process(1, &Log::new().tick().add_blum(1, "000", leaf("old"), ts(1, 9), 0))
        .0
}

#[test]
fn a_record_from_the_future_gives_a_certified_stale_read() {
    without(&["add_blum_clock_passed"], || {
        let mut world = World::symbolic(2);
        assert_eq!(take_from_the_future(&mut world), Progress::Done);
        assert_eq!(world.results(1, Log::new().run(&[1])), [OperationResult::Ok]);
        // later in real time, another client reads on thread 0
        world.admit(0, 2, &[get("000")]);
        assert_eq!(world.results(0, Log::new().run(&[1])), [found("old")]);
        world.accepted(0, Log::new().evict_blum(1, ts(1, 9)));
        assert!(world.close(0, Log::new()).is_ok());
        assert_holds(close_with(&mut world, 1, leaf("new")));
    });
}

#[test]
fn a_record_from_the_future_is_waited_for() {
    let mut world = World::symbolic(2);
    assert_eq!(take_from_the_future(&mut world), Progress::Waiting { consumed: 1 });
    // the wait ends in failure if nothing happens
    let offset = world.offsets[1];
    let violation = world.threads[1].time_out();
    let expected = Violation {
        code: ViolationCode::ClockNotPassed,
        thread: 1,
        epoch: 1,
        offset,
        key: key("000"),
    };
    assert_eq!(violation, expected);
    assert_eq!(world.process(1, &Log::new().tick()).0, Progress::Failed(expected));
    assert_eq!(world.threads[1].time_out(), expected);
}

#[test]
fn a_reader_that_comes_too_early_goes_on_when_the_record_is_evicted() {
    let mut world = World::symbolic(2);
    assert_eq!(take_from_the_future(&mut world), Progress::Waiting { consumed: 1 });
    let rest = Log::new().add_blum(1, "000", leaf("old"), ts(1, 9), 0);
    // evicted, but the clock stands at that moment: not passed
    world.accepted(0, Log::new().evict_blum(1, ts(1, 9)));
    assert_eq!(world.process(1, &rest).0, Progress::Waiting { consumed: 0 });
    world.accepted(0, Log::new().tick());
    assert_eq!(world.process(1, &rest).0, Progress::Done);
    assert_eq!(world.results(1, Log::new().run(&[1])), [OperationResult::Ok]);
    assert!(world.close(0, Log::new()).is_ok());
    assert_holds(close_with(&mut world, 1, leaf("new")));
}

#[test]
fn a_record_added_twice_does_not_hold() {
    let mut world = World::symbolic(2);
    old_in_blum(&mut world);
    world.accepted(0, Log::new().tick().add_blum(1, "000", leaf("old"), ts(1, 5), 0));
    world.accepted(1, Log::new().add_blum(1, "000", leaf("old"), ts(1, 5), 0));
    assert!(close_with(&mut world, 0, leaf("old")).is_ok());
    assert_mismatch(close_with(&mut world, 1, leaf("old")), 1);
}

#[test]
fn a_record_that_is_not_carried_over_does_not_hold() {
    let mut world = World::symbolic(1);
    old_in_blum(&mut world);
    assert_mismatch(world.close(0, Log::new()), 1);
}

#[test]
fn a_record_lost_in_the_next_epoch_does_not_hold() {
    let mut world = World::symbolic(1);
    old_in_blum(&mut world);
    assert_holds(world.close(0, carry_over_old()));
    assert_mismatch(world.close(0, Log::new()), 2);
}

/// What an honest host has thread 0 carry over of [`old_in_blum`].
fn carry_over_old() -> Log {
    Log::new().carry_over("000", leaf("old"), ts(1, 5), 0)
}

/// The record is evicted with "old" at 1:5, and the host says otherwise when it is added.
fn say_otherwise(path: &str, value: Value, moment: Timestamp, thread: ThreadId) {
    let mut world = World::symbolic(2);
    old_in_blum(&mut world);
    world.accepted(0, Log::new().tick());
    let lie = Log::new().add_blum(1, path, value, moment, thread);
    world.accepted(1, lie.evict_blum(1, ts(1, 9)));
    assert!(world.close(0, Log::new()).is_ok());
    assert_mismatch(world.close(1, Log::new().carry_over(path, value, ts(1, 9), 1)), 1);
}

/// The host says otherwise when it is carried over.
fn carry_over_otherwise(path: &str, value: Value, moment: Timestamp) {
    let mut world = World::symbolic(1);
    old_in_blum(&mut world);
    assert_mismatch(world.close(0, Log::new().carry_over(path, value, moment, 0)), 1);
}

#[test]
fn another_value_does_not_hold() {
    for value in [leaf("forged"), NULL] {
        say_otherwise("000", value, ts(1, 5), 0);
        carry_over_otherwise("000", value, ts(1, 5));
    }
}

#[test]
fn another_key_does_not_hold() {
    say_otherwise("001", leaf("old"), ts(1, 5), 0);
    carry_over_otherwise("001", leaf("old"), ts(1, 5));
}

#[test]
fn another_timestamp_does_not_hold() {
    say_otherwise("000", leaf("old"), ts(1, 4), 0);
    for counter in [0, 4, 6] {
        carry_over_otherwise("000", leaf("old"), ts(1, counter));
    }
}

#[test]
fn another_thread_does_not_hold() {
    say_otherwise("000", leaf("old"), ts(1, 5), 1);
    // of what was carried over before, the thread is free to choose
    let mut world = World::symbolic(2);
    old_in_blum(&mut world);
    assert!(world.close(0, carry_over_old()).is_ok());
    assert_holds(world.close(1, Log::new()));
    assert!(world.close(0, Log::new()).is_ok());
    let lie = Log::new().carry_over("000", leaf("old"), ts(2, 0), 1);
    assert_mismatch(world.close(1, lie), 2);
}

#[test]
fn a_record_carried_over_twice_does_not_hold() {
    let mut world = World::symbolic(2);
    old_in_blum(&mut world);
    let twice = Log([carry_over_old().0, carry_over_old().0].concat());
    assert!(world.close(0, twice).is_ok());
    assert_mismatch(world.close(1, Log::new()), 1);

    // nor by two threads, each of which may
    let mut world = World::symbolic(2);
    old_in_blum(&mut world);
    assert!(world.close(0, carry_over_old()).is_ok());
    assert_holds(world.close(1, Log::new()));
    let again = Log::new().carry_over("000", leaf("old"), ts(2, 0), 0);
    assert!(world.close(0, again.clone()).is_ok());
    assert_mismatch(world.close(1, again), 2);
}

#[test]
fn a_record_carried_over_by_one_thread_and_added_by_another_does_not_hold() {
    let mut world = World::symbolic(2);
    old_in_blum(&mut world);
    assert!(world.close(0, carry_over_old()).is_ok());
    assert_holds(world.close(1, Log::new()));
    // a client writes on thread 1, which is still in epoch 2; another reads on thread 0, which is in epoch 3, what it has carried over
    world.admit(1, 1, &[put("000", "new")]);
    let log = Log::new().add_blum(1, "000", leaf("old"), ts(2, 0), 0).run(&[1]);
    assert_eq!(world.results(1, log), [OperationResult::Ok]);
    let carried = Log::new().next_epoch().carry_over("000", leaf("old"), ts(2, 0), 0);
    world.accepted(0, carried);
    world.admit(0, 2, &[get("000")]);
    let log = Log::new().add_blum(1, "000", leaf("old"), ts(3, 0), 0).run(&[1]);
    assert_eq!(world.results(0, log), [found("old")]);
    assert!(world.hand_over(0).is_ok());
    assert_mismatch(close_with(&mut world, 1, leaf("new")), 2);
}

#[test]
fn what_is_added_and_was_not_carried_over_does_not_hold_in_the_next_epoch() {
    for has_another_value in [false, true] {
        let mut world = World::symbolic(1);
        if has_another_value {
            old_in_blum(&mut world);
        }
        let forged = Log::new().add_blum(1, "000", leaf("forged"), ts(2, 0), 0);
        world.accepted(0, Log::new().next_epoch());
        world.accepted(0, forged);
        if has_another_value {
            world.accepted(0, carry_over_old());
        }
        assert_holds(world.hand_over(0));
        assert_mismatch(close_with(&mut world, 0, leaf("forged")), 2);
    }
}

/// Thread 1 closes epoch 1, and a client reads on it, in epoch 2, what thread 1 will say that it carried over. Only later in real time that is
/// written, on thread 0, which is still in epoch 1. Returns how far thread 1 comes when it carries that over.
fn carry_over_from_the_future(world: &mut World<SymbolicCrypto>) -> Progress {
    let ahead = Log::new().next_epoch().add_blum(1, "000", leaf("new"), ts(2, 0), 1);
    world.accepted(1, ahead);
    world.admit(1, 1, &[get("000")]);
    assert_eq!(world.results(1, Log::new().run(&[1])), [found("new")]);
    world.admit(0, 1, &[put("000", "new")]);
    let write = Log::new().add_merkle(1, 0, "000", NULL).run(&[1]);
    assert_eq!(world.results(0, write), [OperationResult::Ok]);
    world.accepted(0, Log::new().evict_blum_merkle(1, 0, ts(1, 5)).tick());
    world
        .process(1, &Log::new().carry_over("000", leaf("new"), ts(1, 5), 0))
        .0
}

#[test]
fn what_another_thread_evicts_gives_a_certified_read_from_the_future() {
    without(&["carry_over_settled"], || {
        let mut world = World::symbolic(2);
        assert_eq!(carry_over_from_the_future(&mut world), Progress::Done);
        assert!(world.hand_over(1).is_ok());
        assert_holds(world.close(0, Log::new()));
        // the epoch of the read
        assert!(close_with(&mut world, 1, leaf("new")).is_ok());
        assert_eq!(assert_holds(world.close(0, Log::new())).epoch, 2);
    });
    let mut world = World::symbolic(2);
    match carry_over_from_the_future(&mut world) {
        Progress::Failed(violation) => assert_eq!(violation.code, ViolationCode::CarriedFromOther),
        other => panic!("{other:?}"),
    }
}

/// The host caches a record twice, by Merkle; a client writes to one copy, and reads the other.
fn cache_twice(world: &mut World<SymbolicCrypto>) -> Progress {
    let twice = Log::new()
        .add_merkle(1, 0, "000", NULL)
        .evict_merkle(1, 0)
        .add_merkle(1, 0, "000", NULL)
        .add_merkle(2, 0, "000", NULL);
    world.process(0, &twice).0
}

#[test]
fn a_record_cached_twice_gives_a_certified_stale_read() {
    without(&["again_not_cached", "evict_links_agree"], || {
        let mut world = World::symbolic(1);
        assert_eq!(cache_twice(&mut world), Progress::Done);
        world.admit(0, 1, &[put("000", "new"), get("000")]);
        let results = world.results(0, Log::new().run(&[1]).run(&[2]));
        assert_eq!(
            results,
            [
                OperationResult::Ok,
                OperationResult::Value(crate::value::Commitment::Null)
            ]
        );
        world.accepted(0, Log::new().evict_merkle(1, 0).evict_merkle(2, 0));
        assert_holds(world.close(0, Log::new()));
    });
    let mut world = World::symbolic(1);
    assert!(matches!(cache_twice(&mut world), Progress::Failed(_)));
}

/// The host keeps a record in the cache over the cut, with a write that is certified with the epoch.
fn keep_over_the_cut(world: &mut World<SymbolicCrypto>) -> Progress {
    world.admit(0, 1, &[put("000", "new")]);
    let log = Log::new()
        .add_merkle(1, 0, "000", NULL)
        .evict_merkle(1, 0)
        .add_merkle(1, 0, "000", NULL);
    world
        .process(
            0,
            &Log([log.0, Log::new().run(&[1]).next_epoch().verify_epoch().0].concat()),
        )
        .0
}

#[test]
fn a_record_kept_over_the_cut_loses_a_certified_write() {
    without(&["next_epoch_cache_empty"], || {
        let mut world = World::symbolic(1);
        assert_eq!(keep_over_the_cut(&mut world), Progress::Done);
        let held = assert_holds(world.submit(0));
        let side = held.root.sides[0].expect("the leaf");
        assert_eq!(
            side.hash,
            Some(world.crypto.hash(&NULL)),
            "the sealed root proves the old value"
        );
    });
    let mut world = World::symbolic(1);
    assert!(matches!(keep_over_the_cut(&mut world), Progress::Failed(_)));
}

#[test]
fn after_a_split_the_child_answers_to_the_new_node() {
    let split = |world: &mut World<SymbolicCrypto>| {
        let empty = Value::initial(false);
        world.accepted(
            0,
            Log::new().add_merkle(1, 0, "000", NULL).add_merkle(2, 0, "00", empty),
        );
    };
    for (parent, code) in [(0, Some(ViolationCode::SideNamesOther)), (2, None)] {
        let mut world = World::symbolic(1);
        split(&mut world);
        let code_found = match world.process(0, &Log::new().evict_merkle(1, parent)).0 {
            Progress::Failed(violation) => Some(violation.code),
            _ => None,
        };
        assert_eq!(code_found, code);
    }
    // nor can it be cached a second time, nor the new node leave before it
    for (log, code) in [
        (Log::new().add_merkle(3, 2, "000", NULL), ViolationCode::AlreadyCached),
        (Log::new().evict_merkle(2, 0), ViolationCode::ChildCached),
    ] {
        let mut world = World::symbolic(1);
        split(&mut world);
        match world.process(0, &log).0 {
            Progress::Failed(violation) => assert_eq!(violation.code, code),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_thread_cannot_hand_over_for_another() {
    let mut world = World::symbolic(2);
    assert!(matches!(world.close(0, Log::new()), Ok(None)));
    world.clocks.certify(1); // as no honest aggregator would
    world.accepted(0, Log::new().next_epoch().verify_epoch());
    assert_mismatch(world.submit(0), 1);
}
