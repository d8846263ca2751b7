//! The verified cache of one thread: the records in private memory, and how they come and go by Merkle.
//!
//! A record that was added by Merkle is *linked*: its parent knows its slot, and it knows its parent's. Invariants: a link always joins two
//! cached records, of which the lower is the nearest record below the upper on that side; a linked record cannot lose its parent; where its
//! *hash is current*, the parent has the hash of its present value. Timestamps and multisets are not its business.

#[cfg(test)]
#[path = "tests/frozen/cache.rs"]
mod frozen;
#[cfg(test)]
#[path = "tests/driver/observe/cache.rs"]
mod observe;

use alloc::boxed::Box;
use alloc::vec;

use crate::check::{Fault, check};
use crate::crypto::Crypto;
use crate::entry::Slot;
use crate::key::{Direction, Key};
use crate::value::{Child, NO_HASH, Node, Value};
use crate::violation::ViolationCode;

/// The slot of the root, on the thread that has it.
const ROOT_SLOT: Slot = 0;

/// A cached record.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    pub key: Key,
    pub value: Value,
    /// The slot of the parent that it is linked to, if it was added by Merkle. None: it came from Blum, or is the root.
    pub parent: Option<Slot>,
    /// The slots of the children that are linked to it.
    linked: [Option<Slot>; 2],
    /// It was added by its hash, and its value has not changed since. So it need not be hashed again: for most nodes on the way to a leaf
    /// that is only read, that is half the work.
    hash_is_current: bool,
}

impl Record {
    /// Change its value.
    pub fn set_value(&mut self, value: Value) {
        self.hash_is_current &= self.value == value;
        self.value = value;
    }
}

/// What a parent in the cache knows of the records below it in the direction of a key.
pub(crate) struct Above<'a> {
    side: &'a mut Option<Child>,
    linked: &'a mut Option<Slot>,
    /// The parent's.
    hash_is_current: &'a mut bool,
}

impl Above<'_> {
    /// The child that the parent's value names.
    pub const fn side(&self) -> Option<&Child> {
        self.side.as_ref()
    }

    fn set_side(&mut self, child: Child) {
        *self.hash_is_current &= *self.side == Some(child);
        *self.side = Some(child);
    }
}

pub(crate) struct Cache<const LEAF_DEPTH: u16> {
    slots: Box<[Option<Record>]>,
    occupied: usize,
}

impl<const LEAF_DEPTH: u16> Cache<LEAF_DEPTH> {
    /// An empty cache, but for the root where there is one; `None` if that has no slot.
    pub fn new(slots: u32, root: Option<Node>) -> Option<Self> {
        let mut cache = Self {
            slots: vec![None; slots as usize].into_boxed_slice(),
            occupied: 0,
        };
        if let Some(root) = root {
            cache.slots.first()?;
            cache.insert(ROOT_SLOT, Key::ROOT, Value::Node(root), None);
        }
        Some(cache)
    }

    /// Number of records, the root included.
    pub const fn occupied(&self) -> usize {
        self.occupied
    }

    /// The root's value, on the thread that has it.
    pub fn root(&self) -> Option<Node> {
        match self.slots.first()? {
            Some(record) if record.key.is_root() => match record.value {
                Value::Node(node) => Some(node),
                Value::Leaf(_) => None,
            },
            _ => None,
        }
    }

    /// The record in a slot. `key` is what a fault is about.
    pub fn get(&self, slot: Slot, key: &Key) -> Result<&Record, Fault> {
        match self.slots.get(slot as usize) {
            None => Err(Fault::new(ViolationCode::SlotOutOfRange, *key)),
            Some(None) => Err(Fault::new(ViolationCode::SlotEmpty, *key)),
            Some(Some(record)) => Ok(record),
        }
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, slot: Slot, key: &Key) -> Result<&mut Record, Fault> {
        match self.slots.get_mut(slot as usize) {
            None => Err(Fault::new(ViolationCode::SlotOutOfRange, *key)),
            Some(None) => Err(Fault::new(ViolationCode::SlotEmpty, *key)),
            Some(Some(record)) => Ok(record),
        }
    }

    /// What the record in slot `parent` knows in the direction of `key`.
    pub fn above(&mut self, parent: Slot, key: &Key) -> Result<Above<'_>, Fault> {
        let record = self.get_mut(parent, key)?;
        let Value::Node(node) = &mut record.value else {
            return Err(Fault::new(ViolationCode::ParentNotInternal, *key));
        };
        let Some(direction) = record.key.direction_to(key) else {
            return Err(Fault::new(ViolationCode::NotAnAncestor, *key));
        };
        Ok(Above {
            side: &mut node.sides[direction as usize],
            linked: &mut record.linked[direction as usize],
            hash_is_current: &mut record.hash_is_current,
        })
    }

    /// Whether a record may be put into a slot: it is free, and the value fits the key.
    pub fn check_addable(&self, slot: Slot, key: &Key, value: &Value) -> Result<(), Fault> {
        let Some(place) = self.slots.get(slot as usize) else {
            return Err(Fault::new(ViolationCode::SlotOutOfRange, *key));
        };
        check!(add_to_empty_slot: place.is_none(), else SlotOccupied(*key));
        check!(add_within_leaf_depth: key.depth() <= LEAF_DEPTH, else KeyNotAllowed(*key));
        check!(add_value_fits_key: value.is_leaf() == (key.depth() == LEAF_DEPTH), else KeyNotAllowed(*key));
        Ok(())
    }

    /// Put a record into a slot that [`Self::check_addable`] has passed.
    pub fn insert(&mut self, slot: Slot, key: Key, value: Value, parent: Option<Slot>) {
        self.slots[slot as usize] = Some(Record {
            key,
            value,
            parent,
            linked: [None; 2],
            hash_is_current: false,
        });
        self.occupied += 1;
    }

    /// Empty an occupied slot.
    pub fn remove(&mut self, slot: Slot) {
        self.slots[slot as usize] = None;
        self.occupied -= 1;
    }

    /// Add a record that its parent in the cache proves: for the first time, again, or between the parent and what was below it.
    pub fn add_merkle<C: Crypto>(
        &mut self,
        crypto: &C,
        slot: Slot,
        parent: Slot,
        key: Key,
        value: Value,
    ) -> Result<(), Fault> {
        self.check_addable(slot, &key, &value)?;
        let mut above = self.above(parent, &key)?;
        let new_side = Child {
            key,
            hash: Some(NO_HASH),
        };
        let mut hash_is_current = false;
        match above.side().copied() {
            None => {
                check!(first_value_initial: value.is_initial(), else ValueNotInitial(key));
                above.set_side(new_side);
            }
            Some(child) if child.key == key => {
                let Some(hash) = child.hash else {
                    return Err(Fault::new(ViolationCode::SideInBlum, key));
                };
                check!(again_not_cached: above.linked.is_none(), else AlreadyCached(key));
                check!(again_hash: crypto.hash(&value) == hash, else HashMismatch(key));
                hash_is_current = true;
            }
            Some(child) => {
                let Some(direction) = key.direction_to(&child.key) else {
                    return Err(Fault::new(ViolationCode::SideNotDescendant, key));
                };
                check!(split_value_initial: value.is_initial(), else ValueNotInitial(key));
                above.set_side(new_side);
                let below = above.linked.replace(slot);
                return self.split(slot, parent, key, direction, child, below);
            }
        }
        *above.linked = Some(slot);
        self.insert(slot, key, value, Some(parent));
        self.get_mut(slot, &key)?.hash_is_current = hash_is_current;
        Ok(())
    }

    /// Put a new node above `child`, and link it to that where it is linked.
    fn split(
        &mut self,
        slot: Slot,
        parent: Slot,
        key: Key,
        direction: Direction,
        child: Child,
        below: Option<Slot>,
    ) -> Result<(), Fault> {
        let mut node = Node::default();
        node.set_side(direction, child);
        self.insert(slot, key, Value::Node(node), Some(parent));
        if let Some(below) = below {
            self.get_mut(slot, &key)?.linked[direction as usize] = Some(below);
            self.get_mut(below, &child.key)?.parent = Some(slot);
        }
        Ok(())
    }

    /// A record that may be evicted: not the root, and no child of it is linked.
    pub fn evictable(&self, slot: Slot) -> Result<&Record, Fault> {
        let record = self.get(slot, &Key::ROOT)?;
        check!(evict_not_root: !record.key.is_root(), else RootIsPermanent(record.key));
        check!(evict_no_child_linked: record.linked == [None; 2], else ChildCached(record.key));
        Ok(record)
    }

    /// What its parent in the cache knows of a record that is to be evicted: this record, and whether it is linked.
    pub fn check_above(&mut self, slot: Slot, record: &Record, parent: Slot) -> Result<Above<'_>, Fault> {
        let above = self.above(parent, &record.key)?;
        let names_record = above.side.is_some_and(|child| child.key == record.key);
        check!(evict_side_names_record: names_record, else SideNamesOther(record.key));
        let agrees = match record.parent {
            Some(linked_parent) => linked_parent == parent && *above.linked == Some(slot),
            None => above.linked.is_none(),
        };
        check!(evict_links_agree: agrees, else LinkMismatch(record.key));
        Ok(above)
    }

    /// Evict a record, and write its hash into its parent.
    pub fn evict_merkle<C: Crypto>(&mut self, crypto: &C, slot: Slot, parent: Slot) -> Result<(), Fault> {
        let record = *self.evictable(slot)?;
        let mut above = self.check_above(slot, &record, parent)?;
        if !record.hash_is_current {
            above.set_side(Child {
                key: record.key,
                hash: Some(crypto.hash(&record.value)),
            });
        }
        *above.linked = None;
        self.remove(slot);
        Ok(())
    }

    /// Note in its parent that a linked record is now in Blum, and empty its slot.
    pub fn evict_to_blum(&mut self, slot: Slot, record: &Record, parent: Slot) -> Result<(), Fault> {
        let mut above = self.check_above(slot, record, parent)?;
        if let Some(child) = above.side().copied() {
            above.set_side(Child { hash: None, ..child });
        }
        *above.linked = None;
        self.remove(slot);
        Ok(())
    }
}
