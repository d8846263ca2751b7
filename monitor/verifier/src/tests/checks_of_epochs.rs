//! Checks of timestamps, clocks and epochs.

use super::checks::Otherwise::{Accepted, Inseparable};
use super::checks::Scenario;
use super::world::{EMPTY_NODE, Log, NULL, get, ts};
use crate::violation::ViolationCode::{
    CacheNotEmpty, ClockOverflow, EpochAlreadyClosing, EpochClosed, EpochInFuture, EpochNotClosing, EpochNotClosingYet,
    RequestInProgress, TimestampEpoch, TimestampNotIncreasing, UnknownThread,
};

/// A scenario on thread 0: what comes before, and the entry.
macro_rules! scenario {
    ($check:literal, $code:ident, $key:literal, $before:expr, $entry:expr, $otherwise:expr) => {
        Scenario {
            check: $check,
            also_without: &[],
            code: $code,
            key: $key,
            log: |world| {
                world.accepted(0, $before);
                (0, $entry)
            },
            otherwise: $otherwise,
        }
    };
}

/// The leaves 000 and 001 in slots 2 and 3, under 00 in slot 1, all from Blum. The clock is at 1:4.
fn three_from_blum() -> Log {
    Log::new()
        .add_blum(1, "00", EMPTY_NODE, ts(1, 1), 0)
        .add_blum(2, "000", NULL, ts(1, 2), 0)
        .add_blum(3, "001", NULL, ts(1, 3), 0)
}

pub const EPOCHS: &[Scenario] = &[
    scenario!(
        "add_blum_epoch_not_verified",
        EpochClosed,
        "000",
        Log::new(),
        Log::new().add_blum(1, "000", NULL, ts(0, 5), 0),
        Accepted
    ),
    scenario!(
        "add_blum_epoch_reached",
        EpochInFuture,
        "000",
        Log::new(),
        Log::new().add_blum(1, "000", NULL, ts(2, 0), 0),
        Accepted
    ),
    scenario!(
        "add_blum_epoch_is_closing",
        EpochNotClosing,
        "000",
        Log::new().next_epoch(),
        Log::new().add_blum(1, "000", NULL, ts(2, 0), 0),
        Accepted
    ),
    scenario!(
        "the thread of add_blum",
        UnknownThread,
        "000",
        Log::new(),
        Log::new().add_blum(1, "000", NULL, ts(1, 1), 64),
        Inseparable
    ),
    scenario!(
        "the clock after add_blum",
        ClockOverflow,
        "000",
        Log::new(),
        Log::new().add_blum(1, "000", NULL, ts(1, u32::MAX), 0),
        Inseparable
    ),
    scenario!(
        "the clock after tick",
        ClockOverflow,
        "",
        Log::new()
            .add_merkle(1, 0, "000", NULL)
            .evict_blum_merkle(1, 0, ts(1, u32::MAX)),
        Log::new().tick(),
        Inseparable
    ),
    scenario!(
        "evict_in_epoch_of_clock",
        TimestampEpoch,
        "000",
        three_from_blum(),
        Log::new().evict_blum(2, ts(2, 0)),
        Accepted
    ),
    scenario!(
        "evict_in_epoch_of_clock",
        TimestampEpoch,
        "000",
        three_from_blum().next_epoch(),
        Log::new().evict_blum(2, ts(3, 0)),
        Accepted
    ),
    scenario!(
        "evict_later_than_before",
        TimestampNotIncreasing,
        "000",
        three_from_blum(),
        Log::new().evict_blum(2, ts(1, 3)),
        Accepted
    ),
    scenario!(
        "evict_later_than_before",
        TimestampNotIncreasing,
        "000",
        three_from_blum().evict_blum(3, ts(1, 4)),
        Log::new().evict_blum(2, ts(1, 4)),
        Accepted
    ),
    scenario!(
        "evict_later_than_before",
        TimestampNotIncreasing,
        "000",
        three_from_blum().evict_blum(1, ts(1, 4)),
        Log::new().evict_blum(2, ts(1, 4)),
        Accepted
    ),
    // the same record twice at one timestamp
    scenario!(
        "evict_later_than_before",
        TimestampNotIncreasing,
        "000",
        three_from_blum().evict_blum(2, ts(1, 9)).add_merkle(2, 1, "000", NULL),
        Log::new().evict_blum_merkle(2, 1, ts(1, 9)),
        Accepted
    ),
    scenario!(
        "next_epoch_once",
        EpochAlreadyClosing,
        "",
        Log::new().next_epoch(),
        Log::new().next_epoch(),
        Accepted
    ),
    Scenario {
        check: "next_epoch_between_requests",
        also_without: &[],
        code: RequestInProgress,
        key: "",
        log: |world| {
            world.admit(0, 1, &[get("000"), get("000")]);
            world.accepted(0, Log::new().run_absent(0));
            (0, Log::new().next_epoch())
        },
        otherwise: Accepted,
    },
    Scenario {
        check: "verify_epoch_between_requests",
        also_without: &["next_epoch_between_requests"],
        code: RequestInProgress,
        key: "",
        log: |world| {
            world.admit(0, 1, &[get("000"), get("000")]);
            world.accepted(0, Log::new().run_absent(0).next_epoch());
            (0, Log::new().verify_epoch())
        },
        otherwise: Accepted,
    },
    scenario!(
        "verify_epoch_clock_at_start",
        EpochNotClosingYet,
        "",
        Log::new(),
        Log::new().verify_epoch(),
        Accepted
    ),
    scenario!(
        "verify_epoch_clock_at_start",
        EpochNotClosingYet,
        "",
        Log::new().next_epoch().tick(),
        Log::new().verify_epoch(),
        Accepted
    ),
    scenario!(
        "verify_epoch_clock_at_start",
        EpochNotClosingYet,
        "",
        Log::new()
            .add_merkle(1, 0, "000", NULL)
            .next_epoch()
            .evict_blum_merkle(1, 0, ts(2, 1)),
        Log::new().verify_epoch(),
        Accepted
    ),
    scenario!(
        "verify_epoch_cache_empty",
        CacheNotEmpty,
        "",
        Log::new().add_merkle(1, 0, "000", NULL).next_epoch(),
        Log::new().verify_epoch(),
        Accepted
    ),
    // a thread without the root keeps nothing
    Scenario {
        check: "verify_epoch_cache_empty",
        also_without: &[],
        code: CacheNotEmpty,
        key: "",
        log: |world| {
            world.accepted(1, Log::new().add_blum(0, "000", NULL, ts(1, 1), 1).next_epoch());
            (1, Log::new().verify_epoch())
        },
        otherwise: Accepted,
    },
    // nor a node where another thread has the root
    Scenario {
        check: "verify_epoch_cache_empty",
        also_without: &[],
        code: CacheNotEmpty,
        key: "",
        log: |world| {
            world.accepted(1, Log::new().add_blum(0, "0", EMPTY_NODE, ts(1, 1), 1).next_epoch());
            (1, Log::new().verify_epoch())
        },
        otherwise: Accepted,
    },
];
