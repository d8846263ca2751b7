//! From a cut to the store: what changed is frozen when an epoch ends, packed as rows while operations of the next run, taken by the host when the
//! epoch is handed over, and held in memory until it is applied, that is, until reads from the store see it. Several checkpoints may wait;
//! each is a *generation*.

use std::collections::VecDeque;

use zetakv_verifier::key::Key;
use zetakv_verifier::value::Node;

use crate::error::Error;
use crate::records::{Content, Leaf, Place, Record, RecordId, Records, STORED};
use crate::rows::{RecordRow, encode_node, hot_key, node_key, pack_row, record_key};

/// Frozen records that are packed at once: work for a fraction of a millisecond.
const PACKED_AT_ONCE: usize = 512;

/// What one cut froze.
#[derive(Debug)]
struct Generation {
    epoch: u32,
    records: Vec<RecordId>,
    bytes: usize,
}

/// A record as it was when the epoch ended.
#[derive(Debug)]
struct Frozen {
    key: Key,
    has_long_key: bool,
    /// What its row holds; None if that has not changed, or if there is none.
    value: Option<FrozenValue>,
    /// Whether it has a hot marker from now on; None if that has not changed.
    is_hot: Option<bool>,
}

#[derive(Debug)]
enum FrozenValue {
    Leaf(Leaf),
    Node(Node),
}

/// The checkpoints that are not applied, oldest first.
#[derive(Debug, Default)]
pub struct Checkpoints {
    generations: VecDeque<Generation>,
    /// Of the newest generation, what is not packed.
    frozen: Vec<Frozen>,
    /// Its packed rows, until they are taken.
    packed: Option<Vec<u8>>,
    bytes: usize,
}

impl Checkpoints {
    /// Freeze what changed since the last cut.
    pub fn freeze(&mut self, records: &mut Records, epoch: u32) -> Result<(), Error> {
        if self.packed.is_some() {
            return Err(Error::Engine("the last checkpoint has not been taken"));
        }
        let bytes = records.changed_bytes();
        let frozen = &mut self.frozen;
        let records = records.freeze(epoch, |record| {
            let is_hot = record.place != Place::Merkle;
            let marker_changes = is_hot != record.has_hot_row;
            record.has_hot_row = is_hot;
            frozen.push(Frozen {
                key: record.key,
                has_long_key: record.has_long_key,
                value: if record.is_changed { copy(record)? } else { None },
                is_hot: marker_changes.then_some(is_hot),
            });
            Ok(())
        })?;
        self.bytes += bytes;
        self.generations.push_back(Generation { epoch, records, bytes });
        self.packed = Some(Vec::new());
        Ok(())
    }

    /// Pack some of what is frozen, or all.
    pub fn pack(&mut self, all: bool) -> Result<(), Error> {
        let Some(packed) = &mut self.packed else {
            return Ok(());
        };
        let first = if all {
            0
        } else {
            self.frozen.len().saturating_sub(PACKED_AT_ONCE)
        };
        let mut row = Vec::new();
        for frozen in self.frozen.drain(first..) {
            if let Some(value) = &frozen.value {
                row.clear();
                let store_key = value.encode(&frozen, &mut row)?;
                pack_row(&store_key, Some(&row), packed);
            }
            if let Some(is_hot) = frozen.is_hot {
                let marker = hot_key(&frozen.key, frozen.has_long_key);
                pack_row(&marker, is_hot.then_some(&[]), packed);
            }
        }
        Ok(())
    }

    /// Give the packed rows of the newest checkpoint away, once.
    pub fn take(&mut self) -> Result<Vec<u8>, Error> {
        let packed = self.packed.take().filter(|_| self.frozen.is_empty());
        packed.ok_or(Error::Engine("there is no checkpoint to take"))
    }

    /// Whether the newest checkpoint has been taken, if there is one.
    pub const fn is_taken(&self) -> bool {
        self.packed.is_none()
    }

    /// The checkpoints up to that of `epoch` are applied: what is read from now on has their rows.
    pub fn release(&mut self, records: &mut Records, epoch: u32) -> Result<(), Error> {
        let applied = self.generations.partition_point(|generation| generation.epoch <= epoch);
        let taken = self.generations.len() - usize::from(self.packed.is_some());
        if applied == 0 || applied > taken {
            return Err(Error::Engine("there is no checkpoint to release"));
        }
        for generation in self.generations.drain(..applied) {
            self.bytes -= generation.bytes;
            records.thaw(generation.epoch, &generation.records);
        }
        Ok(())
    }

    /// Bytes of memory that are held for checkpoints that are not applied.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The value of a record that changed, if it gets a row: derived nodes do not.
fn copy(record: &mut Record) -> Result<Option<FrozenValue>, Error> {
    match &mut record.content {
        Content::Leaf(leaf) => {
            let frozen = Leaf {
                commitment: leaf.commitment,
                bytes: leaf.bytes.clone(),
                application_key: leaf.application_key.take(),
            };
            Ok(Some(FrozenValue::Leaf(frozen)))
        }
        Content::Node(node) => Ok((record.records_below == STORED).then_some(FrozenValue::Node(**node))),
        Content::NotLoaded => Err(Error::Engine("a record changed that is not in memory")),
    }
}

impl FrozenValue {
    /// Encode the row; returns its store key.
    fn encode(&self, frozen: &Frozen, row: &mut Vec<u8>) -> Result<Vec<u8>, Error> {
        match self {
            Self::Leaf(leaf) => {
                let Some(application_key) = &leaf.application_key else {
                    return Err(Error::Engine("the key of a record that changed is not in memory"));
                };
                RecordRow::committed(application_key, leaf.value()?, &leaf.commitment).encode(row);
                Ok(record_key(&frozen.key, frozen.has_long_key))
            }
            Self::Node(node) => {
                encode_node(&frozen.key, node, row);
                Ok(node_key(&frozen.key))
            }
        }
    }
}
