//! The tree of all records, as the verifier has it, and entries of the log that walk it: what a prover would write that keeps nothing.

use zetakv_verifier::StandardCrypto;
use zetakv_verifier::crypto::Crypto;
use zetakv_verifier::entry::{Entry, Slot};
use zetakv_verifier::key::{Key, KeyHash, LEAF_DEPTH};
use zetakv_verifier::time::Timestamp;
use zetakv_verifier::value::{Child, Commitment, Hash, Node, Value};

/// Number of a node, in the order of creation; 0 is the root.
pub type NodeId = u32;

/// A record, internal node or leaf.
pub struct Record {
    /// Its key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    parent: NodeId,
    /// Where it is in the verified cache.
    pub slot: Option<Slot>,
}

/// All records.
pub struct Tree {
    crypto: StandardCrypto,
    /// By number.
    pub records: Vec<Record>,
    /// The leaves, in the order of their keys.
    pub leaves: Vec<NodeId>,
}

impl Tree {
    /// The root alone, which is always in slot 0.
    pub fn new(crypto: StandardCrypto) -> Self {
        let root = Record {
            key: Key::ROOT,
            value: Value::initial(false),
            parent: 0,
            slot: Some(0),
        };
        Self {
            crypto,
            records: vec![root],
            leaves: Vec::new(),
        }
    }

    /// A record.
    pub fn record(&self, id: NodeId) -> &Record {
        &self.records[id as usize]
    }

    /// Add a leaf whose key comes after all there are. `path`: what is cached, from the root down; it ends in the new leaf.
    pub fn append(&mut self, hash: KeyHash, path: &mut Vec<NodeId>, log: &mut Vec<u8>) -> NodeId {
        let key = Key::leaf(hash);
        let common = self
            .leaves
            .last()
            .map(|last| self.record(*last).key.common_prefix(&key));
        let common = common.unwrap_or(Key::ROOT);
        let mut below = None;
        while self.record(path[path.len() - 1]).key.depth() > common.depth() {
            below = path.pop();
            self.evict_merkle(below.expect("not the root"), log);
        }
        let top = path[path.len() - 1];
        let mut parent = top;
        if self.record(top).key.depth() < common.depth() {
            let below = below.expect("what the common prefix is of is below the top");
            parent = self.create(common, top, path, log);
            let below_key = self.record(below).key;
            let child = self.side(top, &below_key).expect("it was there");
            self.set_side(parent, child);
            self.set_side(
                top,
                Child {
                    key: common,
                    hash: Some([0; 32]),
                },
            );
            self.records[below as usize].parent = parent;
        }
        let leaf = self.create(key, parent, path, log);
        self.set_side(
            parent,
            Child {
                key,
                hash: Some([0; 32]),
            },
        );
        self.leaves.push(leaf);
        leaf
    }

    fn create(&mut self, key: Key, parent: NodeId, path: &mut Vec<NodeId>, log: &mut Vec<u8>) -> NodeId {
        let id = self.records.len() as NodeId; // far below 2^32
        self.records.push(Record {
            key,
            value: Value::initial(key.depth() == LEAF_DEPTH),
            parent,
            slot: None,
        });
        self.add_merkle(id, path.len() as Slot, log);
        path.push(id);
        id
    }

    /// Add a record whose parent is cached.
    pub fn add_merkle(&mut self, id: NodeId, slot: Slot, log: &mut Vec<u8>) {
        let parent = self.parent_slot(id);
        let record = &mut self.records[id as usize];
        record.slot = Some(slot);
        Entry::AddMerkle {
            slot,
            parent,
            key: record.key,
            value: record.value,
        }
        .encode(log);
    }

    /// Evict a cached record to Merkle.
    pub fn evict_merkle(&mut self, id: NodeId, log: &mut Vec<u8>) {
        let parent = self.parent_slot(id);
        let slot = self.take_slot(id);
        Entry::EvictMerkle { slot, parent }.encode(log);
        let hash = self.crypto.hash(&self.record(id).value);
        self.set_hash(id, Some(hash));
    }

    /// Evict to Blum a cached record that came by Merkle.
    pub fn evict_blum_merkle(&mut self, id: NodeId, ts: Timestamp, log: &mut Vec<u8>) {
        let parent = self.parent_slot(id);
        let slot = self.take_slot(id);
        Entry::EvictBlumMerkle { slot, parent, ts }.encode(log);
        self.set_hash(id, None);
    }

    /// Add a record from Blum.
    pub fn add_blum(&mut self, id: NodeId, slot: Slot, ts: Timestamp, log: &mut Vec<u8>) {
        let record = &mut self.records[id as usize];
        record.slot = Some(slot);
        Entry::AddBlum {
            slot,
            ts,
            thread: 0,
            key: record.key,
            value: record.value,
        }
        .encode(log);
    }

    /// Carry a record over that is in Blum.
    pub fn carry_over(&self, id: NodeId, ts: Timestamp, log: &mut Vec<u8>) {
        let record = self.record(id);
        Entry::CarryOver {
            ts,
            thread: 0,
            key: record.key,
            value: record.value,
        }
        .encode(log);
    }

    /// Evict to Blum a cached record that came from there.
    pub fn evict_blum(&mut self, id: NodeId, ts: Timestamp, log: &mut Vec<u8>) {
        let slot = self.take_slot(id);
        Entry::EvictBlum { slot, ts }.encode(log);
    }

    /// The records from the first one that is not cached down to this one.
    pub fn uncached_path(&self, id: NodeId) -> Vec<NodeId> {
        let mut path = Vec::new();
        let mut at = id;
        while self.record(at).slot.is_none() {
            path.push(at);
            at = self.record(at).parent;
        }
        path.reverse();
        path
    }

    /// The first `count` records from the top, parents before their children.
    pub fn upper(&self, count: usize) -> Vec<NodeId> {
        let mut internal: Vec<NodeId> = (1..self.records.len() as NodeId)
            .filter(|id| !self.record(*id).value.is_leaf())
            .collect();
        internal.sort_by_key(|id| (self.record(*id).key.depth(), *id));
        internal.truncate(count);
        internal
    }

    /// A put has run on a leaf.
    pub fn put(&mut self, leaf: NodeId, new: Commitment) {
        self.records[leaf as usize].value = Value::Leaf(new);
    }

    fn parent_slot(&self, id: NodeId) -> Slot {
        let parent = self.record(self.record(id).parent);
        parent.slot.expect("the parent is cached")
    }

    fn take_slot(&mut self, id: NodeId) -> Slot {
        self.records[id as usize].slot.take().expect("the record is cached")
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        match &mut self.records[id as usize].value {
            Value::Node(node) => node,
            Value::Leaf(_) => unreachable!("only internal nodes have sides"),
        }
    }

    fn side(&mut self, id: NodeId, below: &Key) -> Option<Child> {
        let direction = self.record(id).key.direction_to(below).expect("a descendant");
        self.node(id).sides[direction as usize]
    }

    fn set_side(&mut self, id: NodeId, child: Child) {
        let direction = self.record(id).key.direction_to(&child.key).expect("a descendant");
        self.node(id).sides[direction as usize] = Some(child);
    }

    fn set_hash(&mut self, id: NodeId, hash: Option<Hash>) {
        let (key, parent) = (self.record(id).key, self.record(id).parent);
        self.set_side(parent, Child { key, hash });
    }
}
