//! From a cut to the store: the rows that changed are frozen when the epoch is handed over, taken by the host, and held in memory until
//! they are applied, that is, until reads from the store see them. Several checkpoints may wait; each is a *generation*.

use std::collections::VecDeque;

use crate::error::Error;
use crate::records::{Content, Place, Record, RecordId, Records, STORED};
use crate::rows::{RecordRow, encode_node, hot_key, node_key, pack_row, record_key};

/// The rows that one cut froze.
#[derive(Debug)]
struct Generation {
    epoch: u32,
    records: Vec<RecordId>,
    bytes: usize,
}

/// The checkpoints that are not applied, oldest first.
#[derive(Debug, Default)]
pub struct Checkpoints {
    generations: VecDeque<Generation>,
    /// The packed rows of the newest generation, until they are taken.
    packed: Option<Vec<u8>>,
    bytes: usize,
}

impl Checkpoints {
    /// Freeze the rows that changed since the last cut.
    pub fn freeze(&mut self, records: &mut Records, epoch: u32) -> Result<(), Error> {
        if self.packed.is_some() {
            return Err(Error::Engine("the last checkpoint has not been taken"));
        }
        let mut packed = Vec::new();
        let mut row = Vec::new();
        let frozen = records.freeze(epoch, |record| {
            if record.is_changed {
                row.clear();
                if let Some(store_key) = encode_value(record, &mut row)? {
                    pack_row(&store_key, Some(&row), &mut packed);
                }
            }
            let is_hot = record.place != Place::Merkle;
            if is_hot != record.has_hot_row {
                record.has_hot_row = is_hot;
                let marker = hot_key(&record.key, record.has_long_key);
                pack_row(&marker, is_hot.then_some(&[]), &mut packed);
            }
            Ok(())
        })?;
        self.bytes += packed.len();
        self.generations.push_back(Generation {
            epoch,
            records: frozen,
            bytes: packed.len(),
        });
        self.packed = Some(packed);
        Ok(())
    }

    /// Give the packed rows of the newest checkpoint away, once.
    pub fn take(&mut self) -> Result<Vec<u8>, Error> {
        self.packed
            .take()
            .ok_or(Error::Engine("there is no checkpoint to take"))
    }

    /// Whether the newest checkpoint has been taken, if there is one.
    pub const fn is_taken(&self) -> bool {
        self.packed.is_none()
    }

    /// The checkpoints up to that of `epoch` are applied: what is read from now on has their rows.
    pub fn release(&mut self, records: &mut Records, epoch: u32) -> Result<(), Error> {
        if self.packed.is_some() || self.generations.front().is_none_or(|oldest| oldest.epoch > epoch) {
            return Err(Error::Engine("there is no checkpoint to release"));
        }
        let applied = self.generations.partition_point(|generation| generation.epoch <= epoch);
        for generation in self.generations.drain(..applied) {
            self.bytes -= generation.bytes;
            records.thaw(generation.epoch, &generation.records);
        }
        Ok(())
    }

    /// Bytes of frozen rows that are not applied.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The row of a record that changed, and its store key; None for a node that is derived.
fn encode_value(record: &Record, row: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
    match &record.content {
        Content::Leaf(leaf) => {
            let Some(application_key) = &leaf.application_key else {
                return Err(Error::Engine("the key of a record that changed is not in memory"));
            };
            RecordRow::new(application_key, leaf.value()?).encode(row);
            Ok(Some(record_key(&record.key, record.has_long_key)))
        }
        Content::Node(node) if record.records_below == STORED => {
            encode_node(&record.key, node, row);
            Ok(Some(node_key(&record.key)))
        }
        Content::Node(_) => Ok(None),
        Content::NotLoaded => Err(Error::Engine("a record changed that is not in memory")),
    }
}
