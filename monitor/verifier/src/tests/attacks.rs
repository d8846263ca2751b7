//! Whole attacks, over threads and the aggregator, with symbolic cryptography: what a host gains where a check is left out, and that it gains
//! nothing otherwise.

use super::left_out::without;
use super::symbolic::SymbolicCrypto;
use super::world::{Log, NULL, World, found, get, key, leaf, put, ts};
use crate::aggregate::HeldEpoch;
use crate::crypto::Crypto;
use crate::machine::OperationResult;
use crate::thread::Progress;
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
        assert_holds(world.close(1, Log::new().evict_blum(1, ts(2, 0))));
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
    assert_holds(world.close(1, Log::new().evict_blum(1, ts(2, 0))));
}

#[test]
fn a_record_added_twice_does_not_hold() {
    let mut world = World::symbolic(2);
    old_in_blum(&mut world);
    world.accepted(0, Log::new().tick().add_blum(1, "000", leaf("old"), ts(1, 5), 0));
    world.accepted(1, Log::new().add_blum(1, "000", leaf("old"), ts(1, 5), 0));
    assert!(world.close(0, Log::new().evict_blum(1, ts(2, 0))).is_ok());
    assert_mismatch(world.close(1, Log::new().evict_blum(1, ts(2, 0))), 1);
}

#[test]
fn a_record_left_out_of_the_drain_does_not_hold() {
    let mut world = World::symbolic(1);
    old_in_blum(&mut world);
    assert_mismatch(world.close(0, Log::new()), 1);
}

#[test]
fn a_record_lost_in_the_next_epoch_does_not_hold() {
    let mut world = World::symbolic(1);
    old_in_blum(&mut world);
    let drain = Log::new()
        .add_blum(1, "000", leaf("old"), ts(1, 5), 0)
        .evict_blum(1, ts(2, 0));
    assert_holds(world.close(0, drain));
    assert_mismatch(world.close(0, Log::new()), 2);
}

/// The record is evicted with "old" at 1:5, and the host says otherwise.
fn say_otherwise(lie: Log) {
    let mut world = World::symbolic(2);
    old_in_blum(&mut world);
    world.accepted(0, Log::new().tick());
    world.accepted(1, lie);
    assert!(world.close(0, Log::new()).is_ok());
    assert_mismatch(world.close(1, Log::new().evict_blum(1, ts(2, 0))), 1);
}

#[test]
fn another_value_does_not_hold() {
    say_otherwise(Log::new().add_blum(1, "000", leaf("forged"), ts(1, 5), 0));
    say_otherwise(Log::new().add_blum(1, "000", NULL, ts(1, 5), 0));
}

#[test]
fn another_key_does_not_hold() {
    say_otherwise(Log::new().add_blum(1, "001", leaf("old"), ts(1, 5), 0));
}

#[test]
fn another_timestamp_does_not_hold() {
    say_otherwise(Log::new().add_blum(1, "000", leaf("old"), ts(1, 4), 0));
}

#[test]
fn another_thread_does_not_hold() {
    say_otherwise(Log::new().add_blum(1, "000", leaf("old"), ts(1, 5), 1));
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
        assert_holds(world.close(0, Log::new().evict_merkle(1, 0).evict_merkle(2, 0)));
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
    without(&["verify_epoch_cache_empty"], || {
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
