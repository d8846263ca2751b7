//! Breadth first through all states of a configuration, and back to the first one that is wrong.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use crate::action::{Action, Outcome};
use crate::host::Config;
use crate::properties::violated;
use crate::state::State;

/// What a search has come to.
#[derive(Debug)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Actions tried.
    pub transitions: usize,
    /// Levels that are complete.
    pub depth: usize,
    /// Whether no state is left within the bounds.
    pub complete: bool,
    /// The shortest way to a wrong state.
    pub counterexample: Option<Counterexample>,
}

/// A way to a wrong state.
#[derive(Debug)]
pub struct Counterexample {
    /// What is wrong.
    pub what: String,
    /// What happened, and what came of it.
    pub trace: Vec<(Action, Outcome)>,
}

/// 128 bits of BLAKE3 over what a state feeds to a hasher: two of a search's states collide with a probability below 2^-70.
#[derive(Default)]
struct Digest(Vec<u8>);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

impl Digest {
    fn of(&mut self, state: &State) -> u128 {
        self.0.clear();
        state.hash(self);
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(&self.0).as_bytes()[..16]);
        u128::from_le_bytes(digest)
    }
}

/// A state that was reached: from which one, by its how-manieth action.
struct Reached {
    from: u32,
    action: u16,
}

/// Search until all is seen, or a counterexample, or so many states or so much time.
pub fn search(config: &Config, states_max: usize, time_max: Duration) -> Report {
    search_watched(config, states_max, time_max, |_, _, _| {})
}

/// The same; `watch` sees every transition.
pub fn search_watched(
    config: &Config,
    states_max: usize,
    time_max: Duration,
    mut watch: impl FnMut(&State, &Action, &State),
) -> Report {
    let since = Instant::now();
    let mut digest = Digest::default();
    let first = State::first(config.ops);
    let mut seen = HashSet::from([digest.of(&first)]);
    let mut reached = vec![Reached { from: 0, action: 0 }];
    let mut level = vec![(0_u32, first)];
    let mut report = Report {
        states: 1,
        transitions: 0,
        depth: 0,
        complete: false,
        counterexample: None,
    };
    while !level.is_empty() {
        let mut next_level = Vec::new();
        for (place, state) in &level {
            for (number, action) in (0_u16..).zip(state.actions(config)) {
                report.transitions += 1;
                let mut next = state.clone();
                let outcome = next.apply(config, &action);
                watch(state, &action, &next);
                let mut what = violated(state, &next, config);
                if let Outcome::Refused(refusal) = outcome
                    && config.honest
                    && matches!(action, Action::Start { .. })
                {
                    what = Some(format!("an honest host's start is refused: {refusal:?}"));
                }
                if what.is_none() && !seen.insert(digest.of(&next)) {
                    continue;
                }
                reached.push(Reached {
                    from: *place,
                    action: number,
                });
                report.states = seen.len();
                let place = (reached.len() - 1) as u32; // bounded by states_max
                if let Some(what) = what {
                    report.counterexample = Some(Counterexample {
                        what,
                        trace: trace(config, &reached, place),
                    });
                    return report;
                }
                next_level.push((place, next));
            }
            if reached.len() >= states_max || since.elapsed() > time_max {
                return report;
            }
        }
        report.depth += 1;
        level = next_level;
    }
    report.complete = true;
    report
}

/// The actions that lead to a state, and what comes of each.
fn trace(config: &Config, reached: &[Reached], place: u32) -> Vec<(Action, Outcome)> {
    let mut numbers = Vec::new();
    let mut place = place;
    while place != 0 {
        let Reached { from, action } = reached[place as usize];
        numbers.push(action);
        place = from;
    }
    let mut state = State::first(config.ops);
    let follow = |number: u16| {
        let action = state.actions(config).swap_remove(usize::from(number));
        let outcome = state.apply(config, &action);
        (action, outcome)
    };
    numbers.into_iter().rev().map(follow).collect()
}
