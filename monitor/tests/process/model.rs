//! Traces of the session model, replayed against the real monitor: whatever the model says that comes of an action, comes of it there.
//!
//! The traces are those of the model's canaries, in which the monitor must refuse or answer differently where the rule is that the model
//! has left out; and random ones, of a host that tries what is refused, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zetakv_session_model::action::{Action, Outcome, Refusal, Replay};
use zetakv_session_model::canaries::{SMALL, all};
use zetakv_session_model::host::{Config, Logs};
use zetakv_session_model::rules::{Rule, Rules};
use zetakv_session_model::search::search;
use zetakv_session_model::state::{State, Tag};

use crate::model_driver::Driver;

/// Random traces, with the seeds from 1 on; `TRACES` makes it more.
const TRACES: u64 = 24;
const ACTIONS_PER_TRACE: usize = 80;

/// The rules of the monitor, which is another one without them. (The others are the client's, or of what the host says.)
const OF_THE_MONITOR: [Rule; 17] = [
    Rule::RegisterHoldsIncarnation,
    Rule::RegisterHoldsState,
    Rule::StartMovesRegister,
    Rule::RequestOfGeneration,
    Rule::SequenceIsNew,
    Rule::SequenceIsNext,
    Rule::ResumeTakesTurn,
    Rule::HandedOverIsDone,
    Rule::LiveMovesRegister,
    Rule::StartedCommitsState,
    Rule::ReplayIsLogged,
    Rule::ReplayHasLatestMark,
    Rule::ReplayFromSealedTag,
    Rule::AllLoggedHasRun,
    Rule::UnknownMayBeReplayed,
    Rule::ReplayedOfIncarnation,
    Rule::FormerIsProved,
];

/// Model and monitor, side by side.
struct Both {
    config: Config,
    model: State,
    monitor: Driver,
    trace: Vec<String>,
}

impl Both {
    fn new(config: Config) -> Self {
        Self {
            model: State::first(config.ops),
            monitor: Driver::new(),
            config,
            trace: Vec::new(),
        }
    }

    /// Let both do it: what came of it.
    fn apply(&mut self, action: &Action) -> Outcome {
        let expected = self.model.apply(&self.config, action);
        self.trace.push(format!("{action}: {expected:?}"));
        let outcome = self.monitor.apply(action, &expected, &self.model);
        assert_eq!(outcome, expected, "{:#?}", self.trace);
        if let Outcome::Refused(refusal) = expected {
            self.refused(refusal, action);
        }
        outcome
    }

    /// A violation ends the incarnation. One in a replay has started one, which has committed to its state.
    fn refused(&mut self, refusal: Refusal, action: &Action) {
        if let (Refusal::LogChanged, Action::Start { sealed, .. }) = (refusal, action) {
            let replay = Some(Replay {
                steps: Tag::new(),
                told: Tag::new(),
            });
            let without = Action::Start {
                sealed: *sealed,
                replay,
            };
            let started = self.model.apply(&self.config, &without);
            assert!(matches!(started, Outcome::Started(_)));
        }
        self.model.monitor = None;
    }
}

#[test]
fn the_monitor_has_every_rule_that_the_model_leaves_out() {
    let mut noticed: BTreeSet<Rule> = BTreeSet::new();
    for canary in all() {
        let report = search(&canary.config, usize::MAX, Duration::MAX);
        let found = report.counterexample.expect("the model's own tests find it, too");
        let mut both = Both::new(Config {
            rules: Rules::ALL,
            ..canary.config.clone()
        });
        for (action, without_rule) in &found.trace {
            if matches!(action, Action::Forget(_)) {
                break; // after 4,096 sessions: too many for a test
            }
            let outcome = both.apply(action);
            let expected = both.trace.last().expect("just done").clone();
            if outcome != *without_rule {
                println!(
                    "without {:?}: {without_rule:?}; the monitor: {expected}",
                    canary.without
                );
                noticed.extend(canary.without);
                break;
            }
        }
    }
    for rule in OF_THE_MONITOR {
        assert!(
            noticed.contains(&rule),
            "{rule:?} makes no difference to the monitor: {noticed:?}"
        );
    }
}

/// xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// A random action: first of which kind, so that rare ones come, too.
fn random_action(state: &State, config: &Config, random: &mut Random) -> Option<Action> {
    let mut by_kind: BTreeMap<String, Vec<Action>> = BTreeMap::new();
    let can_be = |action: &Action| state.clone().apply(config, action) != Outcome::Impossible;
    for action in state.actions(config).into_iter().filter(can_be) {
        let kind = format!("{action:?}");
        let kind = kind.split(['(', ' ']).next().expect("a name").to_owned();
        if kind != "Forget" && !(kind == "Start" && random.below(8) > 0) {
            by_kind.entry(kind).or_default().push(action);
        }
    }
    let kinds: Vec<_> = by_kind.into_values().collect();
    let actions = kinds.get(random.below(kinds.len().max(1)))?;
    actions.get(random.below(actions.len())).cloned()
}

#[test]
fn random_traces_come_to_the_same_in_model_and_monitor() {
    let traces = std::env::var("TRACES")
        .ok()
        .map_or(TRACES, |traces| traces.parse().expect("a number"));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 1..=traces {
        println!("seed {seed}");
        let config = Config {
            ops: 2,
            logs: [Logs::Never, Logs::Always, Logs::Either][seed as usize % 3],
            incarnations_max: 7,
            seals_max: 6,
            hellos_max: 8,
            sessions_max: 9,
            resumes_max: 6,
            requests_max: 9,
            strangers_max: 1,
            closings_max: 1,
            marks: true,
            ..SMALL
        };
        let tries_anything = Config {
            rules: Rules::without(&[Rule::ReplayIsLogged, Rule::ReplayFromSealedTag]),
            ..config.clone()
        };
        let mut random = Random(seed);
        let mut both = Both::new(config.clone());
        for _ in 0..ACTIONS_PER_TRACE {
            let tried = if random.below(4) == 0 { &tries_anything } else { &config };
            let Some(action) = random_action(&both.model, tried, &mut random) else {
                continue;
            };
            let outcome = format!("{:?}", both.apply(&action));
            let kind = outcome.split([' ', '{']).next().expect("a word").to_owned();
            *seen.entry(kind).or_default() += 1;
        }
    }
    println!("{seen:#?}");
    for outcome in [
        "Refused(Rollback)",
        "Refused(LogChanged)",
        "Refused(RequestInProgress)",
        "Rejected(UnknownSession)",
        "Rejected(BadSequence)",
        "Rejected(BadGeneration)",
        "Welcomed",
        "Admitted",
    ] {
        assert!(seen.contains_key(outcome), "no trace came to {outcome}: {seen:#?}");
    }
}
