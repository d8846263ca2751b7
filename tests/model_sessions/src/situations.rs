//! What the model's client concludes from a server hello, situation by situation: all that occur within some bounds.
//!
//! They are golden vectors (`tests/vectors/verdicts.json`), which a test of the client's library concludes again.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::action::Action;
use crate::canaries::SMALL;
use crate::host::{Config, Logs};
use crate::search::search_watched;
use crate::state::{Epoch, Former, Inc, Phase, Sequence, State, Verdict};

/// States of each search: more bring no other situations.
const STATES_MAX: usize = 150_000;

/// All, as JSON.
pub fn all() -> String {
    let three = Config {
        incarnations_max: 3,
        ..SMALL
    };
    let logged = Config {
        logs: Logs::Always,
        ..three.clone()
    };
    let configs = [
        Config {
            seals_max: 2,
            ..three.clone()
        },
        Config {
            closings_max: 1,
            ..three.clone()
        },
        Config {
            resumes_max: 1,
            seals_max: 2,
            incarnations_max: 2,
            ..three
        },
        logged.clone(),
        Config {
            resumes_max: 1,
            incarnations_max: 2,
            ..logged
        },
    ];
    let mut situations = BTreeSet::new();
    for config in configs {
        search_watched(&config, STATES_MAX, Duration::MAX, |before, action, after| {
            situations.extend(situation(before, action, after));
        });
    }
    let lines: Vec<_> = situations.into_iter().collect();
    format!("[\n  {}\n]", lines.join(",\n  "))
}

/// Incarnations by the order in which they are named, so that situations that differ in nothing else are one.
#[derive(Default)]
struct Names(Vec<Inc>);

impl Names {
    fn of(&mut self, incarnation: Inc) -> usize {
        let known = self.0.iter().position(|known| *known == incarnation);
        known.unwrap_or_else(|| {
            self.0.push(incarnation);
            self.0.len() - 1
        })
    }
}

/// What is known of the operation before the hello.
struct Open {
    of: Inc,
    first: Epoch,
    epoch: Epoch,
    sequence: Sequence,
    answered: bool,
}

fn situation(before: &State, action: &Action, after: &State) -> Option<String> {
    let (Action::GetWelcome(welcome), Phase::Greeting(hello, _)) = (action, before.client.phase) else {
        return None;
    };
    let welcome = before.welcomes[usize::from(*welcome)];
    let asked = before.hellos[usize::from(hello)].former?;
    let open = match before.client.verdicts[0] {
        Verdict::Provisional {
            incarnation,
            first,
            epoch,
            session,
            sequence,
        } if session == asked => Open {
            of: incarnation,
            first,
            epoch,
            sequence,
            answered: true,
        },
        Verdict::InFlight => {
            let current = before.client.current.as_ref()?;
            let sent = current.in_flight.first()?;
            Open {
                of: before.session(current.session).incarnation,
                first: sent.epoch_min,
                epoch: 0,
                sequence: before.request(sent.request).sequence,
                answered: false,
            }
        }
        _ => return None,
    };
    let now = before.session(welcome.session).incarnation;
    let verdict = match after.client.verdicts[0] {
        Verdict::Waiting => "waiting",
        Verdict::InFlight => return None,
        Verdict::Provisional { .. } => "provisional",
        Verdict::Certified => "certified",
        Verdict::Lost => "lost",
        Verdict::Unknown => "unknown",
    };
    let (status, last, replayed, replay_epoch) = match welcome.former {
        Former::NotAsked | Former::Unknown => ("unknown", 0, 0, 0),
        Former::MayBeReplayed => ("may_be_replayed", 0, 0, 0),
        Former::Known {
            last,
            replayed,
            replay_epoch,
        } => ("known", last, replayed, replay_epoch),
    };
    let mut names = Names::default();
    let of = names.of(open.of);
    let session = names.of(before.session(asked).incarnation);
    let now = names.of(now);
    let chain: Vec<_> = after
        .client
        .chain
        .iter()
        .map(|id| names.of(after.seal(*id).incarnation))
        .collect();
    Some(format!(
        "{{\"answered\": {}, \"of\": {of}, \"first\": {}, \"epoch\": {}, \"sequence\": {}, \"session_of\": {session}, \"now\": {now}, \
         \"chain\": {chain:?}, \"status\": \"{status}\", \"last\": {last}, \"replayed\": {replayed}, \
         \"replay_epoch\": {replay_epoch}, \"verdict\": \"{verdict}\"}}",
        open.answered, open.first, open.epoch, open.sequence
    ))
}
