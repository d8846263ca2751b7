//! Finding a record in the tree: from the deepest node on its path that is in Blum or cached, down along nodes in Merkle, as far as their
//! rows are in memory; or, where it, or the last node on the way to it, is in memory and its parents are as they were last found or proved,
//! from there up to that node. And bringing that path into the cache.

use std::ops::ControlFlow;

use zetakv_verifier::entry::Slot;
use zetakv_verifier::key::{Key, LEAF_DEPTH};
use zetakv_verifier::kv::{Action, Operation};
use zetakv_verifier::value::Child;

use crate::cache::NO_SLOT;
use crate::error::Error;
use crate::frames::may_return_value;
use crate::mirror::Mirror;
use crate::records::{Content, LOOKED_AT_TOGETHER, Place, RecordId};
use crate::rows;

const NOT_LOOKED_FOR: Error = Error::Engine("a record has not been looked for");

/// What an operation needs before it can run.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// The row of this record.
    Row(Key),
    /// Nothing: this is its record, or, if it has none, the last node on the way there.
    Nothing(RecordId),
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

/// A key that is looked for while rows are collected.
#[derive(Debug)]
pub struct Search {
    pub key: Key,
    /// The last node that was found on the way to it.
    pub reached: Option<RecordId>,
    /// How far it can be found, once that is known.
    pub end: Option<End>,
}

impl Mirror {
    /// Find a key that may be in Merkle. `path` becomes the nodes from one in Blum or cached down to the key's parent. `found`: its record, or a
    /// node on the way there, if one is known.
    pub fn walk(&self, key: &Key, found: Option<RecordId>, path: &mut Vec<RecordId>) -> Result<End, Error> {
        path.clear();
        let from = match found {
            Some(id) if self.is_known_node(id, key) => id,
            Some(id) if self.climb(id, |node| path.push(self.records.get(node).above)) => {
                path.reverse();
                id
            }
            _ => {
                path.clear();
                self.top_of_path(key)?
            }
        };
        if self.records.get(from).key == *key {
            return Ok(End::Record(from));
        }
        self.descend(from, key, |node| path.push(node))
    }

    /// The same while rows are collected: goes on where it has come to the last time, since the tree does not change meanwhile.
    pub fn search(&self, key: &Key, reached: &mut Option<RecordId>) -> Result<End, Error> {
        let from = match *reached {
            Some(node) => node,
            None => self.top_of_path(key)?,
        };
        self.descend(from, key, |node| *reached = Some(node))
    }

    /// The same for several keys, at most [`LOOKED_AT_TOGETHER`], one step of all before the next of any, so that their cache misses overlap.
    /// What is found knows its parent from then on.
    pub fn search_together(&mut self, searches: &mut [Search]) -> Result<(), Error> {
        let mut nodes = self.begin_together(searches)?;
        while nodes.iter().any(Option::is_some) {
            let mut children = [None; LOOKED_AT_TOGETHER];
            for ((search, node), child) in searches.iter_mut().zip(&nodes).zip(&mut children) {
                let Some(node) = *node else { continue };
                match self.child_towards(node, &search.key, || search.reached = Some(node))? {
                    ControlFlow::Continue(towards) => *child = Some(towards),
                    ControlFlow::Break(end) => search.end = Some(end),
                }
            }
            let keys = children.iter().map(|child| child.map(|child| child.key));
            let below = self.records.find_together(keys);
            self.records.look_into(below.iter().flatten().copied());
            for (((search, node), child), below) in searches.iter_mut().zip(&mut nodes).zip(&children).zip(below) {
                let (parent, Some(child)) = (node.take(), child) else {
                    continue;
                };
                let step = self.below(child, &search.key, below)?;
                if let (Some(parent), Some(below)) = (parent, below) {
                    self.records.get_mut(below).above = parent;
                }
                match step {
                    ControlFlow::Continue(below) => *node = Some(below),
                    ControlFlow::Break(end) => search.end = Some(end),
                }
            }
        }
        Ok(())
    }

    /// End the searches whose records are known or can be proved from what is; the nodes from which the others go on.
    fn begin_together(&self, searches: &mut [Search]) -> Result<[Option<RecordId>; LOOKED_AT_TOGETHER], Error> {
        let new = searches.iter().map(|search| match search.reached {
            None => Some(search.key),
            Some(_) => None,
        });
        let found = self.records.find_together(new);
        let mut nodes = [None; LOOKED_AT_TOGETHER];
        for ((search, found), node) in searches.iter_mut().zip(found).zip(&mut nodes) {
            match (search.reached, found) {
                (None, Some(id)) if self.records.get(id).place != Place::Merkle || self.climb(id, |_| {}) => {
                    search.end = Some(End::Record(id));
                }
                (None, _) => *node = Some(self.top_of_path(&search.key)?),
                (reached, _) => *node = reached,
            }
        }
        Ok(nodes)
    }

    /// Whether what is on the way to a key is not its own record, and in Blum or cached.
    fn is_known_node(&self, id: RecordId, key: &Key) -> bool {
        let record = self.records.get(id);
        record.place != Place::Merkle && record.key != *key
    }

    /// Whether the way from a record up to a node in Blum or cached is as it was when each was last found or added by Merkle. `visit` gets each
    /// record whose parent is on it. This looks nothing up by its key, so it is much faster than from above.
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
            let child = match self.child_towards(node, key, || visit(node))? {
                ControlFlow::Continue(child) => child,
                ControlFlow::Break(end) => return Ok(end),
            };
            node = match self.below(&child, key, self.records.find(&child.key))? {
                ControlFlow::Continue(below) => below,
                ControlFlow::Break(end) => return Ok(end),
            };
        }
    }

    /// The child of a node at or above the key, or the end of the way. `visit` is called if the node is on it, and in memory.
    fn child_towards(&self, node: RecordId, key: &Key, visit: impl FnOnce()) -> Result<ControlFlow<End, Child>, Error> {
        let record = self.records.get(node);
        if !record.content.is_loaded() {
            return Ok(ControlFlow::Break(End::Missing(record.key)));
        }
        visit();
        let Some(direction) = record.key.direction_to(key) else {
            return Err(Error::Engine("the path to a record leads past it"));
        };
        Ok(match self.records.node(node)?.side(direction) {
            None => ControlFlow::Break(End::Nothing),
            Some(child) if child.key == *key || child.key.is_proper_ancestor_of(key) => ControlFlow::Continue(*child),
            Some(child) => ControlFlow::Break(End::Other(*child)),
        })
    }

    /// The record of a child at or above the key, if the way goes on from it. `below`: that record, if it is in memory.
    fn below(&self, child: &Child, key: &Key, below: Option<RecordId>) -> Result<ControlFlow<End, RecordId>, Error> {
        let in_blum = child.hash.is_none() && below.is_none_or(|id| self.records.get(id).place == Place::Merkle);
        if in_blum {
            let marker = rows::hot_key(&child.key, false);
            return Err(Error::in_row("the marker of a record in Blum is missing", marker));
        }
        Ok(match below {
            Some(id) if child.key == *key => ControlFlow::Break(End::Record(id)),
            Some(id) => ControlFlow::Continue(id),
            None => ControlFlow::Break(End::Missing(child.key)),
        })
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

    /// What an operation needs whose record has been looked for.
    pub fn needs_of_operation(&self, operation: &Operation, search: &Search) -> Result<Need, Error> {
        let id = match search.end {
            Some(End::Record(id)) => id,
            Some(End::Missing(missing)) => return Ok(Need::Row(missing)),
            // a node that will be put above this one counts the records below it
            Some(End::Other(other)) if operation.action != Action::Get && self.is_unknown_node(&other.key) => {
                return Ok(Need::Row(other.key));
            }
            Some(End::Nothing | End::Other(_)) => return search.reached.map(Need::Nothing).ok_or(NOT_LOOKED_FOR),
            None => return Err(NOT_LOOKED_FOR),
        };
        let returns_value = may_return_value(&operation.action);
        let is_missing = match &self.records.get(id).content {
            Content::NotLoaded => true,
            Content::Leaf(leaf) => returns_value && leaf.lacks_bytes(),
            Content::Node(_) => false,
        };
        Ok(if is_missing {
            Need::Row(search.key)
        } else {
            Need::Nothing(id)
        })
    }
}
