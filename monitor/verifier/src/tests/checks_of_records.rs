//! Checks of adding and evicting records.

use super::checks::Otherwise::{Accepted, Inseparable, Refused};
use super::checks::Scenario;
use super::world::{EMPTY_NODE, Log, NEVER_EVICTED, NULL, leaf, node_of, ts};
use crate::violation::ViolationCode::{
    AlreadyCached, ChildCached, HashMismatch, KeyNotAllowed, LinkMismatch, NotAddedByBlum, NotAddedByMerkle,
    NotAnAncestor, ParentNotInternal, RootIsPermanent, SideInBlum, SideNamesOther, SideNotDescendant, SlotEmpty,
    SlotOccupied, SlotOutOfRange, ValueNotInitial,
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

/// The leaf 000 in slot 1, under the root in slot 0.
fn leaf_cached() -> Log {
    Log::new().add_merkle(1, 0, "000", NULL)
}

/// The node 00 in slot 1, and below it the leaf 000 in slot 2.
fn node_and_leaf_cached() -> Log {
    Log::new()
        .add_merkle(1, 0, "00", EMPTY_NODE)
        .add_merkle(2, 1, "000", NULL)
}

pub const RECORDS: &[Scenario] = &[
    scenario!(
        "add_to_empty_slot",
        SlotOccupied,
        "100",
        leaf_cached(),
        Log::new().add_merkle(1, 0, "100", NULL),
        Accepted
    ),
    scenario!(
        "add_to_empty_slot",
        SlotOccupied,
        "100",
        leaf_cached(),
        Log::new().add_blum(1, "100", NULL, ts(1, 1), 0),
        Accepted
    ),
    scenario!(
        "add_within_leaf_depth",
        KeyNotAllowed,
        "0000",
        Log::new(),
        Log::new().add_merkle(1, 0, "0000", EMPTY_NODE),
        Accepted
    ),
    scenario!(
        "add_within_leaf_depth",
        KeyNotAllowed,
        "0000",
        Log::new(),
        Log::new().add_blum(1, "0000", EMPTY_NODE, ts(1, 1), 0),
        Accepted
    ),
    scenario!(
        "add_value_fits_key",
        KeyNotAllowed,
        "000",
        Log::new(),
        Log::new().add_merkle(1, 0, "000", EMPTY_NODE),
        Accepted
    ),
    scenario!(
        "add_value_fits_key",
        KeyNotAllowed,
        "00",
        Log::new(),
        Log::new().add_merkle(1, 0, "00", NULL),
        Accepted
    ),
    scenario!(
        "add_value_fits_key",
        KeyNotAllowed,
        "00",
        Log::new(),
        Log::new().add_blum(1, "00", NULL, ts(1, 1), 0),
        Accepted
    ),
    scenario!(
        "first_value_initial",
        ValueNotInitial,
        "000",
        Log::new(),
        Log::new().add_merkle(1, 0, "000", leaf("forged")),
        Accepted
    ),
    scenario!(
        "first_value_initial",
        ValueNotInitial,
        "00",
        Log::new(),
        Log::new().add_merkle(1, 0, "00", node_of("00", &[("000", NEVER_EVICTED)])),
        Accepted
    ),
    scenario!(
        "add_merkle of what is in Blum",
        SideInBlum,
        "000",
        leaf_cached()
            .evict_merkle(1, 0)
            .add_merkle(1, 0, "000", NULL)
            .evict_blum_merkle(1, 0, ts(1, 2)),
        Log::new().add_merkle(1, 0, "000", NULL),
        Inseparable
    ),
    scenario!(
        "again_not_cached",
        AlreadyCached,
        "000",
        leaf_cached().evict_merkle(1, 0).add_merkle(1, 0, "000", NULL),
        Log::new().add_merkle(2, 0, "000", NULL),
        Accepted
    ),
    scenario!(
        "again_hash",
        HashMismatch,
        "000",
        leaf_cached().evict_merkle(1, 0),
        Log::new().add_merkle(1, 0, "000", leaf("forged")),
        Accepted
    ),
    scenario!(
        "split_value_initial",
        ValueNotInitial,
        "00",
        leaf_cached(),
        Log::new().add_merkle(2, 0, "00", node_of("00", &[("001", NEVER_EVICTED)])),
        Accepted
    ),
    scenario!(
        "evict_not_root",
        RootIsPermanent,
        "",
        Log::new(),
        Log::new().evict_blum(0, ts(1, 2)),
        Accepted
    ),
    scenario!(
        "evict_not_root",
        RootIsPermanent,
        "",
        leaf_cached(),
        Log::new().evict_merkle(0, 1),
        Refused(ChildCached)
    ),
    scenario!(
        "evict_no_child_linked",
        ChildCached,
        "00",
        node_and_leaf_cached(),
        Log::new().evict_merkle(1, 0),
        Accepted
    ),
    scenario!(
        "evict_no_child_linked",
        ChildCached,
        "00",
        node_and_leaf_cached(),
        Log::new().evict_blum_merkle(1, 0, ts(1, 2)),
        Accepted
    ),
    scenario!(
        "evict_no_child_linked",
        ChildCached,
        "00",
        Log::new()
            .add_merkle(1, 0, "00", EMPTY_NODE)
            .evict_blum_merkle(1, 0, ts(1, 2))
            .add_blum(1, "00", EMPTY_NODE, ts(1, 2), 0)
            .add_merkle(2, 1, "000", NULL),
        Log::new().evict_blum(1, ts(1, 4)),
        Accepted
    ),
    // 000 is in Blum, and known to 00, which is not cached: the root cannot take it back
    scenario!(
        "evict_side_names_record",
        SideNamesOther,
        "000",
        node_and_leaf_cached()
            .evict_blum_merkle(2, 1, ts(1, 2))
            .evict_merkle(1, 0)
            .add_blum(2, "000", NULL, ts(1, 2), 0),
        Log::new().evict_merkle(2, 0),
        Accepted
    ),
    scenario!(
        "evict_side_names_record",
        SideNamesOther,
        "000",
        Log::new().add_blum(2, "000", NULL, ts(1, 1), 0),
        Log::new().evict_merkle(2, 0),
        Accepted
    ),
    // two copies of 000, of which one is linked: the other may not write into its parent
    scenario!(
        "evict_links_agree",
        LinkMismatch,
        "000",
        leaf_cached().add_blum(2, "000", leaf("forged"), ts(1, 1), 0),
        Log::new().evict_merkle(2, 0),
        Accepted
    ),
    // two copies of 00: the leaf may go only to the one that it came from
    scenario!(
        "evict_links_agree",
        LinkMismatch,
        "000",
        node_and_leaf_cached().add_blum(3, "00", node_of("00", &[("000", NEVER_EVICTED)]), ts(1, 1), 0),
        Log::new().evict_merkle(2, 3),
        Accepted
    ),
    scenario!(
        "evict_links_agree",
        LinkMismatch,
        "000",
        node_and_leaf_cached().add_blum(3, "00", node_of("00", &[("000", NEVER_EVICTED)]), ts(1, 1), 0),
        Log::new().evict_blum_merkle(2, 3, ts(1, 3)),
        Accepted
    ),
    scenario!(
        "add_blum_not_root",
        RootIsPermanent,
        "",
        Log::new(),
        Log::new().add_blum(1, "", EMPTY_NODE, ts(1, 1), 0),
        Accepted
    ),
    scenario!(
        "evict_blum_came_from_blum",
        NotAddedByBlum,
        "000",
        leaf_cached(),
        Log::new().evict_blum(1, ts(1, 2)),
        Accepted
    ),
    scenario!(
        "evict_blum_merkle_came_from_merkle",
        NotAddedByMerkle,
        "000",
        leaf_cached()
            .evict_blum_merkle(1, 0, ts(1, 2))
            .add_blum(1, "000", NULL, ts(1, 2), 0),
        Log::new().evict_blum_merkle(1, 0, ts(1, 4)),
        Accepted
    ),
    scenario!(
        "the slot of add_merkle",
        SlotOutOfRange,
        "000",
        Log::new(),
        Log::new().add_merkle(16, 0, "000", NULL),
        Inseparable
    ),
    scenario!(
        "the slot of add_blum",
        SlotOutOfRange,
        "000",
        Log::new(),
        Log::new().add_blum(16, "000", NULL, ts(1, 1), 0),
        Inseparable
    ),
    scenario!(
        "the parent of add_merkle",
        SlotOutOfRange,
        "000",
        Log::new(),
        Log::new().add_merkle(1, 16, "000", NULL),
        Inseparable
    ),
    scenario!(
        "the parent of add_merkle",
        SlotEmpty,
        "000",
        Log::new(),
        Log::new().add_merkle(1, 5, "000", NULL),
        Inseparable
    ),
    scenario!(
        "the slot of evict_merkle",
        SlotEmpty,
        "",
        Log::new(),
        Log::new().evict_merkle(1, 0),
        Inseparable
    ),
    scenario!(
        "the slot of evict_blum",
        SlotOutOfRange,
        "",
        Log::new(),
        Log::new().evict_blum(16, ts(1, 2)),
        Inseparable
    ),
    scenario!(
        "the parent of evict_merkle",
        SlotEmpty,
        "000",
        leaf_cached(),
        Log::new().evict_merkle(1, 2),
        Inseparable
    ),
    scenario!(
        "the parent of add_merkle",
        ParentNotInternal,
        "000",
        leaf_cached(),
        Log::new().add_merkle(2, 1, "000", NULL),
        Inseparable
    ),
    scenario!(
        "the parent of add_merkle",
        NotAnAncestor,
        "100",
        node_and_leaf_cached(),
        Log::new().add_merkle(3, 1, "100", NULL),
        Inseparable
    ),
    scenario!(
        "the parent of add_merkle",
        NotAnAncestor,
        "",
        node_and_leaf_cached(),
        Log::new().add_merkle(3, 1, "", EMPTY_NODE),
        Inseparable
    ),
    scenario!(
        "the parent of evict_merkle",
        NotAnAncestor,
        "00",
        node_and_leaf_cached().evict_merkle(2, 1),
        Log::new().evict_merkle(1, 1),
        Inseparable
    ),
    scenario!(
        "the side of a split",
        SideNotDescendant,
        "01",
        leaf_cached(),
        Log::new().add_merkle(2, 0, "01", EMPTY_NODE),
        Inseparable
    ),
    scenario!(
        "the side of a split",
        SideNotDescendant,
        "000",
        Log::new().add_merkle(1, 0, "00", EMPTY_NODE),
        Log::new().add_merkle(2, 0, "000", NULL),
        Inseparable
    ),
];
