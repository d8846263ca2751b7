//! Checks of timestamps, clocks and epochs.

use super::checks::Otherwise::{Accepted, Inseparable, Refused};
use super::checks::Scenario;
use super::world::{EMPTY_NODE, Log, NULL, World, get, ts};
use crate::value::Node;
use crate::violation::ViolationCode::{
    CacheNotEmpty, CarriedFromOther, ClockOverflow, EpochClosed, EpochInFuture, EpochNotClosing, EpochNotClosingYet,
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

/// The leaf 000, evicted to Blum at 1:5.
fn leaf_in_blum() -> Log {
    Log::new()
        .add_merkle(1, 0, "000", NULL)
        .evict_blum_merkle(1, 0, ts(1, 5))
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
        "add_blum_epoch_not_over",
        EpochClosed,
        "000",
        Log::new(),
        Log::new().add_blum(1, "000", NULL, ts(0, 5), 0),
        Accepted
    ),
    // what is of the closing epoch is carried over, and no longer added
    scenario!(
        "add_blum_epoch_not_over",
        EpochClosed,
        "000",
        leaf_in_blum().next_epoch(),
        Log::new().add_blum(1, "000", NULL, ts(1, 5), 0),
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
    // another thread is there already
    Scenario {
        check: "add_blum_epoch_reached",
        also_without: &[],
        code: EpochInFuture,
        key: "000",
        log: |world| {
            world.accepted(0, leaf_in_blum().next_epoch());
            (1, Log::new().add_blum(0, "000", NULL, ts(2, 0), 0))
        },
        otherwise: Accepted,
    },
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
        Log::new().next_epoch().add_blum(1, "000", NULL, ts(2, 0), 0),
        Log::new().evict_blum(1, ts(3, 0)),
        Accepted
    ),
    scenario!(
        "evict_in_epoch_of_clock",
        TimestampEpoch,
        "000",
        Log::new().next_epoch().add_blum(1, "000", NULL, ts(2, 0), 0),
        Log::new().evict_blum(1, ts(1, 9)),
        Refused(TimestampNotIncreasing)
    ),
    scenario!(
        "evict_later_than_before",
        TimestampNotIncreasing,
        "000",
        three_from_blum(),
        Log::new().evict_blum(2, ts(1, 3)),
        Accepted
    ),
    // where the clock stands
    scenario!(
        "evict_later_than_before",
        TimestampNotIncreasing,
        "000",
        three_from_blum(),
        Log::new().evict_blum(2, ts(1, 4)),
        Accepted
    ),
    // where another record was evicted, in whatever order of the keys
    scenario!(
        "evict_later_than_before",
        TimestampNotIncreasing,
        "000",
        three_from_blum().evict_blum(3, ts(1, 5)),
        Log::new().evict_blum(2, ts(1, 5)),
        Accepted
    ),
    scenario!(
        "evict_later_than_before",
        TimestampNotIncreasing,
        "001",
        three_from_blum().evict_blum(2, ts(1, 5)),
        Log::new().evict_blum(3, ts(1, 5)),
        Accepted
    ),
    // where what is carried over is
    scenario!(
        "evict_later_than_before",
        TimestampNotIncreasing,
        "000",
        Log::new().next_epoch().add_blum(1, "000", NULL, ts(2, 0), 0),
        Log::new().evict_blum(1, ts(2, 0)),
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
    scenario!(
        "next_epoch_cache_empty",
        CacheNotEmpty,
        "",
        Log::new().add_merkle(1, 0, "000", NULL),
        Log::new().next_epoch(),
        Accepted
    ),
    // a thread without the root keeps nothing
    Scenario {
        check: "next_epoch_cache_empty",
        also_without: &[],
        code: CacheNotEmpty,
        key: "",
        log: |world| {
            world.accepted(1, Log::new().add_blum(0, "000", NULL, ts(1, 1), 1));
            (1, Log::new().next_epoch())
        },
        otherwise: Accepted,
    },
    // nor a node where another thread has the root
    Scenario {
        check: "next_epoch_cache_empty",
        also_without: &[],
        code: CacheNotEmpty,
        key: "",
        log: |world| {
            world.accepted(1, Log::new().add_blum(0, "0", EMPTY_NODE, ts(1, 1), 1));
            (1, Log::new().next_epoch())
        },
        otherwise: Accepted,
    },
    Scenario {
        check: "the next epoch of next_epoch",
        also_without: &[],
        code: ClockOverflow,
        key: "",
        log: |world| {
            let (crypto, last) = (world.crypto.clone(), u32::MAX - 1);
            *world = World::restarted(2, || crypto.clone(), last, Node::default(), &Default::default());
            (0, Log::new().next_epoch())
        },
        otherwise: Inseparable,
    },
    scenario!(
        "the thread of carry_over",
        UnknownThread,
        "000",
        leaf_in_blum().next_epoch(),
        Log::new().carry_over("000", NULL, ts(1, 5), 64),
        Inseparable
    ),
    scenario!(
        "the closing epoch of carry_over",
        EpochNotClosing,
        "000",
        leaf_in_blum(),
        Log::new().carry_over("000", NULL, ts(1, 5), 0),
        Inseparable
    ),
    scenario!(
        "the closing epoch of carry_over",
        EpochNotClosing,
        "000",
        leaf_in_blum().next_epoch().verify_epoch(),
        Log::new().carry_over("000", NULL, ts(1, 5), 0),
        Inseparable
    ),
    scenario!(
        "carry_over_from_closing_epoch",
        EpochNotClosing,
        "000",
        leaf_in_blum().next_epoch(),
        Log::new().carry_over("000", NULL, ts(0, 5), 0),
        Accepted
    ),
    // nor what has come into the next one already
    scenario!(
        "carry_over_from_closing_epoch",
        EpochNotClosing,
        "000",
        leaf_in_blum().next_epoch(),
        Log::new().carry_over("000", NULL, ts(2, 0), 0),
        Accepted
    ),
    Scenario {
        check: "carry_over_settled",
        also_without: &[],
        code: CarriedFromOther,
        key: "000",
        log: |world| {
            world.accepted(0, leaf_in_blum());
            world.accepted(1, Log::new().next_epoch());
            (1, Log::new().carry_over("000", NULL, ts(1, 5), 0))
        },
        otherwise: Accepted,
    },
    // not even when that thread is known to evict nothing more in the epoch
    Scenario {
        check: "carry_over_settled",
        also_without: &[],
        code: CarriedFromOther,
        key: "000",
        log: |world| {
            world.accepted(0, leaf_in_blum().next_epoch());
            world.accepted(1, Log::new().next_epoch());
            (1, Log::new().carry_over("000", NULL, ts(1, 5), 0))
        },
        otherwise: Accepted,
    },
    scenario!(
        "the closing epoch of verify_epoch",
        EpochNotClosingYet,
        "",
        Log::new(),
        Log::new().verify_epoch(),
        Inseparable
    ),
    scenario!(
        "the closing epoch of verify_epoch",
        EpochNotClosingYet,
        "",
        Log::new().next_epoch().verify_epoch(),
        Log::new().verify_epoch(),
        Inseparable
    ),
];
