//! The mirror of one thread's verified cache: which record is in which slot, how it came there, and which one goes when room is needed.
//!
//! Links are those of the verifier: a record that was added by Merkle is linked to its parent. Slot 0 is the root's on thread 0, and left
//! alone on every thread.

use zetakv_verifier::entry::Slot;
use zetakv_verifier::key::Direction;

use crate::records::{LOOKED_AT_TOGETHER, RecordId};

/// The slot of the root, on the thread that has it.
pub const ROOT_SLOT: Slot = 0;

/// In place of a slot where there is none.
pub const NO_SLOT: Slot = Slot::MAX;

/// How a record came into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddedBy {
    /// From Blum.
    Blum,
    /// By Merkle: it is linked to the record in the slot `parent`.
    Merkle { parent: Slot },
}

/// A record in a slot.
#[derive(Clone, Copy, Debug)]
pub struct Occupant {
    pub record: RecordId,
    pub added_by: AddedBy,
    /// The slots of the children linked to it, or [`NO_SLOT`].
    pub links: [Slot; 2],
    /// It was used since the hand of the clock last passed.
    pub referenced: bool,
    /// How often the way to another record led through it.
    pub passages: u8,
}

impl Occupant {
    /// Whether no child is linked to it, so that it may leave.
    pub const fn is_free_of_links(&self) -> bool {
        self.links[0] == NO_SLOT && self.links[1] == NO_SLOT
    }
}

/// The slots of one thread.
#[derive(Debug)]
pub struct Cache {
    slots: Vec<Option<Occupant>>,
    free: Vec<Slot>,
    hand: usize,
    /// Number of the part that [`Self::coming`] gave last.
    part_coming: usize,
}

impl Cache {
    /// An empty cache.
    pub fn new(slots: u32) -> Self {
        Self {
            slots: vec![None; slots as usize],
            free: (ROOT_SLOT + 1..slots).rev().collect(),
            hand: 0,
            part_coming: 0,
        }
    }

    /// Slots that are free, the root's not counted.
    pub const fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Slots that are occupied.
    pub const fn occupied_count(&self) -> usize {
        self.slots.len() - 1 - self.free.len()
    }

    /// Take a free slot.
    pub fn take_free(&mut self) -> Option<Slot> {
        self.free.pop()
    }

    /// Put a record into a slot that was taken.
    pub fn occupy(&mut self, slot: Slot, record: RecordId, added_by: AddedBy) {
        self.slots[slot as usize] = Some(Occupant {
            record,
            added_by,
            links: [NO_SLOT; 2],
            referenced: false,
            passages: 0,
        });
    }

    /// What is in which slot.
    pub fn occupants(&self) -> impl Iterator<Item = (Slot, &Occupant)> {
        let slots = (ROOT_SLOT..).zip(&self.slots);
        slots.filter_map(|(slot, occupant)| Some((slot, occupant.as_ref()?)))
    }

    /// The record in a slot.
    pub fn get(&self, slot: Slot) -> Option<&Occupant> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Occupant> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Link a child to its parent.
    pub fn link(&mut self, parent: Slot, direction: Direction, child: Slot) {
        if let Some(parent) = self.get_mut(parent) {
            parent.links[direction as usize] = child;
        }
    }

    /// Empty a slot.
    pub fn vacate(&mut self, slot: Slot) {
        self.slots[slot as usize] = None;
        if slot != ROOT_SLOT {
            self.free.push(slot);
        }
    }

    /// When the hand has come to another part of the slots: the records in the next part, which may have to leave soon.
    pub fn coming(&mut self) -> impl Iterator<Item = RecordId> {
        let part = self.hand / LOOKED_AT_TOGETHER + 1;
        let is_new = core::mem::replace(&mut self.part_coming, part) != part;
        let first = (part * LOOKED_AT_TOGETHER).min(self.slots.len());
        let slots = self.slots[first..]
            .iter()
            .take(if is_new { LOOKED_AT_TOGETHER } else { 0 });
        slots.flatten().map(|occupant| occupant.record)
    }

    /// Choose the record that leaves when room is needed: the first but `pinned` that may, and was not used since the last time round.
    pub fn choose_victim(&mut self, pinned: Slot) -> Option<Slot> {
        for _ in 0..2 * self.slots.len() {
            let slot = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(occupant) = &mut self.slots[slot] else {
                continue;
            };
            let slot = slot as Slot; // slots are counted in u32
            if !occupant.is_free_of_links() || slot == ROOT_SLOT || slot == pinned {
                continue;
            }
            if core::mem::take(&mut occupant.referenced) {
                continue;
            }
            return Some(slot);
        }
        None
    }
}
