//! Which slots records are really in, along a path of states in which they are sorted.

use std::vec::Vec;

use super::moves::Move;
use super::state::{SLOTS, State};
use crate::entry::{Entry, Slot, Slots};

/// For each thread and slot of the state, the real slot.
pub struct Renaming {
    real: Vec<[u8; SLOTS]>,
}

impl Renaming {
    pub fn new(threads: usize) -> Self {
        Self {
            real: std::vec![core::array::from_fn(|slot| slot as u8); threads],
        }
    }

    /// Sort a state, and keep track.
    pub fn sorted(&mut self, state: &mut State) {
        for (real, before) in self.real.iter_mut().zip(state.sort()) {
            *real = before.map(|slot| real[usize::from(slot)]);
        }
    }

    /// The move, with real slots.
    pub fn renamed(&self, step: &Move) -> Move {
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
