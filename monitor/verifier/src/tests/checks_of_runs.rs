//! Checks of requests, resumes and the operations that are run.

use super::checks::Otherwise::{Accepted, Inseparable};
use super::checks::Scenario;
use super::symbolic::SymbolicCrypto;
use super::world::{EMPTY_NODE, Log, NULL, World, exchange, get, put, ts};
use crate::violation::ViolationCode::{
    ClockOverflow, MalformedLog, NoRequest, NotAbsent, NotAnAncestor, ParentNotInternal, SlotEmpty, WrongRecord,
};

/// A scenario on thread 0: the operations of the request at the head, the log before the entry, and the entry.
macro_rules! scenario {
    ($check:literal, $code:ident, $key:literal, [$($operation:expr),*], $before:expr, $entry:expr, $otherwise:expr) => {
        Scenario {
            check: $check,
            also_without: &[],
            code: $code,
            key: $key,
            log: |world| {
                admit(world, &[$($operation),*]);
                world.accepted(0, $before);
                (0, $entry)
            },
            otherwise: $otherwise,
        }
    };
}

fn admit(world: &mut World<SymbolicCrypto>, operations: &[std::vec::Vec<u8>]) {
    if !operations.is_empty() {
        world.admit(0, 1, operations);
    }
}

/// The leaves 000 and 100 in slots 1 and 2.
fn two_leaves() -> Log {
    Log::new().add_merkle(1, 0, "000", NULL).add_merkle(2, 0, "100", NULL)
}

pub const RUNS: &[Scenario] = &[
    scenario!(
        "the request of run",
        NoRequest,
        "",
        [],
        two_leaves(),
        Log::new().run(&[1]),
        Inseparable
    ),
    scenario!(
        "the request of run_absent",
        NoRequest,
        "",
        [],
        Log::new(),
        Log::new().run_absent(0),
        Inseparable
    ),
    scenario!(
        "the request of run",
        NoRequest,
        "",
        [get("000")],
        two_leaves().run(&[1]),
        Log::new().run(&[1]),
        Inseparable
    ),
    scenario!(
        "run_slot_for_each_key",
        WrongRecord,
        "",
        [get("000")],
        two_leaves(),
        Log::new().run(&[1, 2]),
        Accepted
    ),
    scenario!(
        "run_slot_for_each_key",
        WrongRecord,
        "",
        [exchange("000", "100")],
        two_leaves(),
        Log::new().run(&[1, 2, 1]),
        Accepted
    ),
    // a state machine that lets an operation name a key twice
    scenario!(
        "run_slots_distinct",
        WrongRecord,
        "000",
        [exchange("000", "000")],
        two_leaves(),
        Log::new().run(&[1, 1]),
        Accepted
    ),
    scenario!(
        "run_slot_holds_key",
        WrongRecord,
        "000",
        [get("000")],
        two_leaves(),
        Log::new().run(&[2]),
        Accepted
    ),
    scenario!(
        "run_slot_holds_key",
        WrongRecord,
        "000",
        [exchange("000", "100")],
        two_leaves(),
        Log::new().run(&[2, 1]),
        Accepted
    ),
    scenario!(
        "run_slot_holds_key",
        WrongRecord,
        "001",
        [put("001", "x")],
        two_leaves(),
        Log::new().run(&[1]),
        Accepted
    ),
    scenario!(
        "the slot of run",
        SlotEmpty,
        "000",
        [get("000")],
        two_leaves(),
        Log::new().run(&[3]),
        Inseparable
    ),
    scenario!(
        "run_absent_changes_nothing",
        NotAbsent,
        "000",
        [put("000", "x")],
        Log::new(),
        Log::new().run_absent(0),
        Accepted
    ),
    scenario!(
        "the key of run_absent",
        NotAbsent,
        "",
        [exchange("000", "100")],
        Log::new(),
        Log::new().run_absent(0),
        Inseparable
    ),
    scenario!(
        "run_absent_proved",
        NotAbsent,
        "000",
        [get("000")],
        two_leaves(),
        Log::new().run_absent(0),
        Accepted
    ),
    scenario!(
        "run_absent_proved",
        NotAbsent,
        "000",
        [get("000")],
        Log::new().add_merkle(1, 0, "00", EMPTY_NODE),
        Log::new().run_absent(0),
        Accepted
    ),
    scenario!(
        "run_absent_proved",
        NotAbsent,
        "000",
        [get("000")],
        two_leaves().evict_blum_merkle(1, 0, ts(1, 2)),
        Log::new().run_absent(0),
        Accepted
    ),
    scenario!(
        "the parent of run_absent",
        SlotEmpty,
        "000",
        [get("000")],
        Log::new(),
        Log::new().run_absent(1),
        Inseparable
    ),
    scenario!(
        "the parent of run_absent",
        ParentNotInternal,
        "000",
        [get("000")],
        two_leaves(),
        Log::new().run_absent(1),
        Inseparable
    ),
    scenario!(
        "the parent of run_absent",
        NotAnAncestor,
        "100",
        [get("100")],
        Log::new().add_merkle(1, 0, "00", EMPTY_NODE),
        Log::new().run_absent(1),
        Inseparable
    ),
    // the host drove another clock to its end, and the client has seen that
    Scenario {
        check: "the clock before the first operation",
        also_without: &[],
        code: ClockOverflow,
        key: "",
        log: |world| {
            let end = ts(1, u32::MAX);
            world.accepted(1, Log::new().add_blum(0, "000", NULL, ts(1, 1), 1).evict_blum(0, end));
            let request = world.make_request(0, 1, |header| header.after_ts = end.to_u64(), &[get("000")]);
            world.accepted(0, Log::new().request(&request));
            (0, Log::new().run_absent(0))
        },
        otherwise: Inseparable,
    },
    scenario!(
        "the entry's kind",
        MalformedLog,
        "",
        [],
        Log::new(),
        Log(std::vec![17]),
        Inseparable
    ),
    scenario!(
        "the entry's length",
        MalformedLog,
        "",
        [],
        Log::new(),
        Log(std::vec![4, 0, 0]),
        Inseparable
    ),
    scenario!(
        "the entry's slots",
        MalformedLog,
        "",
        [get("000")],
        Log::new(),
        Log(std::vec![10, 0]),
        Inseparable
    ),
];
