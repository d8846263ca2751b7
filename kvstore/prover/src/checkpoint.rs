//! From a cut to the store: the rows that changed are frozen when the epoch is handed over, taken by the host, and held in memory until
//! they are durable.

use zetakv_verifier::value::Node;

use crate::error::Error;
use crate::records::{Content, Place, Record, Records};
use crate::rows::{encode_node, encode_record, hot_key, pack_row, value_key};

/// Where the rows of the last cut are. The next cut waits until they are durable.
#[derive(Debug)]
pub enum Checkpoint {
    /// In the store.
    Durable,
    /// Frozen, and not taken.
    Ready(Vec<u8>),
    /// On the way to the store: so many bytes.
    Taken(usize),
}

impl Checkpoint {
    /// Freeze the rows that changed since the last cut.
    pub fn freeze(records: &mut Records) -> Result<Self, Error> {
        let mut packed = Vec::new();
        let mut row = Vec::new();
        records.freeze(|record| {
            if record.is_changed {
                row.clear();
                encode_value(record, &mut row)?;
                pack_row(&value_key(&record.key), Some(&row), &mut packed);
            }
            let is_hot = record.place != Place::Merkle;
            if is_hot != record.has_hot_row {
                record.has_hot_row = is_hot;
                pack_row(&hot_key(&record.key), is_hot.then_some(&[]), &mut packed);
            }
            Ok(())
        })?;
        Ok(Self::Ready(packed))
    }

    /// Give the packed rows away, once.
    pub fn take(&mut self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Ready(packed) => {
                let packed = core::mem::take(packed);
                *self = Self::Taken(packed.len());
                Ok(packed)
            }
            Self::Durable | Self::Taken(_) => Err(Error::Engine("there is no checkpoint to take")),
        }
    }

    /// The rows that were taken are durable, and what is read from now on has them.
    pub fn release(&mut self, records: &mut Records) -> Result<(), Error> {
        match self {
            Self::Taken(_) => {
                *self = Self::Durable;
                records.thaw();
                Ok(())
            }
            Self::Durable | Self::Ready(_) => Err(Error::Engine("there is no checkpoint to release")),
        }
    }

    /// Bytes of frozen rows that are not durable.
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Durable => 0,
            Self::Ready(packed) => packed.len(),
            Self::Taken(bytes) => *bytes,
        }
    }
}

fn encode_value(record: &Record, row: &mut Vec<u8>) -> Result<(), Error> {
    match &record.content {
        Content::Leaf(leaf) => {
            let Some(application_key) = &leaf.application_key else {
                return Err(Error::Engine("the key of a record that changed is not in memory"));
            };
            encode_record(application_key, leaf.value()?, row);
        }
        Content::Node(node) => {
            let node: &Node = node;
            encode_node(&record.key, node, row);
        }
        Content::NotLoaded => return Err(Error::Engine("a record changed that is not in memory")),
    }
    Ok(())
}
