//! One path through the states, with the slots that records are really in: those of a state are sorted.

use std::vec::Vec;

use super::moves::{Move, Rules};
use super::state::{SLOTS, State};
use super::steps::{End, Steps};
use crate::entry::{Entry, Slot, Slots};

/// From the first state on.
pub struct Path<'a> {
    rules: &'a Rules,
    steps: Steps<'a>,
    /// Where it is.
    pub state: State,
    /// For each thread and slot of the state, the real slot.
    real: Vec<[u8; SLOTS]>,
    /// The moves that were tried, with real slots.
    pub moves: Vec<Move>,
}

impl<'a> Path<'a> {
    pub fn new(rules: &'a Rules) -> Self {
        let steps = Steps::new(rules);
        let state = steps.first_state();
        Self {
            rules,
            steps,
            state,
            real: as_they_are(rules),
            moves: Vec::new(),
        }
    }

    /// Go on by a move of the state; or what it comes to otherwise.
    pub fn go(&mut self, step: &Move) -> Result<(), End> {
        self.moves.push(self.with_real_slots(step));
        self.state = self.steps.step(&self.state, step)?;
        if let Move::Crash { .. } = step {
            self.real = as_they_are(self.rules);
        }
        for (real, before) in self.real.iter_mut().zip(self.state.sort()) {
            *real = before.map(|slot| real[usize::from(slot)]);
        }
        Ok(())
    }

    fn with_real_slots(&self, step: &Move) -> Move {
        match *step {
            Move::Entry(thread, entry) => Move::Entry(thread, self.entry(thread, entry)),
            Move::Operation(thread, operation, entry) => Move::Operation(thread, operation, self.entry(thread, entry)),
            Move::Certify | Move::Crash { .. } => *step,
        }
    }

    fn entry(&self, thread: usize, mut entry: Entry<'static>) -> Entry<'static> {
        let real = |slot: &mut Slot| *slot = u32::from(self.real[thread][*slot as usize]);
        match &mut entry {
            Entry::AddMerkle { slot, parent, .. }
            | Entry::EvictMerkle { slot, parent }
            | Entry::EvictBlumMerkle { slot, parent, .. } => {
                real(slot);
                real(parent);
            }
            Entry::AddBlum { slot, .. } | Entry::EvictBlum { slot, .. } => real(slot),
            Entry::RunAbsent { parent } => real(parent),
            Entry::Run(slots) => {
                let mut named: Vec<Slot> = slots.as_slice().into();
                named.iter_mut().for_each(real);
                *slots = Slots::new(&named).expect("as many as before");
            }
            _ => {}
        }
        entry
    }
}

fn as_they_are(rules: &Rules) -> Vec<[u8; SLOTS]> {
    std::vec![core::array::from_fn(|slot| slot as u8); rules.threads]
}
