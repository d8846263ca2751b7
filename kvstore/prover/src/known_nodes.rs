//! How deep it is worth looking for a node that is in Blum or cached. Without this, the way to each record that is neither would begin with
//! a look at every depth at which there is such a node anywhere, and most of these looks would miss the processor's cache.

use zetakv_verifier::key::{Key, LEAF_DEPTH};

/// Nodes that agree in so many bits are counted as neighbours: few of a million, in a table that the processor's cache can hold.
const NEIGHBOUR_BITS: u16 = 16;

/// Where nodes are in Blum or cached.
#[derive(Debug)]
pub struct KnownNodes {
    /// Their number, by depth.
    by_depth: [u32; LEAF_DEPTH as usize],
    /// The depth of the deepest that there has been, by their first bits. Those above these bits do not count.
    deepest: Vec<u8>,
}

impl KnownNodes {
    /// None yet.
    pub fn new() -> Self {
        Self {
            by_depth: [0; LEAF_DEPTH as usize],
            deepest: vec![NEIGHBOUR_BITS as u8; 1 << NEIGHBOUR_BITS],
        }
    }

    /// A record has become known. Leaves do not count.
    pub fn add(&mut self, key: &Key) {
        let Some(count) = self.by_depth.get_mut(usize::from(key.depth())) else {
            return;
        };
        *count += 1;
        if key.depth() > NEIGHBOUR_BITS {
            let deepest = &mut self.deepest[neighbours(key)];
            *deepest = (*deepest).max(key.depth() as u8); // a node's depth is below 256
        }
    }

    /// A record is not known any more.
    pub fn remove(&mut self, key: &Key) {
        if let Some(count) = self.by_depth.get_mut(usize::from(key.depth())) {
            *count -= 1;
        }
    }

    /// The depths at which a proper ancestor of a key may be known, from the deepest.
    pub fn depths_above(&self, key: &Key) -> impl Iterator<Item = u16> {
        let deepest = u16::from(self.deepest[neighbours(key)]);
        (1..key.depth().min(deepest + 1))
            .rev()
            .filter(|depth| self.by_depth[usize::from(*depth)] > 0)
    }
}

fn neighbours(key: &Key) -> usize {
    usize::from(u16::from_be_bytes([key.bits()[0], key.bits()[1]]))
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
        for depth in [
            1,
            NEIGHBOUR_BITS - 1,
            NEIGHBOUR_BITS,
            NEIGHBOUR_BITS + 1,
            LEAF_DEPTH - 1,
        ] {
            known.add(&node(depth));
        }
        known.add(&leaf);
        assert_eq!(depths(&known, &leaf), [255, 17, 16, 15, 1]);
        assert_eq!(depths(&known, &node(17)), [16, 15, 1], "proper ancestors only");
        assert_eq!(depths(&known, &elsewhere), [16, 15, 1], "deep ones are elsewhere");
        known.remove(&node(255));
        known.remove(&leaf);
        assert_eq!(depths(&known, &leaf), [17, 16, 15, 1]);
    }
}
