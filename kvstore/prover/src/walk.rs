//! Finding a record in the tree: from the deepest node on its path that is in Blum or cached, down along nodes in Merkle, as far as their
//! rows are in memory; or, where it is in memory and its parents are as it was last proved, from there up to that node. And bringing that
//! path into the cache.

use zetakv_verifier::entry::Slot;
use zetakv_verifier::key::{Key, LEAF_DEPTH};
use zetakv_verifier::kv::{Action, Operation};
use zetakv_verifier::value::Child;

use crate::cache::NO_SLOT;
use crate::error::Error;
use crate::frames::may_return_value;
use crate::mirror::Mirror;
use crate::records::{Content, Place, RecordId};
use crate::rows;

/// What an operation needs before it can run.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// The row of this record.
    Row(Key),
    /// Nothing: its own record is here, if it is in memory.
    Nothing(Option<RecordId>),
}

/// What lies at the end of the path to a key.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// The record itself.
    Record(RecordId),
    /// Nothing: its parent has no record on that side.
    Nothing,
    /// Another record, which is not above it.
    Other(Child),
    /// It cannot be said before this record's row is in memory.
    Missing(Key),
}

impl Mirror {
    /// Find a key that may be in Merkle. `path` becomes the nodes from one in Blum or cached down to the key's parent. `found`: where its
    /// record is, if it is in memory.
    pub fn walk(&self, key: &Key, found: Option<RecordId>, path: &mut Vec<RecordId>) -> Result<End, Error> {
        path.clear();
        if let Some(id) = found
            && self.climb(id, |node| path.push(self.records.get(node).above))
        {
            path.reverse();
            return Ok(End::Record(id));
        }
        path.clear();
        self.descend(self.top_of_path(key)?, key, |node| path.push(node))
    }

    /// The same while rows are collected: goes on where it has come to the last time, since the tree does not change meanwhile.
    pub fn search(&self, key: &Key, reached: &mut Option<RecordId>) -> Result<End, Error> {
        let from = match *reached {
            Some(node) => node,
            None => self.top_of_path(key)?,
        };
        self.descend(from, key, |node| *reached = Some(node))
    }

    /// Whether the way from a record up to a node in Blum or cached is as it was when each was last added by Merkle. `visit` gets each record
    /// whose parent is on it. This looks nothing up by its key, so it is much faster than from above.
    fn climb(&self, mut id: RecordId, mut visit: impl FnMut(RecordId)) -> bool {
        loop {
            let record = self.records.get(id);
            let Some(above) = self.records.above(record) else {
                return false;
            };
            let Content::Node(node) = &above.content else {
                return false;
            };
            let direction = above.key.direction_to(&record.key);
            let names =
                |child: &Child| child.key == record.key && (child.hash.is_some() || record.place != Place::Merkle);
            if !direction.and_then(|direction| node.side(direction)).is_some_and(names) {
                return false;
            }
            visit(id);
            if above.place != Place::Merkle {
                return true;
            }
            id = record.above;
        }
    }

    fn top_of_path(&self, key: &Key) -> Result<RecordId, Error> {
        self.records.deepest_known_above(key).ok_or_else(|| {
            let partition = Key::prefix(*key.bits(), crate::partitions::DEPTH);
            Error::in_row(
                "the marker of a partition node is missing",
                rows::hot_key(&partition, false),
            )
        })
    }

    /// From a node above the key to what lies at the end of the path to it; `visit` gets the nodes on it.
    fn descend(&self, mut node: RecordId, key: &Key, mut visit: impl FnMut(RecordId)) -> Result<End, Error> {
        loop {
            let record = self.records.get(node);
            if !record.content.is_loaded() {
                return Ok(End::Missing(record.key));
            }
            visit(node);
            let Some(direction) = record.key.direction_to(key) else {
                return Err(Error::Engine("the path to a record leads past it"));
            };
            let Some(child) = self.records.node(node)?.side(direction) else {
                return Ok(End::Nothing);
            };
            if child.key != *key && !child.key.is_proper_ancestor_of(key) {
                return Ok(End::Other(*child));
            }
            let below = self.records.find(&child.key);
            let in_blum = child.hash.is_none() && below.is_none_or(|id| self.records.get(id).place == Place::Merkle);
            if in_blum {
                let marker = rows::hot_key(&child.key, false);
                return Err(Error::in_row("the marker of a record in Blum is missing", marker));
            }
            match below {
                Some(id) if child.key == *key => return Ok(End::Record(id)),
                Some(id) => node = id,
                None => return Ok(End::Missing(child.key)),
            }
        }
    }

    fn is_unknown_node(&self, key: &Key) -> bool {
        key.depth() < LEAF_DEPTH && self.records.find(key).is_none()
    }

    /// Bring a path into the cache; returns the slot of its last node. `added` gets the nodes that were not there.
    pub fn bring_path(&mut self, path: &[RecordId], added: &mut Vec<RecordId>) -> Result<Slot, Error> {
        let mut parent = NO_SLOT;
        for id in path {
            self.touch(*id);
            parent = match self.records.get(*id).place {
                Place::Cached(slot) => slot,
                Place::Blum { .. } => {
                    let slot = self.make_room(parent)?;
                    self.add_blum(*id, slot)?;
                    added.push(*id);
                    slot
                }
                Place::Merkle => {
                    let slot = self.make_room(parent)?;
                    self.add_again(*id, slot, parent)?;
                    added.push(*id);
                    slot
                }
            };
        }
        Ok(parent)
    }

    /// What an operation needs. `found`: where its record is, if it is in memory and none was `reached`, which is as in [`Self::search`].
    pub fn needs_of_operation(
        &self,
        operation: &Operation,
        found: Option<RecordId>,
        reached: &mut Option<RecordId>,
    ) -> Result<Need, Error> {
        let key = Key::leaf(operation.key);
        let id = match found {
            Some(id) if self.records.get(id).place != Place::Merkle || self.climb(id, |_| {}) => id,
            _ => match self.search(&key, reached)? {
                End::Record(id) => id,
                End::Missing(missing) => return Ok(Need::Row(missing)),
                // a node that will be put above this one counts the records below it
                End::Other(other) if operation.action != Action::Get && self.is_unknown_node(&other.key) => {
                    return Ok(Need::Row(other.key));
                }
                End::Nothing | End::Other(_) => return Ok(Need::Nothing(None)),
            },
        };
        let returns_value = may_return_value(&operation.action);
        let is_missing = match &self.records.get(id).content {
            Content::NotLoaded => true,
            Content::Leaf(leaf) => returns_value && leaf.lacks_bytes(),
            Content::Node(_) => false,
        };
        Ok(if is_missing {
            Need::Row(key)
        } else {
            Need::Nothing(Some(id))
        })
    }
}
