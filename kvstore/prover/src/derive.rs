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
//! Only what is on the way to the records that work needs is taken into memory. Invariants: the ancestors of a stored node are stored; the
//! count of a derived node is that of the records below it now.

use zetakv_verifier::key::Key;
use zetakv_verifier::value::{Child, Commitment, Hash, Node, Value};

use crate::hash::merkle_hash;
use crate::records::{Content, Leaf, Place, RecordId, Records};

/// Below a node that is not stored there are at most so many records.
pub const SUBTREE_RECORDS_MAX: u8 = 16;

const TOO_MANY: &str = "a row is missing";

/// A record as its row has it.
#[derive(Clone, Copy, Debug)]
pub struct FoundRecord<'a> {
    pub key: Key,
    /// None for null.
    pub value: Option<&'a [u8]>,
    /// Of the value.
    pub commitment: Commitment,
    /// Of the commitment, for its parent.
    pub hash: Hash,
    pub has_long_key: bool,
}

/// What a parent has of a derived node or record, and the number of records below it, itself included.
type Below = (Child, u8);

/// Take a node, whose row is not in the store, into memory, and of what is below it the paths to the targets: the rest is only hashed.
/// `found`: the records below it, from left to right; `targets`: base keys.
pub fn derive(
    records: &mut Records,
    node: Key,
    found: &[FoundRecord<'_>],
    targets: &[Key],
) -> Result<(), &'static str> {
    if is_loaded(records, &node)? {
        return Ok(()); // it came into memory by another way in the meantime
    }
    let (value, count) = derive_sides(records, &node, found, targets)?;
    insert(records, node, value, count);
    Ok(())
}

fn is_loaded(records: &Records, node: &Key) -> Result<bool, &'static str> {
    match records.find(node).map(|id| &records.get(id).content) {
        None => Ok(false),
        Some(Content::NotLoaded) => Err(TOO_MANY), // it is in Blum, and so it is stored
        Some(_) => Ok(true),
    }
}

fn insert(records: &mut Records, key: Key, node: Node, count: u8) {
    let id = records.insert(key, Content::Node(Box::new(node)), Place::Merkle);
    records.get_mut(id).records_below = count;
}

fn derive_sides(
    records: &mut Records,
    key: &Key,
    found: &[FoundRecord<'_>],
    targets: &[Key],
) -> Result<(Node, u8), &'static str> {
    if found.len() < 2 || found.len() > usize::from(SUBTREE_RECORDS_MAX) {
        return Err(TOO_MANY);
    }
    let right_at = found.partition_point(|record| key.direction_to(&record.key).is_some_and(|side| side as usize == 0));
    let mut node = Node::default();
    let mut count = 0_u8;
    for (side, found) in [&found[..right_at], &found[right_at..]].into_iter().enumerate() {
        let (child, below) = match found {
            [] => continue,
            [record] => (derive_leaf(records, record, targets.contains(&record.key))?, 1),
            [first, .., last] => derive_node(records, first.key.common_prefix(&last.key), found, targets)?,
        };
        node.sides[side] = Some(child);
        count = count.saturating_add(below);
    }
    if count > SUBTREE_RECORDS_MAX {
        return Err(TOO_MANY);
    }
    Ok((node, count))
}

fn derive_node(
    records: &mut Records,
    key: Key,
    found: &[FoundRecord<'_>],
    targets: &[Key],
) -> Result<Below, &'static str> {
    if is_loaded(records, &key)?
        && let Some(id) = records.find(&key)
    {
        let below = records.get(id).records_below;
        return Ok((child_in_memory(records, id)?, below));
    }
    let (node, count) = derive_sides(records, &key, found, targets)?;
    let hash = Some(merkle_hash(&Value::Node(node)));
    if targets.iter().any(|target| key.is_proper_ancestor_of(target)) {
        insert(records, key, node, count);
    }
    Ok((Child { key, hash }, count))
}

fn derive_leaf(records: &mut Records, found: &FoundRecord<'_>, is_target: bool) -> Result<Child, &'static str> {
    let key = found.key;
    let id = match records.find(&key) {
        Some(id) => id,
        None if is_target => records.insert(key, Content::NotLoaded, Place::Merkle),
        None => {
            return Ok(Child {
                key,
                hash: Some(found.hash),
            });
        }
    };
    let record = records.get_mut(id);
    if let Content::NotLoaded = record.content
        && (is_target || record.place == Place::Merkle)
    {
        record.content = Content::Leaf(Leaf::new(found.commitment, found.value));
        record.has_long_key = found.has_long_key;
        records.sweep_later(id);
    }
    child_in_memory(records, id)
}

fn child_in_memory(records: &Records, id: RecordId) -> Result<Child, &'static str> {
    let record = records.get(id);
    let hash = match record.place {
        Place::Merkle => Some(merkle_hash(&record.value().map_err(|_| TOO_MANY)?)),
        Place::Blum { .. } | Place::Cached(_) => None,
    };
    Ok(Child { key: record.key, hash })
}
