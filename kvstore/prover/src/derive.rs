//! Nodes that are not stored: below them are at most [`SUBTREE_RECORDS_MAX`] records, and their values are derived from the rows of these.
//!
//! A tree of compressed paths over a set of leaves is canonical, and a side holds either the hash of what is below, or nothing, where that
//! is in Blum. So a node's value is known from the records below it, and from what of them is in Blum. Two things make it exact:
//!
//! - *A node that is not in memory has not changed since the rows that the store has.* Nodes of small subtrees are never in Blum, so
//!   between such a node and all below it there is nothing but what is cached together with it, or it has not changed. Hence its
//!   children are those that the rows tell, even if the store has newer rows already: what is new lies below one of these children.
//! - *What is in memory wins.* A node below that is loaded has its value there, a leaf has its place there.
//!
//! Invariants: the ancestors of a stored node are stored; the count of a derived node is that of the records below it now.

use zetakv_verifier::key::Key;
use zetakv_verifier::value::{Child, Node};

use crate::hash::merkle_hash;
use crate::records::{Content, Leaf, Place, RecordId, Records};

/// Below a node that is not stored there are at most so many records.
pub const SUBTREE_RECORDS_MAX: u8 = 16;

const TOO_MANY: &str = "a row is missing";

/// A record as its row has it.
#[derive(Clone, Debug)]
pub struct FoundRecord {
    pub key: Key,
    pub leaf: Leaf,
    pub has_long_key: bool,
}

/// Take a node, whose row is not in the store, and what is below it into memory. `found`: the records below it, from left to right.
pub fn derive(records: &mut Records, node: Key, found: &[FoundRecord]) -> Result<(), &'static str> {
    if found.len() < 2 {
        return Err(TOO_MANY);
    }
    derive_node(records, node, found).map(|_| ())
}

fn derive_node(records: &mut Records, key: Key, found: &[FoundRecord]) -> Result<RecordId, &'static str> {
    let known = records.find(&key);
    if let Some(id) = known
        && !matches!(records.get(id).content, Content::NotLoaded)
    {
        return Ok(id);
    }
    if known.is_some() {
        return Err(TOO_MANY); // it is in Blum, and so it is stored
    }
    let right_at = found.partition_point(|record| key.direction_to(&record.key).is_some_and(|side| side as usize == 0));
    let mut node = Node::default();
    let mut count = 0_u8;
    for (side, found) in [&found[..right_at], &found[right_at..]].into_iter().enumerate() {
        let (Some(first), Some(last)) = (found.first(), found.last()) else {
            continue;
        };
        let (id, below) = if found.len() == 1 {
            (derive_leaf(records, first), 1)
        } else {
            let id = derive_node(records, first.key.common_prefix(&last.key), found)?;
            (id, records.get(id).records_below)
        };
        count = count.saturating_add(below);
        let child = records.get(id);
        let hash = match child.place {
            Place::Merkle => Some(merkle_hash(&child.value().map_err(|_| TOO_MANY)?)),
            Place::Blum { .. } | Place::Cached(_) => None,
        };
        node.sides[side] = Some(Child { key: child.key, hash });
    }
    if count > SUBTREE_RECORDS_MAX {
        return Err(TOO_MANY);
    }
    let id = records.insert(key, Content::Node(Box::new(node)), Place::Merkle);
    records.get_mut(id).records_below = count;
    Ok(id)
}

fn derive_leaf(records: &mut Records, found: &FoundRecord) -> RecordId {
    let id = match records.find(&found.key) {
        Some(id) => id,
        None => records.insert(found.key, Content::NotLoaded, Place::Merkle),
    };
    let record = records.get_mut(id);
    if let Content::NotLoaded = record.content {
        record.content = Content::Leaf(found.leaf.clone());
        record.has_long_key = found.has_long_key;
        records.sweep_later(id);
    }
    id
}
