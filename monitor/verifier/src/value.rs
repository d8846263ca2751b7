//! Values of records: commitments in leaves, sides in internal nodes, and their canonical encoding.
//!
//! Invariant: each value has exactly one encoding, and the first byte tells how the rest is read, so that hashing an encoding is
//! hashing the value.

use crate::codec::{Malformed, Reader, Sink};
use crate::key::{Direction, Key};

/// A collision-resistant hash.
pub type Hash = [u8; 32];

/// The longest value that is carried in its commitment.
pub const INLINE_BYTES_MAX: usize = 32;

/// Fixed-size stand-in for an application's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commitment {
    /// No value: never written, or deleted.
    Null,
    /// The value itself.
    Inline(Inline),
    /// A longer value: its length in bytes and its BLAKE3-256.
    Digest(u32, Hash),
}

/// A value of at most [`INLINE_BYTES_MAX`] bytes. The bytes from `length` on are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inline {
    length: u8,
    bytes: [u8; INLINE_BYTES_MAX],
}

impl Inline {
    /// `None` if the value is longer than [`INLINE_BYTES_MAX`].
    pub fn new(value: &[u8]) -> Option<Self> {
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(Self {
            length: value.len() as u8, // at most 32, or get_mut had failed
            bytes,
        })
    }

    /// The value.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The value, padded with zeros.
    pub const fn padded(&self) -> &[u8; INLINE_BYTES_MAX] {
        &self.bytes
    }
}

impl Commitment {
    /// Bytes of the longest encoding.
    pub const ENCODED_BYTES_MAX: usize = 37;

    /// The commitment of a value.
    ///
    /// # Panics
    /// If the value is 4 GiB or longer; callers bound it far below.
    pub fn of(value: &[u8]) -> Self {
        Inline::new(value).map_or_else(
            || {
                let length = u32::try_from(value.len()).expect("values are bounded far below 4 GiB");
                Self::Digest(length, *blake3::hash(value).as_bytes())
            },
            Self::Inline,
        )
    }

    /// Whether there is no value.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Read an encoded commitment; one that is not canonical is malformed.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let tag = reader.u8()?;
        Self::decode_after(tag, reader)
    }

    fn decode_after(tag: u8, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match tag {
            0 => Ok(Self::Null),
            1 => {
                let length = usize::from(reader.u8()?);
                let value = reader.take(length)?;
                Inline::new(value).map(Self::Inline).ok_or(Malformed)
            }
            2 => {
                let length = reader.u32()?;
                if length as usize <= INLINE_BYTES_MAX {
                    return Err(Malformed);
                }
                Ok(Self::Digest(length, *reader.array()?))
            }
            _ => Err(Malformed),
        }
    }

    /// Append the encoding.
    pub fn encode(&self, out: &mut impl Sink) {
        match self {
            Self::Null => out.put(&[0]),
            Self::Inline(inline) => {
                out.put(&[1, inline.length]);
                out.put(inline.as_slice());
            }
            Self::Digest(length, hash) => {
                out.put(&[2]);
                out.put(&length.to_le_bytes());
                out.put(hash);
            }
        }
    }
}

/// What an internal node knows of the nearest record below it on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// The record's key.
    pub key: Key,
    /// Hash of its value when it was last evicted to Merkle, or [`NO_HASH`] before. None: it was evicted to Blum, so no hash is its own.
    pub hash: Option<Hash>,
}

/// The hash of a record that was never evicted to Merkle: no value has it, but for a preimage of zero.
pub const NO_HASH: Hash = [0; 32];

/// The value of an internal node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The children, left and right.
    pub sides: [Option<Child>; 2],
}

impl Node {
    /// The child in a direction.
    pub const fn side(&self, direction: Direction) -> Option<&Child> {
        self.sides[direction as usize].as_ref()
    }

    /// Replace the child in a direction.
    pub const fn set_side(&mut self, direction: Direction, child: Child) {
        self.sides[direction as usize] = Some(child);
    }
}

/// The value of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a leaf.
    Leaf(Commitment),
    /// Of an internal node.
    Node(Node),
}

impl Value {
    /// Bytes of the longest encoding: a node's with two children.
    pub const ENCODED_BYTES_MAX: usize = 1 + 2 * (1 + Key::ENCODED_BYTES + 32);

    /// What a record of this key holds before anything was written: null, or no children.
    pub fn initial(is_leaf: bool) -> Self {
        if is_leaf {
            Self::Leaf(Commitment::Null)
        } else {
            Self::Node(Node::default())
        }
    }

    /// Whether nothing was ever written to it.
    pub fn is_initial(&self) -> bool {
        match self {
            Self::Leaf(commitment) => commitment.is_null(),
            Self::Node(node) => *node == Node::default(),
        }
    }

    /// Whether it is a leaf's.
    pub const fn is_leaf(&self) -> bool {
        matches!(self, Self::Leaf(_))
    }

    /// Read an encoded value.
    #[inline]
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u8()? {
            3 => Ok(Self::Node(Node {
                sides: [decode_side(reader)?, decode_side(reader)?],
            })),
            tag => Commitment::decode_after(tag, reader).map(Self::Leaf),
        }
    }

    /// Append the encoding.
    pub fn encode(&self, out: &mut impl Sink) {
        match self {
            Self::Leaf(commitment) => commitment.encode(out),
            Self::Node(node) => {
                out.put(&[3]);
                for side in &node.sides {
                    encode_side(side.as_ref(), out);
                }
            }
        }
    }
}

fn decode_side(reader: &mut Reader<'_>) -> Result<Option<Child>, Malformed> {
    let has_hash = match reader.u8()? {
        0 => return Ok(None),
        1 => true,
        2 => false,
        _ => return Err(Malformed),
    };
    let key = Key::decode(reader)?;
    let hash = if has_hash { Some(*reader.array()?) } else { None };
    Ok(Some(Child { key, hash }))
}

fn encode_side(side: Option<&Child>, out: &mut impl Sink) {
    match side {
        None => out.put(&[0]),
        Some(child) => {
            out.put(&[if child.hash.is_some() { 1 } else { 2 }]);
            out.put(&child.key.encode());
            out.put(child.hash.as_ref().map_or(&[], Hash::as_slice));
        }
    }
}
