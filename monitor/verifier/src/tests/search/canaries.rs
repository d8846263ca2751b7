//! Each check by its absence: without it the search finds an attack, or finds none, because others do its work.
//!
//! The table is that of docs/search.md.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::configurations::{Configuration, THE_SUMS};
use super::explore::{Limits, Report, explore};
use super::moves::Move;
use super::replay::{End, replay};
use super::terms::Terms;
use crate::tests::left_out::without;
use crate::tests::symbolic::SymbolicCrypto;

/// What the search finds without a check.
pub enum Finding {
    /// An attack; the shortest has so many steps.
    Attack(Configuration, usize),
    /// None, in all states of the configuration; but one of so many steps if this other check is left out, too.
    Shared(Configuration, &'static str, usize),
    /// None, in all states of these; why.
    Redundant(&'static [Configuration], &'static str),
    /// It is about what is not in the states.
    OutOfScope(&'static str),
}

use Finding::{Attack, OutOfScope, Redundant, Shared};

/// Where what is redundant is searched.
const SMALL: &[Configuration] = &[
    Configuration::new(1, &["000"], 2, 4, true),
    Configuration::new(1, &["00", "000"], 3, 3, false),
    Configuration::new(2, &["000"], 2, 3, false),
];

/// Where clocks run away, which two threads do in too many ways.
const SMALL_WITH_ONE_THREAD: &[Configuration] = &[
    Configuration::new(1, &["000"], 2, 4, true),
    Configuration::new(1, &["00", "000"], 3, 2, false),
];

/// With a record that is deeper than a leaf.
const DEEP: &[Configuration] = &[
    Configuration::new(1, &["000", "0000"], 2, 4, true),
    Configuration::new(1, &["00", "000", "0000"], 3, 3, false),
    Configuration::new(2, &["000", "0000"], 2, 3, false),
];

/// And where `make search` does, too, as far as it comes.
pub const LARGER: &[Configuration] = &[
    Configuration::new(1, &["000", "100"], 2, 2, false),
    Configuration::new(1, &["00", "000"], 3, 2, true),
    Configuration::new(1, &["00", "000", "001"], 3, 2, false),
    Configuration::new(2, &["000"], 2, 2, true),
    Configuration::new(2, &["00", "000"], 3, 2, false),
];

const LEAF: Configuration = Configuration::new(1, &["000"], 2, 3, false);
const LEAF_CRASHES: Configuration = Configuration::new(1, &["000"], 2, 2, true);
const TWO_LEAVES: Configuration = Configuration::new(1, &["000", "100"], 2, 2, false);
const LEAF_AND_NODE: Configuration = Configuration::new(1, &["00", "000"], 3, 2, false);
const SPLIT: Configuration = Configuration::new(1, &["000", "001", "00"], 3, 2, false);
const TWO_THREADS: Configuration = Configuration::new(2, &["000"], 2, 2, false);

const SESSIONS: &str = "sessions and requests of several operations";
const WRITE_AHEAD: &str = "the write-ahead log";
const EPOCH_OF_SUM: &str = "an addition with a timestamp of another epoch is in a sum without its eviction";

/// Every named check of the source, and the comparison of the sums.
pub const CANARIES: &[(&str, Finding)] = &[
    (
        "add_to_empty_slot",
        Redundant(
            SMALL,
            "what is overwritten is still counted, so `next_epoch_cache_empty` refuses",
        ),
    ),
    (
        "add_within_leaf_depth",
        Redundant(DEEP, "a record below a leaf is neither run nor above anything"),
    ),
    (
        "add_value_fits_key",
        Redundant(
            SMALL,
            "what runs is a leaf's value, and what is a parent a node's: inseparable checks",
        ),
    ),
    ("first_value_initial", Attack(LEAF, 5)),
    ("again_not_cached", Shared(LEAF, "evict_links_agree", 10)),
    ("again_hash", Attack(LEAF, 7)),
    (
        "split_value_initial",
        Redundant(SMALL, "a split does not use the value"),
    ),
    (
        "evict_not_root",
        Redundant(
            SMALL,
            "without the root no epoch is sealed, and nothing but the root itself gives it back",
        ),
    ),
    ("evict_no_child_linked", Shared(LEAF_AND_NODE, "evict_links_agree", 14)),
    ("evict_side_names_record", Attack(SPLIT, 12)),
    ("evict_links_agree", Shared(LEAF, "again_not_cached", 10)),
    (
        "add_blum_not_root",
        Redundant(SMALL, "`evict_not_root`: the root is never in Blum"),
    ),
    ("evict_blum_came_from_blum", Attack(LEAF_CRASHES, 15)),
    (
        "evict_blum_merkle_came_from_merkle",
        Redundant(SMALL, "the side says already that the record is in Blum"),
    ),
    ("add_blum_epoch_not_over", Redundant(SMALL, EPOCH_OF_SUM)),
    ("add_blum_epoch_reached", Redundant(SMALL, EPOCH_OF_SUM)),
    ("add_blum_clock_passed", Attack(TWO_THREADS, 17)),
    (
        "evict_in_epoch_of_clock",
        Redundant(
            SMALL_WITH_ONE_THREAD,
            "a thread whose clock has left its epoch closes no epoch any more: its `next_epoch` waits for ever, or the aggregator refuses",
        ),
    ),
    ("evict_later_than_before", Attack(LEAF, 5)),
    ("carry_over_from_closing_epoch", Redundant(SMALL, EPOCH_OF_SUM)),
    ("carry_over_settled", Attack(TWO_THREADS, 17)),
    ("next_epoch_between_requests", OutOfScope(SESSIONS)),
    ("next_epoch_after_all_logged", OutOfScope(WRITE_AHEAD)),
    ("next_epoch_cache_empty", Attack(LEAF_CRASHES, 11)),
    ("run_slot_for_each_key", Attack(LEAF, 6)),
    ("run_slots_distinct", OutOfScope("operations on several keys")),
    ("run_slot_holds_key", Attack(TWO_LEAVES, 6)),
    ("run_absent_proved", Attack(LEAF, 6)),
    ("run_absent_changes_nothing", Attack(LEAF, 4)),
    ("replay_is_what_was_logged", OutOfScope(WRITE_AHEAD)),
    ("replay_has_latest_mark", OutOfScope(WRITE_AHEAD)),
    (THE_SUMS, Attack(LEAF, 5)),
];

/// The row of a check in the document.
pub fn row(check: &str, finding: &Finding) -> String {
    match finding {
        Attack(configuration, steps) => format!("| `{check}` | attack of {steps} steps | {} |", configuration.name()),
        Shared(configuration, also, steps) => {
            format!(
                "| `{check}` | none alone; {steps} steps without `{also}`, too | {} |",
                configuration.name()
            )
        }
        Redundant(_, why) => format!("| `{check}` | redundant | {why} |"),
        OutOfScope(what) => format!("| `{check}` | not searched | {what} |"),
    }
}

/// Search without a check, and compare with the table. What is printed, or what is not as the table says.
pub fn search(check: &'static str, finding: &Finding, limits: Limits) -> Result<String, String> {
    match finding {
        Attack(configuration, steps) => find(configuration, &[check], *steps, limits),
        Shared(configuration, also, steps) => {
            let alone = find_none(configuration, &[check], limits)?;
            Ok(alone + &find(configuration, &[check, also], *steps, limits)?)
        }
        Redundant(configurations, _) => configurations
            .iter()
            .map(|configuration| find_none(configuration, &[check], limits))
            .collect(),
        OutOfScope(_) => Ok(String::new()),
    }
}

fn find(
    configuration: &Configuration,
    left_out: &[&'static str],
    steps: usize,
    limits: Limits,
) -> Result<String, String> {
    let report = explore(&configuration.rules(left_out), left_out, limits);
    let described = line(configuration, left_out, &report);
    let Some(attack) = report.attack.filter(|attack| attack.len() == steps) else {
        return Err(format!("an attack of {steps} steps: {described}"));
    };
    match (
        replayed(configuration, &attack, left_out),
        replayed(configuration, &attack, &[]),
    ) {
        ((log, End::Wrong(what)), (_, End::Refused(code))) => Ok(format!(
            "{described}{log}      {what}\n      with all checks: {}\n",
            code.name()
        )),
        ((log, without), (_, with)) => Err(format!("{described}{log}{without:?}, with all checks {with:?}\n")),
    }
}

fn find_none(configuration: &Configuration, left_out: &[&'static str], limits: Limits) -> Result<String, String> {
    let report = explore(&configuration.rules(left_out), left_out, limits);
    let described = line(configuration, left_out, &report);
    if report.attack.is_none() && report.exhausted {
        Ok(described)
    } else {
        Err(format!("no attack, and an end: {described}"))
    }
}

/// One line on a search.
pub fn line(configuration: &Configuration, left_out: &[&'static str], report: &Report) -> String {
    let without = if left_out.is_empty() {
        String::new()
    } else {
        format!("without {}: ", left_out.join(" and "))
    };
    let end = match (&report.attack, report.exhausted) {
        (Some(attack), _) => format!("attack of {} steps", attack.len()),
        (None, true) => "no attack, all states".into(),
        (None, false) => "no attack so far".into(),
    };
    let (name, counts) = (configuration.name(), &report.counts);
    format!(
        "{without}{name}: {end}; {} states to depth {}, {} steps ({} refused, {} doomed, {} cut off), {:.1} s\n",
        report.states(),
        report.depth(),
        counts.steps,
        counts.refused + counts.waits,
        counts.doomed,
        counts.cut_off,
        report.time.as_secs_f64(),
    )
}

/// An attack, replayed with these checks left out.
fn replayed(configuration: &Configuration, attack: &[Move], left_out: &[&'static str]) -> (String, End) {
    let threads = configuration.threads;
    without(left_out, || {
        if left_out.contains(&THE_SUMS) {
            replay(attack, threads, || Terms { sums_hold: false })
        } else {
            replay(attack, threads, SymbolicCrypto::default)
        }
    })
}

/// The names of the checks in the table.
pub fn names() -> Vec<&'static str> {
    CANARIES.iter().map(|(check, _)| *check).collect()
}
