//! What CI searches: every rule by its absence, and with all rules the narrow bounds completely.

use std::collections::BTreeSet;
use std::time::Duration;

use zetakv_session_model::canaries::{REDUNDANT, all, bounds};
use zetakv_session_model::host::Config;
use zetakv_session_model::rules::{Rule, Rules};
use zetakv_session_model::search::search;
use zetakv_session_model::situations;

/// The narrowest of the bounds; `make search-sessions` goes on.
const BOUNDS: usize = 1;
/// More than any search here needs, so that each is complete.
const STATES_MAX: usize = 2_000_000;

#[test]
fn without_any_rule_something_goes_wrong() {
    for canary in all() {
        let report = search(&canary.config, STATES_MAX, Duration::MAX);
        assert!(
            report.counterexample.is_some(),
            "{:?}: {} states",
            canary.without,
            report.states
        );
    }
}

#[test]
fn every_rule_has_a_canary() {
    let left_out: BTreeSet<_> = all().iter().flat_map(|canary| canary.without).copied().collect();
    assert_eq!(left_out, BTreeSet::from(Rule::ALL));
}

#[test]
fn of_two_rules_that_guard_one_thing_each_is_enough() {
    let both = all()
        .into_iter()
        .find(|canary| *canary.without == REDUNDANT)
        .expect("their canary");
    for rule in REDUNDANT {
        let config = Config {
            rules: Rules::without(&[rule]),
            ..both.config.clone()
        };
        let report = search(&config, STATES_MAX, Duration::MAX);
        assert!(report.complete && report.counterexample.is_none(), "{rule:?}");
    }
}

#[test]
fn with_all_rules_nothing_goes_wrong() {
    for config in bounds().into_iter().take(BOUNDS) {
        let report = search(&config, STATES_MAX, Duration::MAX);
        if let Some(found) = report.counterexample {
            panic!("{}: {}: {:#?}", config.name, found.what, found.trace);
        }
        assert!(report.complete, "{}: {} states", config.name, report.states);
    }
}

#[test]
fn the_vectors_are_what_the_model_concludes() {
    let vectors = include_str!("../../vectors/verdicts.json");
    let how = "cargo run --release -p zetakv-session-model -- --situations > tests/vectors/verdicts.json";
    assert!(vectors.trim_end() == situations::all(), "run: {how}");
}
