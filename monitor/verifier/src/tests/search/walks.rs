//! Random walks through the states of the search, each step of which is compared with threads that run through: so what the search does to
//! make states few (epochs counted anew, sums in pools, slots sorted, requests that wait when they are needed) changes no outcome.

use std::format;
use std::string::String;

use super::configurations::Configuration;
use super::moves::{Move, Moves};
use super::path::Path;
use super::replay::{self, replay};
use super::state::State;
use super::steps::End;
use crate::entry::Entry;
use crate::tests::random_logs::Random;
use crate::tests::symbolic::SymbolicCrypto;

/// How many steps were accepted, and how many refused, by both.
#[derive(Default, Debug)]
pub struct Compared {
    pub accepted: usize,
    pub refused: usize,
    /// Of those that were accepted: what was carried over, and what was run while an epoch was closing.
    pub carried_over: usize,
    pub run_in_closing: usize,
}

/// Of so many crashes one is tried.
const CRASHES_LEFT_OUT: usize = 8;

impl Compared {
    fn accept(&mut self, after: &State, step: &Move) {
        self.accepted += 1;
        match *step {
            Move::Entry(_, Entry::CarryOver { .. }) => self.carried_over += 1,
            Move::Operation(thread, ..) if after.threads[thread].moment.is_closing => self.run_in_closing += 1,
            _ => {}
        }
    }
}

/// Try so many random moves from the first state on, one after the other.
pub fn walk(configuration: &Configuration, random: &mut Random, tries: usize, compared: &mut Compared) {
    let rules = configuration.rules(&[]);
    let (mut path, mut moves) = (Path::new(&rules), Moves::new(&rules));
    for _ in 0..tries {
        moves.of(&path.state);
        let step = moves.found[random.below(moves.found.len())];
        if matches!(step, Move::Crash { .. }) && random.below(CRASHES_LEFT_OUT) > 0 {
            continue; // or few walks would come to the end of an epoch
        }
        match path.go(&step) {
            Ok(()) => {
                compared.accept(&path.state, &step);
                continue;
            }
            Err(End::Refused | End::Waits) => {
                let (log, refused_at) = refusal(&path.moves, rules.threads);
                let last = Some(path.moves.len());
                assert_eq!(refused_at, last, "only the search refuses the last step:\n{log}");
                compared.refused += 1;
            }
            Err(End::Attack) => panic!("an attack: {:?}", path.moves),
            Err(_) => {}
        }
        path.moves.pop();
    }
    let (log, end) = replay(&path.moves, rules.threads, SymbolicCrypto::default);
    assert_eq!(end, replay::End::Harmless, "the search accepts all of:\n{log}");
}

/// Which step is refused, counted from 1.
fn refusal(path: &[Move], threads: usize) -> (String, Option<usize>) {
    let (log, end) = replay(path, threads, SymbolicCrypto::default);
    let refused = matches!(end, replay::End::Refused(_)).then(|| log.lines().count());
    (format!("{log}{end:?}"), refused)
}
