//! Rows of the store: their keys, and how records, Merkle nodes and hot markers are written in them.
//!
//! | store key | row |
//! |---|---|
//! | `r`, key hash | a record: application key and value |
//! | `n`, path | a Merkle node: its two sides, relative to its own path |
//! | `h`, path | empty: this record or node is in Blum since the last cut |
//!
//! A *path* is the whole bytes that hold its bits, then the depth as one byte (a leaf's 256 is written as 0, which no stored node has):
//! nodes near each other in the tree are near each other in the store. Everything read from rows is checked for its form only: whether
//! it is true is for the verifier to find.

use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::key::{Direction, Key, LEAF_DEPTH};
use zetakv_verifier::value::{Child, Hash, Node};

use crate::partitions;

/// First byte of the store keys of records.
pub const RECORD_PREFIX: u8 = b'r';
/// First byte of the store keys of Merkle nodes.
pub const NODE_PREFIX: u8 = b'n';
/// First byte of the store keys of hot markers.
pub const HOT_PREFIX: u8 = b'h';

/// Version and kind of a record's row without a value.
const RECORD_NULL: u8 = 0x10;
/// Version and kind of a record's row with a value.
const RECORD_VALUE: u8 = 0x11;
/// Version of a node's row, in the upper half of its first byte; the lower half are the flags of its sides.
const NODE_VERSION: u8 = 0x20;
/// Flags of a side, two bits each for the left (low) and right side: none, proved by a hash, in Blum.
const SIDE_NONE: u8 = 0;
const SIDE_HASH: u8 = 1;
const SIDE_BLUM: u8 = 2;

/// The store key of the record of an application key.
pub fn store_key_of(application_key: &[u8]) -> Vec<u8> {
    value_key(&Key::leaf(*blake3::hash(application_key).as_bytes()))
}

/// The store key of the row with a record's or node's value.
pub fn value_key(key: &Key) -> Vec<u8> {
    if key.depth() == LEAF_DEPTH {
        let mut out = Vec::with_capacity(33);
        out.push(RECORD_PREFIX);
        out.extend_from_slice(key.bits());
        out
    } else {
        path_key(NODE_PREFIX, key)
    }
}

/// The store key of the marker of a record or node that is in Blum.
pub fn hot_key(key: &Key) -> Vec<u8> {
    path_key(HOT_PREFIX, key)
}

fn path_key(prefix: u8, key: &Key) -> Vec<u8> {
    let bytes = path_bytes(key.depth());
    let mut out = Vec::with_capacity(bytes + 2);
    out.push(prefix);
    out.extend_from_slice(&key.bits()[..bytes]);
    out.push(key.depth() as u8); // 256 wraps to 0 on purpose
    out
}

fn path_bytes(depth: u16) -> usize {
    usize::from(depth.div_ceil(8))
}

/// The record or node that a hot marker's store key names.
pub fn decode_hot_key(store_key: &[u8]) -> Result<Key, Malformed> {
    let mut reader = Reader::new(store_key);
    if reader.u8()? != HOT_PREFIX {
        return Err(Malformed);
    }
    let (depth, path) = reader.rest().split_last().ok_or(Malformed)?;
    let depth = if *depth == 0 { LEAF_DEPTH } else { u16::from(*depth) };
    decode_path(&mut Reader::new(path), depth, path.len())
}

fn decode_path(reader: &mut Reader<'_>, depth: u16, available: usize) -> Result<Key, Malformed> {
    let bytes = path_bytes(depth);
    if available != bytes {
        return Err(Malformed);
    }
    let mut bits = [0; 32];
    bits[..bytes].copy_from_slice(reader.take(bytes)?);
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

/// Append the row of a record.
pub fn encode_record(application_key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.push(if value.is_some() { RECORD_VALUE } else { RECORD_NULL });
    out.extend_from_slice(&(application_key.len() as u16).to_le_bytes()); // keys are bounded below 64 KiB
    out.extend_from_slice(application_key);
    out.extend_from_slice(value.unwrap_or_default());
}

/// The application key and the value (None for null) of a record's row.
pub fn decode_record(row: &[u8]) -> Result<(&[u8], Option<&[u8]>), Malformed> {
    let mut reader = Reader::new(row);
    let kind = reader.u8()?;
    let length = usize::from(reader.u16()?);
    let application_key = reader.take(length)?;
    match kind {
        RECORD_VALUE => Ok((application_key, Some(reader.rest()))),
        RECORD_NULL => reader.end().map(|()| (application_key, None)),
        _ => Err(Malformed),
    }
}

/// Append the row of a node.
pub fn encode_node(key: &Key, node: &Node, out: &mut Vec<u8>) {
    let flags = node.sides.each_ref().map(|side| match side {
        None => SIDE_NONE,
        Some(child) if child.hash.is_some() => SIDE_HASH,
        Some(_) => SIDE_BLUM,
    });
    out.push(NODE_VERSION | flags[0] | flags[1] << 2);
    let shared = usize::from(key.depth() / 8);
    for child in node.sides.iter().flatten() {
        out.push(child.key.depth() as u8); // a leaf's 256 wraps to 0 on purpose
        out.extend_from_slice(&child.key.bits()[shared..path_bytes(child.key.depth())]);
        out.extend_from_slice(child.hash.as_ref().map_or(&[], Hash::as_slice));
    }
}

/// The value of a node from its row. Its sides are below it, each in its direction.
pub fn decode_node(key: &Key, row: &[u8]) -> Result<Node, Malformed> {
    let mut reader = Reader::new(row);
    let flags = reader.u8()?;
    if flags & 0xf0 != NODE_VERSION {
        return Err(Malformed);
    }
    let mut node = Node::default();
    for (direction, flag) in [(Direction::Left, flags & 3), (Direction::Right, flags >> 2 & 3)] {
        if flag != SIDE_NONE {
            node.set_side(direction, decode_side(key, direction, flag, &mut reader)?);
        }
    }
    reader.end()?;
    Ok(node)
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
            let mut row = Vec::new();
            encode_record(b"key", value, &mut row);
            assert_eq!(decode_record(&row), Ok((&b"key"[..], value)));
        }
        assert_eq!(decode_record(&[RECORD_NULL, 0, 0, 1]), Err(Malformed));
        assert_eq!(decode_record(&[RECORD_VALUE, 2, 0, 1]), Err(Malformed));
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
            assert_eq!(decode_node(&key, &row), Ok(node), "depth {depth}");
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
        for (bits, depth) in [([0xff; 32], 6), ([0x40; 32], 17), ([0xa5; 32], 256), ([1; 32], 255)] {
            let key = Key::prefix(bits, depth);
            let store_key = hot_key(&key);
            assert_eq!(decode_hot_key(&store_key), Ok(key));
            for threads in [1, 2, 16, 64] {
                let own = (0..threads).filter(|thread| {
                    let (first, end) = hot_range(*thread, threads);
                    first <= store_key && store_key < end
                });
                assert_eq!(own.collect::<Vec<_>>(), [partitions::thread_of(&key, threads)]);
            }
        }
    }
}
