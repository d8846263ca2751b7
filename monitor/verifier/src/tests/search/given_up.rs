//! All that is sealed on the way through the states, to some depth: for the test that nothing is lost with states that are given up.

use std::collections::{BTreeSet, HashSet};
use std::vec::Vec;

use super::moves::{Moves, Rules};
use super::state::{State, encode_sealed};
use super::steps::{End, OPEN, Steps};

/// The sealed states, encoded, each with what reads of it must return.
pub fn all_sealed(rules: &Rules, depth: usize) -> BTreeSet<Vec<u8>> {
    let (mut steps, mut moves) = (Steps::new(rules), Moves::new(rules));
    let mut encoded = Vec::new();
    encode(&mut steps.first_state(), &mut encoded);
    let mut visited = HashSet::from([encoded.clone()]);
    let mut level = std::vec![encoded.clone()];
    let mut found = BTreeSet::new();
    for _ in 0..depth {
        let mut next = Vec::new();
        for bytes in &level {
            let state = State::decode(bytes, rules.threads);
            moves.of(&state);
            for step in &moves.found {
                let after = steps.step(&state, step);
                assert!(!matches!(after, Err(End::Attack)), "an attack: {step:?}");
                let Ok(mut after) = after else {
                    continue;
                };
                if let (None, Some(sealed)) = (&state.sealed, &after.sealed) {
                    let mut found_here = Vec::from(after.registers[OPEN as usize]);
                    encode_sealed(sealed, &mut found_here);
                    found.insert(found_here);
                }
                encode(&mut after, &mut encoded);
                if visited.insert(encoded.clone()) {
                    next.push(encoded.clone());
                }
            }
        }
        level = next;
    }
    found
}

fn encode(state: &mut State, out: &mut Vec<u8>) {
    state.sort();
    state.encode(out);
}
