//! Room in the verified cache: which records leave it, and whether to Blum, since they are needed often, or to Merkle.

use zetakv_verifier::entry::Slot;

use crate::cache::{AddedBy, Occupant};
use crate::error::Error;
use crate::mirror::Mirror;
use crate::records::{Content, Place, RecordId, STORED};

/// Operations after which a leaf is worth being found in Blum. Its way there changes all nodes above it, and so does its way back; and of most
/// leaves that are written or read once, it is long before they are needed again (docs/performance.md).
pub const HOT_LEAF_USES: u8 = 2;

/// Epochs between two such operations at the most: a leaf that is needed less often would cost more in each epoch than the ways there and back.
const HOT_LEAF_GAP_EPOCHS: u32 = 16;

/// Passages in one epoch after which an internal node is worth being found in Blum, instead of being proved from above each time.
const HOT_NODE_PASSAGES: u8 = 3;

const TOO_FEW_SLOTS: Error = Error::Engine("the cache has too few slots for one proof");

impl Mirror {
    /// A free slot; for which another record may have to leave, but not that in `pinned` ([`crate::cache::NO_SLOT`]: any).
    pub fn make_room(&mut self, pinned: Slot) -> Result<Slot, Error> {
        loop {
            if let Some(slot) = self.cache.take_free() {
                return Ok(slot);
            }
            self.evict_one(pinned)?;
        }
    }

    /// Let the record go that is needed least. Not while the cache is cleared: there each has its turn, and room was made before.
    pub fn evict_one(&mut self, pinned: Slot) -> Result<(), Error> {
        if self.is_clearing {
            return Err(TOO_FEW_SLOTS);
        }
        self.records.look_at(self.cache.coming());
        let slot = self.cache.choose_victim(pinned).ok_or(TOO_FEW_SLOTS)?;
        let victim = *self.occupant(slot)?;
        match victim.added_by {
            AddedBy::Blum => self.evict_blum(slot),
            AddedBy::Merkle { .. } if self.is_hot(&victim) && self.has_hot_room() => self.evict_blum_merkle(slot),
            AddedBy::Merkle { parent } => self.evict_merkle(slot, parent),
        }
    }

    /// Let a leaf go at once that is hardly needed again before it would have to, with the derived nodes above it. Later it would have to be
    /// fetched into the processor's cache again, and meanwhile others, nearer the root, would have left in its place.
    pub fn let_cold_go(&mut self, slot: Slot) -> Result<(), Error> {
        let occupant = *self.occupant(slot)?;
        match occupant.added_by {
            AddedBy::Merkle { parent } if !self.is_hot(&occupant) => {
                self.evict_merkle(slot, parent)?;
                self.let_derived_go(parent)
            }
            AddedBy::Merkle { .. } | AddedBy::Blum => Ok(()),
        }
    }

    /// The same for a derived node, and those above it.
    pub fn let_derived_go(&mut self, mut slot: Slot) -> Result<(), Error> {
        loop {
            let occupant = *self.occupant(slot)?;
            let is_derived = self.records.get(occupant.record).records_below != STORED;
            match occupant.added_by {
                AddedBy::Merkle { parent } if is_derived && occupant.is_free_of_links() => {
                    self.evict_merkle(slot, parent)?;
                    slot = parent;
                }
                AddedBy::Merkle { .. } | AddedBy::Blum => return Ok(()),
            }
        }
    }

    /// An operation is to run on a leaf.
    pub fn count_use(&mut self, id: RecordId) {
        let epoch = self.clock.epoch;
        let record = self.records.get_mut(id);
        if record.place == Place::Merkle && epoch.saturating_sub(record.last_used) > HOT_LEAF_GAP_EPOCHS {
            record.uses = 0;
        }
        record.uses = (record.uses + 1).min(HOT_LEAF_USES);
    }

    const fn has_hot_room(&self) -> bool {
        self.hot.records < self.hot_max.records && self.hot.bytes < self.hot_max.bytes
    }

    /// Whether a record that was added by Merkle should be evicted to Blum, if there is room for it in memory.
    pub fn is_hot(&self, occupant: &Occupant) -> bool {
        let record = self.records.get(occupant.record);
        match record.content {
            Content::Leaf(_) => record.uses >= HOT_LEAF_USES,
            _ => occupant.passages >= HOT_NODE_PASSAGES && record.records_below == STORED,
        }
    }
}
