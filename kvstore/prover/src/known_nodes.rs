//! At which depths it is worth looking for a node that is in Blum or cached. Without this, the way to each record that is neither would begin
//! with a look at every depth at which there is such a node anywhere, and most of these looks would miss the processor's cache.

use zetakv_verifier::key::{Key, LEAF_DEPTH};

/// Nodes that agree in so many bits are counted together: few of a million. Those that have no more bits are each known by themselves.
const NEIGHBOUR_BITS: u16 = 16;

/// Depths below these bits that are told apart; the last one stands for all that are deeper. With as many counters, neighbours fill one line
/// of the processor's cache.
const DEPTHS: u16 = 16;

/// The first depth that is not told apart from deeper ones.
const DEEPER: u16 = NEIGHBOUR_BITS + DEPTHS;

/// Where nodes are in Blum or cached.
#[derive(Debug)]
pub struct KnownNodes {
    /// Those of at most [`NEIGHBOUR_BITS`] bits, by [`upper_number`].
    upper: Vec<bool>,
    /// The number of deeper ones, by their first bits and their depth.
    lower: Vec<[u32; DEPTHS as usize]>,
}

impl KnownNodes {
    /// None yet.
    pub fn new() -> Self {
        Self {
            upper: vec![false; 2 << NEIGHBOUR_BITS],
            lower: vec![[0; DEPTHS as usize]; 1 << NEIGHBOUR_BITS],
        }
    }

    /// A record has become known. Leaves do not count.
    pub fn add(&mut self, key: &Key) {
        if key.depth() <= NEIGHBOUR_BITS {
            self.upper[upper_number(key, key.depth())] = true;
        } else if key.depth() < LEAF_DEPTH {
            self.lower[neighbours(key)][lower_number(key.depth())] += 1;
        }
    }

    /// A record is not known any more.
    pub fn remove(&mut self, key: &Key) {
        if key.depth() <= NEIGHBOUR_BITS {
            self.upper[upper_number(key, key.depth())] = false;
        } else if key.depth() < LEAF_DEPTH {
            self.lower[neighbours(key)][lower_number(key.depth())] -= 1;
        }
    }

    /// The depths at which a proper ancestor of a key may be known, from the deepest.
    pub fn depths_above(&self, key: &Key) -> impl Iterator<Item = u16> {
        let lower = &self.lower[neighbours(key)];
        let depths_end = if lower[lower_number(DEEPER)] > 0 {
            LEAF_DEPTH
        } else {
            DEEPER
        };
        (1..key.depth().min(depths_end)).rev().filter(move |depth| {
            if *depth <= NEIGHBOUR_BITS {
                self.upper[upper_number(key, *depth)]
            } else {
                lower[lower_number(*depth)] > 0
            }
        })
    }
}

/// The first bits of a key as a number.
fn neighbours(key: &Key) -> usize {
    usize::from(u16::from_be_bytes([key.bits()[0], key.bits()[1]]))
}

/// A number for the node of a depth, up to [`NEIGHBOUR_BITS`], above a key.
fn upper_number(key: &Key, depth: u16) -> usize {
    (1 << depth) + (neighbours(key) >> (NEIGHBOUR_BITS - depth))
}

fn lower_number(depth: u16) -> usize {
    usize::from(depth.min(DEEPER) - NEIGHBOUR_BITS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(depth: u16) -> Key {
        Key::prefix([0b1010_1010; 32], depth)
    }

    fn depths(known: &KnownNodes, key: &Key) -> Vec<u16> {
        known.depths_above(key).collect()
    }

    #[test]
    fn it_is_looked_for_where_there_is_one_or_may_be() {
        let mut known = KnownNodes::new();
        let (leaf, elsewhere) = (Key::leaf([0b1010_1010; 32]), Key::leaf([0; 32]));
        assert_eq!(depths(&known, &leaf), [0; 0]);
        let added = [1, NEIGHBOUR_BITS - 1, NEIGHBOUR_BITS, NEIGHBOUR_BITS + 1, DEEPER - 1];
        added.iter().for_each(|depth| known.add(&node(*depth)));
        known.add(&leaf);
        assert_eq!(depths(&known, &leaf), [31, 17, 16, 15, 1]);
        assert_eq!(depths(&known, &node(17)), [16, 15, 1], "proper ancestors only");
        assert_eq!(depths(&known, &elsewhere), [0; 0], "they are elsewhere");
        known.remove(&node(17));
        known.remove(&node(15));
        known.remove(&leaf);
        assert_eq!(depths(&known, &leaf), [31, 16, 1]);
    }

    #[test]
    fn those_that_are_very_deep_are_looked_for_at_each_depth() {
        let mut known = KnownNodes::new();
        known.add(&node(LEAF_DEPTH - 1));
        let expected: Vec<_> = (DEEPER..LEAF_DEPTH).rev().collect();
        assert_eq!(depths(&known, &Key::leaf([0b1010_1010; 32])), expected);
        known.remove(&node(LEAF_DEPTH - 1));
        assert_eq!(depths(&known, &Key::leaf([0b1010_1010; 32])), [0; 0]);
    }
}
