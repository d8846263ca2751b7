//! Rows of the store: their keys, and how records, Merkle nodes and hot markers are written in them.
//!
//! | store key | row |
//! |---|---|
//! | `r`, first 8 bytes of the key hash; or all 32, where another record has the same 8 | a record: application key, and value |
//! | `n`, path | a Merkle node that is not derived: its two sides, relative to its own path |
//! | `h`, path; or the store key of a record without its `r`, and a zero | empty: this node or record is in Blum since the last cut |
//!
//! A *path* is the whole bytes that hold its bits, then the depth as one byte (from 1 to 255: the root is not stored):
//! nodes near each other in the tree are near each other in the store. Everything read from rows is checked for its form only: whether
//! it is true is for the verifier to find. But rows have small checksums, which tell the host at once which row was changed by hand.

use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::key::{Direction, Key, LEAF_DEPTH};
use zetakv_verifier::value::{Child, Commitment, Hash, Node, Value};

use crate::hash::merkle_hash;
use crate::partitions;

/// First byte of the store keys of records.
pub const RECORD_PREFIX: u8 = b'r';
/// First byte of the store keys of Merkle nodes.
pub const NODE_PREFIX: u8 = b'n';
/// First byte of the store keys of hot markers.
pub const HOT_PREFIX: u8 = b'h';

/// Bits of its hash by which a record is found, unless it shares them with an older one. Nobody meets by chance in them; who takes the
/// trouble to find keys that do gets longer store keys, and is served as all others.
pub const SHORT_KEY_BITS: u16 = 64;
const SHORT_KEY_BYTES: usize = SHORT_KEY_BITS as usize / 8;
const LONG_KEY_BYTES: usize = 32;

/// Last byte of the marker of a record, in place of the depth that follows the path of a node. No marker is that of the root, of depth 0.
const RECORD_MARK: u8 = 0;

/// Kind of a record's row without a value.
const RECORD_NULL: u8 = 0x10;
/// Kind of a record's row with a value.
const RECORD_VALUE: u8 = 0x11;
/// Kind of a node's row, in the upper half of its first byte; the lower half are the flags of its sides.
const NODE_KIND: u8 = 0x20;
/// Flags of a side, two bits each for the left (low) and right side: none, proved by a hash, in Blum.
const SIDE_NONE: u8 = 0;
const SIDE_HASH: u8 = 1;
const SIDE_BLUM: u8 = 2;

/// The store key of the record of an application key.
pub fn store_key_of(application_key: &[u8]) -> Vec<u8> {
    record_key(&leaf_of(application_key), false)
}

/// The leaf of an application key.
pub fn leaf_of(application_key: &[u8]) -> Key {
    Key::leaf(*blake3::hash(application_key).as_bytes())
}

/// The store key of a record, or the long one of it.
pub fn record_key(leaf: &Key, is_long: bool) -> Vec<u8> {
    hash_key(
        RECORD_PREFIX,
        &leaf.bits()[..if is_long { LONG_KEY_BYTES } else { SHORT_KEY_BYTES }],
    )
}

fn hash_key(prefix: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + bytes.len());
    out.push(prefix);
    out.extend_from_slice(bytes);
    out
}

/// The store key of a node.
pub fn node_key(node: &Key) -> Vec<u8> {
    path_key(NODE_PREFIX, node)
}

/// The first and the past-the-last store key of the records below a node; where they share more than [`SHORT_KEY_BITS`], of all that do.
pub fn records_range(node: &Key) -> (Vec<u8>, Vec<u8>) {
    let first = hash_key(RECORD_PREFIX, &node.bits()[..SHORT_KEY_BYTES]);
    let mut last = first.clone();
    for bit in node.depth()..SHORT_KEY_BITS {
        last[1 + usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }
    // the next prefix: what is longer, and begins with the last, is before it; rows of other kinds are not
    while last.pop_if(|byte| *byte == u8::MAX).is_some() {}
    if let Some(byte) = last.last_mut() {
        *byte += 1;
    }
    (first, last)
}

/// First and past-the-last store key.
pub type StoreRange = (Vec<u8>, Vec<u8>);

/// Of a base key, which may be a leaf's, the store key of its node's row, and the range of the records at or below it. None if there is no
/// such depth.
pub fn rows_below(bits: [u8; 32], depth: u16) -> Option<(Option<Vec<u8>>, StoreRange)> {
    let key = (depth <= LEAF_DEPTH).then(|| Key::prefix(bits, depth))?;
    Some(((depth < LEAF_DEPTH).then(|| node_key(&key)), records_range(&key)))
}

/// The store key of the marker of a record or node that is in Blum. `is_long`: the record has its long store key.
pub fn hot_key(key: &Key, is_long: bool) -> Vec<u8> {
    if key.depth() < LEAF_DEPTH {
        return path_key(HOT_PREFIX, key);
    }
    let mut out = record_key(key, is_long);
    out[0] = HOT_PREFIX;
    out.push(RECORD_MARK);
    out
}

fn path_key(prefix: u8, key: &Key) -> Vec<u8> {
    let bytes = path_bytes(key.depth());
    let mut out = Vec::with_capacity(bytes + 2);
    out.push(prefix);
    out.extend_from_slice(&key.bits()[..bytes]);
    out.push(key.depth() as u8); // a node's is below 256
    out
}

fn path_bytes(depth: u16) -> usize {
    usize::from(depth.div_ceil(8))
}

/// What a hot marker's store key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marked {
    /// A node.
    Node(Key),
    /// The record that has this store key.
    Record(Vec<u8>),
}

/// What a hot marker's store key names.
pub fn decode_hot_key(store_key: &[u8]) -> Result<Marked, Malformed> {
    let [HOT_PREFIX, hash @ .., RECORD_MARK] = store_key else {
        return decode_node_path(HOT_PREFIX, store_key).map(Marked::Node);
    };
    match hash.len() {
        SHORT_KEY_BYTES | LONG_KEY_BYTES => Ok(Marked::Record(hash_key(RECORD_PREFIX, hash))),
        _ => Err(Malformed),
    }
}

/// The node that the store key of its row names.
pub fn decode_node_key(store_key: &[u8]) -> Result<Key, Malformed> {
    decode_node_path(NODE_PREFIX, store_key)
}

fn decode_node_path(prefix: u8, store_key: &[u8]) -> Result<Key, Malformed> {
    let [first, path @ .., depth] = store_key else {
        return Err(Malformed);
    };
    let depth = u16::from(*depth);
    if *first != prefix || depth == 0 || path.len() != path_bytes(depth) {
        return Err(Malformed);
    }
    let mut bits = [0; 32];
    bits[..path.len()].copy_from_slice(path);
    let key = Key::prefix(bits, depth);
    if key.bits() == &bits { Ok(key) } else { Err(Malformed) }
}

/// The first and the past-the-last store key of the hot markers of a thread's partitions.
pub fn hot_range(thread: ThreadId, threads: u16) -> (Vec<u8>, Vec<u8>) {
    let bound = |partition: u16| match u8::try_from(partition << (8 - partitions::DEPTH)) {
        Ok(byte) => vec![HOT_PREFIX, byte],
        Err(_) => vec![HOT_PREFIX + 1], // past the last partition
    };
    let own = partitions::of_thread(thread, threads);
    (bound(own.start), bound(own.end))
}

/// First bytes of the Merkle hash of what a row holds.
pub type Checksum = [u8; 4];

/// The checksum of a row that holds this.
pub fn checksum(value: &Value) -> Checksum {
    checksum_of(&merkle_hash(value))
}

/// The checksum of a row that holds what has this Merkle hash.
pub const fn checksum_of(hash: &Hash) -> Checksum {
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The row of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRow<'a> {
    /// The application's key.
    pub application_key: &'a [u8],
    /// The value; None for null.
    pub value: Option<&'a [u8]>,
    /// Of the value's commitment, when the row was written.
    pub checksum: Checksum,
}

impl<'a> RecordRow<'a> {
    /// A row with a true checksum.
    pub fn new(application_key: &'a [u8], value: Option<&'a [u8]>) -> Self {
        Self::committed(application_key, value, &value.map_or(Commitment::Null, Commitment::of))
    }

    /// The same, where the value's commitment is known.
    pub fn committed(application_key: &'a [u8], value: Option<&'a [u8]>, commitment: &Commitment) -> Self {
        Self {
            application_key,
            value,
            checksum: checksum(&Value::Leaf(*commitment)),
        }
    }

    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.value.is_some() {
            RECORD_VALUE
        } else {
            RECORD_NULL
        });
        out.extend_from_slice(&self.checksum);
        out.extend_from_slice(&(self.application_key.len() as u16).to_le_bytes()); // keys are bounded below 64 KiB
        out.extend_from_slice(self.application_key);
        out.extend_from_slice(self.value.unwrap_or_default());
    }

    /// Take it apart. The checksum is not checked.
    pub fn decode(row: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(row);
        let kind = reader.u8()?;
        let checksum = *reader.array()?;
        let length = usize::from(reader.u16()?);
        let application_key = reader.take(length)?;
        let value = match kind {
            RECORD_VALUE => Some(reader.rest()),
            RECORD_NULL => reader.end().map(|()| None)?,
            _ => return Err(Malformed),
        };
        Ok(Self {
            application_key,
            value,
            checksum,
        })
    }
}

/// Append the row of a node.
pub fn encode_node(key: &Key, node: &Node, out: &mut Vec<u8>) {
    let flags = node.sides.each_ref().map(|side| match side {
        None => SIDE_NONE,
        Some(child) if child.hash.is_some() => SIDE_HASH,
        Some(_) => SIDE_BLUM,
    });
    out.push(NODE_KIND | flags[0] | flags[1] << 2);
    out.extend_from_slice(&checksum(&Value::Node(*node)));
    let shared = usize::from(key.depth() / 8);
    for child in node.sides.iter().flatten() {
        out.push(child.key.depth() as u8); // a leaf's 256 wraps to 0 on purpose
        out.extend_from_slice(&child.key.bits()[shared..path_bytes(child.key.depth())]);
        out.extend_from_slice(child.hash.as_ref().map_or(&[], Hash::as_slice));
    }
}

/// The value of a node from its row, and its checksum. Its sides are below it, each in its direction.
pub fn decode_node(key: &Key, row: &[u8]) -> Result<(Node, Checksum), Malformed> {
    let mut reader = Reader::new(row);
    let flags = reader.u8()?;
    if flags & 0xf0 != NODE_KIND {
        return Err(Malformed);
    }
    let checksum = *reader.array()?;
    let mut node = Node::default();
    for (direction, flag) in [(Direction::Left, flags & 3), (Direction::Right, flags >> 2 & 3)] {
        if flag != SIDE_NONE {
            node.set_side(direction, decode_side(key, direction, flag, &mut reader)?);
        }
    }
    reader.end()?;
    Ok((node, checksum))
}

fn decode_side(key: &Key, direction: Direction, flag: u8, reader: &mut Reader<'_>) -> Result<Child, Malformed> {
    let depth = match reader.u8()? {
        0 => LEAF_DEPTH,
        depth => u16::from(depth),
    };
    let shared = usize::from(key.depth() / 8);
    let mut bits = *key.bits();
    let own = bits.get_mut(shared..path_bytes(depth)).ok_or(Malformed)?;
    own.copy_from_slice(reader.take(own.len())?);
    let child = Key::prefix(bits, depth);
    if child.bits() != &bits || key.direction_to(&child) != Some(direction) {
        return Err(Malformed);
    }
    let hash = match flag {
        SIDE_HASH => Some(*reader.array()?),
        SIDE_BLUM => None,
        _ => return Err(Malformed),
    };
    Ok(Child { key: child, hash })
}

/// Append one row of a checkpoint (None: delete it).
pub fn pack_row(store_key: &[u8], row: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(&(store_key.len() as u32).to_le_bytes()); // store keys have at most 34 bytes
    out.extend_from_slice(store_key);
    match row {
        Some(row) => {
            out.extend_from_slice(&(row.len() as u32).to_le_bytes()); // rows are bounded far below 4 GiB
            out.extend_from_slice(row);
        }
        None => out.extend_from_slice(&u32::MAX.to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        for value in [None, Some(&b""[..]), Some(&[7; 100][..])] {
            let record = RecordRow::new(b"key", value);
            let mut row = Vec::new();
            record.encode(&mut row);
            assert_eq!(RecordRow::decode(&row), Ok(record));
        }
        assert_eq!(RecordRow::decode(&[RECORD_NULL, 0, 0, 0, 0, 0, 0, 1]), Err(Malformed));
        assert_eq!(RecordRow::decode(&[RECORD_VALUE, 0, 0, 0, 0, 2, 0, 1]), Err(Malformed));
    }

    #[test]
    fn ranges_hold_the_records_below() {
        for (depth, bits) in [
            (6, [0xff; 32]),
            (7, [0; 32]),
            (64, [0xff; 32]),
            (64, [7; 32]),
            (200, [7; 32]),
        ] {
            let node = Key::prefix(bits, depth);
            let (first, end) = records_range(&node);
            assert!(
                end.as_slice() <= [RECORD_PREFIX + 1].as_slice(),
                "other rows are not in it"
            );
            for byte in [0, 0xff] {
                let mut below = *node.bits();
                for bit in depth..256 {
                    below[usize::from(bit / 8)] |= byte & 0x80 >> (bit % 8);
                }
                for is_long in [false, true] {
                    let store_key = record_key(&Key::leaf(below), is_long);
                    assert!(first <= store_key && store_key < end, "depth {depth}");
                }
            }
            let mut other = bits;
            other[usize::from((depth - 1).min(63) / 8)] ^= 0x80 >> ((depth - 1).min(63) % 8);
            let store_key = record_key(&Key::leaf(other), true);
            assert!(store_key < first || store_key >= end, "depth {depth}");
        }
    }

    #[test]
    fn nodes_round_trip_at_all_depths() {
        let mut leaf_left = [0x55; 32];
        for depth in [0, 1, 6, 7, 8, 9, 15, 16, 100, 254, 255] {
            let key = Key::prefix(leaf_left, depth);
            leaf_left[usize::from(depth / 8)] &= !(0x80 >> (depth % 8));
            let mut leaf_right = leaf_left;
            leaf_right[usize::from(depth / 8)] |= 0x80 >> (depth % 8);
            let node = Node {
                sides: [
                    Some(Child {
                        key: Key::leaf(leaf_left),
                        hash: None,
                    }),
                    Some(Child {
                        key: Key::prefix(leaf_right, depth + 1),
                        hash: (depth % 2 == 0).then_some([9; 32]),
                    }),
                ],
            };
            let mut row = Vec::new();
            encode_node(&key, &node, &mut row);
            assert_eq!(
                decode_node(&key, &row),
                Ok((node, checksum(&Value::Node(node)))),
                "depth {depth}"
            );
            row.push(0);
            assert_eq!(decode_node(&key, &row), Err(Malformed));
        }
    }

    #[test]
    fn node_rows_with_sides_elsewhere_are_refused() {
        let key = Key::prefix([0; 32], 6);
        let mut swapped = Vec::new();
        let mut bits = [0; 32];
        bits[0] = 0b10;
        let node = Node {
            sides: [
                Some(Child {
                    key: Key::leaf(bits),
                    hash: Some([1; 32]),
                }),
                None,
            ],
        };
        encode_node(&key, &node, &mut swapped);
        assert_eq!(decode_node(&key, &swapped), Err(Malformed));
    }

    #[test]
    fn hot_keys_round_trip_in_range() {
        let node = |bits, depth| {
            let key = Key::prefix(bits, depth);
            (key, hot_key(&key, false), Marked::Node(key))
        };
        let record = |bits, is_long| {
            let key = Key::leaf(bits);
            (key, hot_key(&key, is_long), Marked::Record(record_key(&key, is_long)))
        };
        for (key, store_key, marked) in [
            node([0xff; 32], 6),
            node([0x40; 32], 17),
            node([1; 32], 255),
            record([0xa5; 32], false),
            record([0; 32], true),
        ] {
            assert_eq!(decode_hot_key(&store_key), Ok(marked));
            for threads in [1, 2, 16, 64] {
                let own = (0..threads).filter(|thread| {
                    let (first, end) = hot_range(*thread, threads);
                    first <= store_key && store_key < end
                });
                assert_eq!(own.collect::<Vec<_>>(), [partitions::thread_of(&key, threads)]);
            }
        }
    }

    #[test]
    fn garbled_hot_keys_are_refused() {
        for store_key in [
            &b"h"[..],
            b"h\0",
            b"r\xa5\x06",
            b"h\xa5\x06",
            b"h\xa4\xa4\x06",
            b"h1234567\0",
            b"h123456789\0",
        ] {
            assert_eq!(decode_hot_key(store_key), Err(Malformed), "{store_key:?}");
        }
    }
}
