//! Base keys: paths in the binary tree of all records, and the two orders that the protocol needs.
//!
//! Invariant: the bits from `depth` on are zero, so that equal paths are equal values.

use core::cmp::Ordering;

use crate::codec::{Malformed, Reader};

/// Depth of a leaf: one level for each bit of a key hash.
pub const LEAF_DEPTH: u16 = 256;

/// BLAKE3-256 of an application key: the path of its leaf.
pub type KeyHash = [u8; 32];

/// A node of the tree, named by the path to it from the root.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    bits: [u8; 32],
    depth: u16,
}

/// Which child of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The next bit of the path is 0.
    Left = 0,
    /// The next bit of the path is 1.
    Right = 1,
}

impl Key {
    /// The root of the tree.
    pub const ROOT: Self = Self {
        bits: [0; 32],
        depth: 0,
    };

    /// Bytes of an encoded key.
    pub const ENCODED_BYTES: usize = 34;

    /// The leaf of a key hash.
    pub const fn leaf(hash: KeyHash) -> Self {
        Self {
            bits: hash,
            depth: LEAF_DEPTH,
        }
    }

    /// The first `depth` bits of `bits`, of which later ones are dropped; depths beyond a leaf's are cut to it.
    pub fn prefix(bits: [u8; 32], depth: u16) -> Self {
        let depth = depth.min(LEAF_DEPTH);
        let mut bits = bits;
        for (index, word) in bits.as_chunks_mut().0.iter_mut().enumerate() {
            *word = (u64::from_be_bytes(*word) & kept_mask(index, depth)).to_be_bytes();
        }
        Self { bits, depth }
    }

    /// The path, most significant bit of byte 0 first.
    pub const fn bits(&self) -> &[u8; 32] {
        &self.bits
    }

    /// Length of the path in bits.
    pub const fn depth(&self) -> u16 {
        self.depth
    }

    /// Whether this is the root.
    pub const fn is_root(&self) -> bool {
        self.depth == 0
    }

    /// Whether `self` lies on the path to `other`, strictly above it.
    pub fn is_proper_ancestor_of(&self, other: &Self) -> bool {
        self.depth < other.depth && self.common_bits(other) >= self.depth
    }

    /// The child of `self` under which `descendant` lies; `None` unless `self` is a proper ancestor of it.
    pub fn direction_to(&self, descendant: &Self) -> Option<Direction> {
        if !self.is_proper_ancestor_of(descendant) {
            return None;
        }
        let byte = descendant.bits[usize::from(self.depth / 8)];
        Some(if byte >> (7 - self.depth % 8) & 1 == 0 {
            Direction::Left
        } else {
            Direction::Right
        })
    }

    /// The deepest key that is an ancestor of both, or one of them.
    pub fn common_prefix(&self, other: &Self) -> Self {
        let limit = self.depth.min(other.depth);
        Self::prefix(self.bits, limit.min(self.common_bits(other)))
    }

    /// How many bits are equal from the start, those beyond the depths (which are zero) included.
    fn common_bits(&self, other: &Self) -> u16 {
        let mut equal = 0;
        for (a, b) in self.words().zip(other.words()) {
            if a != b {
                return equal + (a ^ b).leading_zeros() as u16; // at most 63
            }
            equal += 64;
        }
        equal
    }

    /// The path in words, of which the most significant bit is the first.
    fn words(&self) -> impl Iterator<Item = u64> {
        self.bits.as_chunks().0.iter().map(|word| u64::from_be_bytes(*word))
    }

    /// Post-order: descendants before their ancestors, otherwise from left to right.
    ///
    /// A strict total order on keys: paths padded with ones are compared, and of equal ones the deeper comes first. One timestamp can
    /// therefore serve for evicting a whole subtree, each record before its ancestors.
    pub fn cmp_post_order(&self, other: &Self) -> Ordering {
        for (index, (a, b)) in self.words().zip(other.words()).enumerate() {
            let a = a | !kept_mask(index, self.depth);
            let b = b | !kept_mask(index, other.depth);
            match a.cmp(&b) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        other.depth.cmp(&self.depth)
    }

    /// Read an encoded key, and refuse one with set bits beyond its depth.
    #[inline]
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let depth = reader.u16()?;
        let bits = *reader.array::<32>()?;
        let key = Self::prefix(bits, depth);
        if depth > LEAF_DEPTH || key.bits != bits {
            return Err(Malformed);
        }
        Ok(key)
    }

    /// The encoded key: depth, then path.
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut out = [0; Self::ENCODED_BYTES];
        out[..2].copy_from_slice(&self.depth.to_le_bytes());
        out[2..].copy_from_slice(&self.bits);
        out
    }
}

/// The bits of word `index` that belong to a path of `depth` bits.
fn kept_mask(index: usize, depth: u16) -> u64 {
    let kept = u32::from(depth).saturating_sub(index as u32 * 64); // index < 4
    if kept >= 64 { u64::MAX } else { !(u64::MAX >> kept) }
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/", self.depth)?;
        for byte in &self.bits[..usize::from(self.depth.div_ceil(8))] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        let mut bits = [0; 32];
        for (i, bit) in path.bytes().enumerate() {
            bits[i / 8] |= (bit - b'0') << (7 - i % 8);
        }
        Key::prefix(bits, path.len() as u16)
    }

    #[test]
    fn prefixes_drop_later_bits() {
        assert_eq!(Key::prefix([0xff; 32], 3), key("111"));
        assert_eq!(Key::prefix([0xff; 32], 0), Key::ROOT);
    }

    #[test]
    fn keys_are_printed_by_their_depth_and_path() {
        assert_eq!(std::format!("{:?}", key("101")), "3/a0");
    }

    #[test]
    fn ancestry_and_direction() {
        assert!(key("10").is_proper_ancestor_of(&key("101")));
        assert!(!key("10").is_proper_ancestor_of(&key("10")));
        assert!(!key("10").is_proper_ancestor_of(&key("110")));
        assert_eq!(key("10").direction_to(&key("1010")), Some(Direction::Right));
        assert_eq!(Key::ROOT.direction_to(&key("0")), Some(Direction::Left));
        assert_eq!(key("10").direction_to(&key("11")), None);
    }

    #[test]
    fn common_prefix_is_deepest() {
        assert_eq!(key("10110").common_prefix(&key("10011")), key("10"));
        assert_eq!(key("101").common_prefix(&key("10")), key("10"));
        assert_eq!(
            Key::leaf([7; 32]).common_prefix(&Key::leaf([7; 32])),
            Key::leaf([7; 32])
        );
    }

    #[test]
    fn post_order_puts_descendants_first() {
        let sorted = ["00", "01", "0", "1000000001", "100", "10", "11", "1", ""];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(key(a).cmp_post_order(&key(b)), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn decoding_refuses_bits_beyond_the_depth() {
        let mut bytes = key("101").encode();
        assert_eq!(Key::decode(&mut Reader::new(&bytes)), Ok(key("101")));
        bytes[2] |= 1;
        assert_eq!(Key::decode(&mut Reader::new(&bytes)), Err(Malformed));
        let mut deep = Key::leaf([1; 32]).encode();
        deep[..2].copy_from_slice(&257u16.to_le_bytes());
        assert_eq!(Key::decode(&mut Reader::new(&deep)), Err(Malformed));
    }

    #[test]
    fn a_leaf_is_the_deepest_key() {
        let leaf = Key::leaf([1; 32]);
        assert_eq!(leaf.depth(), LEAF_DEPTH);
        assert_eq!(Key::decode(&mut Reader::new(&leaf.encode())), Ok(leaf));
    }
}
