//! One record in memory: what it holds, where the verifier has it, and in which lists of the table it is.

use std::sync::Arc;

use zetakv_verifier::entry::{Slot, ThreadId};
use zetakv_verifier::key::Key;
use zetakv_verifier::time::Timestamp;
use zetakv_verifier::value::{Commitment, Node, Value};

use crate::error::Error;

/// In place of the number of records below a node: it has a row of its own, and they are not counted.
pub const STORED: u8 = u8::MAX;

/// Number of a record in memory.
pub type RecordId = u32;

/// In place of one.
const NO_RECORD: RecordId = RecordId::MAX;

/// What a record in memory counts for beside its key and value: its entry here, and its row in the next checkpoint.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// The value of a leaf.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// What the verifier knows of it.
    pub commitment: Commitment,
    /// The bytes, where the commitment is a digest and they are in memory.
    pub bytes: Option<Arc<[u8]>>,
    /// The application's key: present while the record's row must be written.
    pub application_key: Option<Box<[u8]>>,
}

impl Leaf {
    /// A leaf with a value that was read from its row.
    pub fn read(value: Option<&[u8]>) -> Self {
        Self::new(value.map_or(Commitment::Null, Commitment::of), value)
    }

    /// The same, with the value's commitment.
    pub fn new(commitment: Commitment, value: Option<&[u8]>) -> Self {
        let is_digest = matches!(commitment, Commitment::Digest(..));
        Self {
            commitment,
            bytes: value.filter(|_| is_digest).map(Arc::from),
            application_key: None,
        }
    }

    /// The value's bytes (None for null); fails where they are not in memory.
    pub fn value(&self) -> Result<Option<&[u8]>, Error> {
        match &self.commitment {
            Commitment::Null => Ok(None),
            Commitment::Inline(inline) => Ok(Some(inline.as_slice())),
            Commitment::Digest(..) => match &self.bytes {
                Some(bytes) => Ok(Some(bytes)),
                None => Err(Error::Engine("the bytes of a value are not in memory")),
            },
        }
    }

    /// Whether the value is longer than its commitment, and its bytes are not in memory.
    pub const fn lacks_bytes(&self) -> bool {
        matches!(self.commitment, Commitment::Digest(..)) && self.bytes.is_none()
    }

    fn bytes_in_memory(&self) -> usize {
        let value = self.bytes.as_ref().map_or(0, |bytes| bytes.len());
        value + self.application_key.as_ref().map_or(0, |key| key.len())
    }
}

/// What a record holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// What its row in the store says.
    NotLoaded,
    /// A leaf's value.
    Leaf(Leaf),
    /// An internal node's value.
    Node(Box<Node>),
}

impl Content {
    /// Whether it is in memory.
    pub const fn is_loaded(&self) -> bool {
        !matches!(self, Self::NotLoaded)
    }
}

/// Where the verifier has a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its hash is in its parent.
    Merkle,
    /// In Blum: evicted at `ts` by `thread`.
    Blum { ts: Timestamp, thread: ThreadId },
    /// In a slot of the verified cache.
    Cached(Slot),
}

/// A record in memory.
#[derive(Clone, Debug)]
pub struct Record {
    pub key: Key,
    pub content: Content,
    pub place: Place,
    /// Its parent when it was last found or added by Merkle: a hint, since that may have left memory, or another node have come between.
    pub above: RecordId,
    /// The epoch in which it was last needed.
    pub last_used: u32,
    /// Operations that ran on it, up to two, each not long after the one before, since it came into memory or was last taken out of Blum.
    pub uses: u8,
    /// The hash in its parent's side is that of its present content.
    pub hash_is_current: bool,
    /// Its content is not what the store has, or will have when the frozen rows are in it.
    pub is_changed: bool,
    /// It is in the list of records to look at when rows are frozen.
    pub(super) is_listed: bool,
    /// The epoch whose checkpoint froze it last, while the store may not have that row; 0 if it has.
    pub(super) frozen_in: u32,
    /// Of a node: the number of records below it, if it is derived from them; else [`STORED`].
    pub records_below: u8,
    /// Of a leaf: another record has its short store key.
    pub has_long_key: bool,
    /// It has a hot marker, as of the last frozen rows.
    pub has_hot_row: bool,
    /// It is in the list of records to look at in the next sweep.
    pub(super) awaits_sweep: bool,
    /// It is in the queue of warm records.
    pub(super) is_warm: bool,
    /// It was needed again since it came into that queue, or was last looked at there.
    pub(super) is_warm_again: bool,
    /// Its place in the list of records that are in Blum or cached, if it is.
    pub(super) known_at: u32,
}

impl Record {
    /// One that is in Merkle, as its row in the store says.
    pub(super) const fn new(key: Key, content: Content) -> Self {
        Self {
            key,
            content,
            place: Place::Merkle,
            above: NO_RECORD,
            last_used: 0,
            uses: 0,
            hash_is_current: false,
            is_changed: false,
            is_listed: false,
            frozen_in: 0,
            records_below: STORED,
            has_long_key: false,
            has_hot_row: false,
            awaits_sweep: false,
            is_warm: false,
            is_warm_again: false,
            known_at: 0,
        }
    }

    /// Its value as the verifier has it.
    pub fn value(&self) -> Result<Value, Error> {
        match &self.content {
            Content::Leaf(leaf) => Ok(Value::Leaf(leaf.commitment)),
            Content::Node(node) => Ok(Value::Node(**node)),
            Content::NotLoaded => Err(Error::Engine("the value of a record is not in memory")),
        }
    }

    /// Whether the store may not have it as it is.
    pub(super) const fn is_held(&self) -> bool {
        self.is_listed || self.frozen_in != 0
    }

    /// What it counts for where memory is divided.
    pub fn bytes_in_memory(&self) -> usize {
        RECORD_OVERHEAD_BYTES
            + match &self.content {
                Content::Leaf(leaf) => leaf.bytes_in_memory(),
                Content::Node(_) => size_of::<Node>(),
                Content::NotLoaded => 0,
            }
    }
}
