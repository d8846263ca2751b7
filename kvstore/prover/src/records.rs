//! The records that are in memory: everything in Blum or cached, what has changed since the store knows it, what was read for the work in
//! hand; and, as far as there is room, what was needed lately (it is *warm*).
//!
//! Invariants: a record of this thread that is not in this table is in Merkle, and its row in the store is current; the same holds for a
//! record here whose content is not loaded, except that it may be in Blum. A record is named by a small number, its id, which is valid
//! until the record is forgotten; that happens only in [`Records::sweep`] and [`Records::forget`].

mod record;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use zetakv_verifier::key::Key;
use zetakv_verifier::value::{Commitment, Node};

use crate::error::Error;
use crate::known_nodes::KnownNodes;

pub use self::record::{Content, Leaf, Place, Record, RecordId, STORED};

/// Records that are looked at together before something is done with each: so their cache misses overlap.
pub const LOOKED_AT_TOGETHER: usize = 32;

/// The table of records in memory.
#[derive(Debug)]
pub struct Records {
    arena: Vec<Record>,
    free: Vec<RecordId>,
    table: HashTable<RecordId>,
    /// Seeded at random: clients choose keys, and could else find many that meet in one place of the table.
    hasher: DefaultHashBuilder,
    /// What is in Blum or cached, in no order.
    known: Vec<RecordId>,
    /// The internal nodes among these.
    known_nodes: KnownNodes,
    listed: Vec<RecordId>,
    awaiting_sweep: Vec<RecordId>,
    /// Warm records, those that came first in front, and the bytes that each was counted for.
    warm: VecDeque<(RecordId, usize)>,
    warm_bytes: usize,
    warm_bytes_max: usize,
    changed_bytes: usize,
    /// Values of clean records that are longer are not kept in memory: a get reads them again.
    kept_value_bytes_max: usize,
}

/// Paths of leaves are hashes; those of nodes begin like one, and differ in depth where they do not differ in bits.
fn table_hash(hasher: &DefaultHashBuilder, key: &Key) -> u64 {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&key.bits()[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    // the odd number is 2^64 / the golden ratio: it spreads close depths over the word
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    hasher.hash_one(word(0) ^ word(8).rotate_left(32) ^ u64::from(key.depth()).wrapping_mul(SPREAD))
}

impl Records {
    /// An empty table.
    pub fn new(kept_value_bytes_max: usize, warm_bytes_max: usize) -> Self {
        Self {
            arena: Vec::new(),
            free: Vec::new(),
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            known: Vec::new(),
            known_nodes: KnownNodes::new(),
            listed: Vec::new(),
            awaiting_sweep: Vec::new(),
            warm: VecDeque::new(),
            warm_bytes: 0,
            warm_bytes_max,
            changed_bytes: 0,
            kept_value_bytes_max,
        }
    }

    /// The id of a record, if it is in memory.
    pub fn find(&self, key: &Key) -> Option<RecordId> {
        let arena = &self.arena;
        self.table
            .find(table_hash(&self.hasher, key), |id| arena[*id as usize].key == *key)
            .copied()
    }

    /// The ids of several records, at most [`LOOKED_AT_TOGETHER`], for the keys that there are. Each step is done for all of them before the
    /// next one, so that their cache misses overlap.
    pub fn find_together(
        &self,
        keys: impl Iterator<Item = Option<Key>> + Clone,
    ) -> [Option<RecordId>; LOOKED_AT_TOGETHER] {
        let mut found = [None; LOOKED_AT_TOGETHER];
        for (key, found) in keys.clone().zip(&mut found) {
            // one whose hash begins like that of the key: mostly its record
            *found = key.and_then(|key| self.table.find(table_hash(&self.hasher, &key), |_| true).copied());
        }
        self.look_at(found.iter().flatten().copied());
        for (key, found) in keys.zip(&mut found) {
            if let (Some(key), Some(id)) = (key, *found)
                && self.get(id).key != key
            {
                *found = self.find(&key);
            }
        }
        found
    }

    /// A record.
    pub fn get(&self, id: RecordId) -> &Record {
        &self.arena[id as usize]
    }

    /// Bring records into the processor's cache: what misses it here, misses at once, not one after the other.
    pub fn look_at(&self, ids: impl Iterator<Item = RecordId>) {
        for id in ids {
            let record = self.get(id);
            black_box((
                record.key.depth(),
                record.place,
                record.uses,
                record.content.is_loaded(),
            ));
        }
    }

    /// The same for the sides of nodes, once the records have been looked at.
    pub fn look_into(&self, ids: impl Iterator<Item = RecordId>) {
        for id in ids {
            if let Content::Node(node) = &self.get(id).content {
                black_box((node.sides[0].is_some(), node.sides[1].is_some()));
            }
        }
    }

    /// What was the parent of a record when that was last found or added by Merkle, if it, or another record in its place, is in memory.
    pub fn above(&self, record: &Record) -> Option<&Record> {
        self.arena.get(record.above as usize)
    }

    /// A record, to change what is not an invariant of the table.
    pub fn get_mut(&mut self, id: RecordId) -> &mut Record {
        &mut self.arena[id as usize]
    }

    /// What is in Blum or cached, in no order.
    pub fn known(&self) -> &[RecordId] {
        &self.known
    }

    /// The sides of an internal node.
    pub fn node(&self, id: RecordId) -> Result<&Node, Error> {
        match &self.get(id).content {
            Content::Node(node) => Ok(node),
            _ => Err(Error::Engine("a node's sides are not in memory")),
        }
    }

    /// Put a record that is not in memory there.
    pub fn insert(&mut self, key: Key, content: Content, place: Place) -> RecordId {
        let record = Record::new(key, content);
        let id = match self.free.pop() {
            Some(id) => {
                self.arena[id as usize] = record;
                id
            }
            None => {
                self.arena.push(record);
                (self.arena.len() - 1) as RecordId // 4 billion records do not fit into memory
            }
        };
        let (arena, hasher) = (&self.arena, &self.hasher);
        self.table.insert_unique(table_hash(hasher, &key), id, |id| {
            table_hash(hasher, &arena[*id as usize].key)
        });
        self.set_place(id, place);
        id
    }

    /// Put a record that is new in the tree into memory, with its initial value. `application_key` is that of a leaf; None for a node.
    pub fn insert_new(&mut self, key: Key, application_key: Option<&[u8]>) -> RecordId {
        let id = self.insert(key, Content::NotLoaded, Place::Merkle);
        match application_key {
            Some(application_key) => self.write_leaf(id, Commitment::Null, None, application_key),
            None => self.write_node(id, Node::default()),
        }
        id
    }

    /// Note where a record is now.
    pub fn set_place(&mut self, id: RecordId, place: Place) {
        let record = &mut self.arena[id as usize];
        let was_known = record.place != Place::Merkle;
        record.place = place;
        let is_known = place != Place::Merkle;
        if is_known != was_known {
            self.is_known_changed(id, is_known);
        }
        if !is_known {
            self.sweep_later(id);
        }
    }

    fn is_known_changed(&mut self, id: RecordId, is_known: bool) {
        let record = &mut self.arena[id as usize];
        if is_known {
            self.known_nodes.add(&record.key);
            record.known_at = self.known.len() as u32; // ids are counted in u32
            self.known.push(id);
            return;
        }
        self.known_nodes.remove(&record.key);
        let at = record.known_at;
        self.known.swap_remove(at as usize);
        if let Some(moved) = self.known.get(at as usize) {
            self.arena[*moved as usize].known_at = at;
        }
    }

    /// The deepest proper ancestor of a key that is in Blum or cached.
    pub fn deepest_known_above(&self, key: &Key) -> Option<RecordId> {
        self.known_nodes.depths_above(key).find_map(|depth| {
            let id = self.find(&Key::prefix(*key.bits(), depth))?;
            (self.get(id).place != Place::Merkle).then_some(id)
        })
    }

    /// Change a leaf. `application_key` is that of the request which does.
    pub fn write_leaf(
        &mut self,
        id: RecordId,
        commitment: Commitment,
        bytes: Option<Arc<[u8]>>,
        application_key: &[u8],
    ) {
        let before = self.changed_bytes_of(id);
        let record = &mut self.arena[id as usize];
        record.content = Content::Leaf(Leaf {
            commitment,
            bytes,
            application_key: Some(application_key.into()),
        });
        self.content_changed(id, before);
    }

    /// Change a node; nothing happens if it stays as it is.
    pub fn write_node(&mut self, id: RecordId, node: Node) {
        let before = self.changed_bytes_of(id);
        match &mut self.arena[id as usize].content {
            Content::Node(old) if **old == node => return,
            Content::Node(old) => **old = node,
            content => *content = Content::Node(Box::new(node)),
        }
        self.content_changed(id, before);
    }

    fn changed_bytes_of(&self, id: RecordId) -> usize {
        let record = self.get(id);
        if record.is_changed { record.bytes_in_memory() } else { 0 }
    }

    fn content_changed(&mut self, id: RecordId, changed_bytes_before: usize) {
        let record = &mut self.arena[id as usize];
        record.hash_is_current = false;
        record.is_changed = true;
        self.changed_bytes = self.changed_bytes - changed_bytes_before + record.bytes_in_memory();
        self.list(id);
    }

    /// A node gets a row of its own.
    pub fn store_node(&mut self, id: RecordId) {
        let before = self.changed_bytes_of(id);
        let record = &mut self.arena[id as usize];
        record.records_below = STORED;
        record.is_changed = true;
        self.changed_bytes = self.changed_bytes - before + record.bytes_in_memory();
        self.list(id);
    }

    /// Look at a record when rows are frozen.
    pub fn list(&mut self, id: RecordId) {
        let record = &mut self.arena[id as usize];
        if !record.is_listed {
            record.is_listed = true;
            self.listed.push(id);
        }
    }

    /// Look at a record in the next sweep.
    pub fn sweep_later(&mut self, id: RecordId) {
        let record = &mut self.arena[id as usize];
        if !record.awaits_sweep {
            record.awaits_sweep = true;
            self.awaiting_sweep.push(id);
        }
    }

    /// Drop what need not be in memory: clean records in Merkle, but for those that are warm; and long values of clean records. No work may
    /// be planned.
    pub fn sweep(&mut self) {
        for id in core::mem::take(&mut self.awaiting_sweep) {
            let record = &mut self.arena[id as usize];
            record.awaits_sweep = false;
            if record.is_held() {
                continue;
            }
            if let Content::Leaf(leaf) = &mut record.content {
                leaf.bytes.take_if(|bytes| bytes.len() > self.kept_value_bytes_max);
            }
            if record.place == Place::Merkle {
                self.keep_warm(id);
            }
        }
        self.drop_oldest_warm();
    }

    fn keep_warm(&mut self, id: RecordId) {
        let record = &mut self.arena[id as usize];
        record.is_warm_again = record.is_warm;
        if !record.is_warm {
            record.is_warm = true;
            let bytes = record.bytes_in_memory();
            self.warm_bytes += bytes;
            self.warm.push_back((id, bytes));
        }
    }

    /// Those that were needed again have a second chance.
    fn drop_oldest_warm(&mut self) {
        while self.warm_bytes > self.warm_bytes_max {
            let Some((id, bytes)) = self.warm.pop_front() else {
                return;
            };
            self.warm_bytes -= bytes;
            let record = &mut self.arena[id as usize];
            record.is_warm = false;
            if record.place != Place::Merkle || record.is_held() {
                // it waits for a sweep when it is neither any more
            } else if core::mem::take(&mut record.is_warm_again) {
                self.keep_warm(id);
            } else {
                self.remove(id);
            }
        }
    }

    /// Drop a record that belongs to another thread, with its changes.
    pub fn forget(&mut self, id: RecordId) {
        self.set_place(id, Place::Merkle);
        self.changed_bytes -= self.changed_bytes_of(id);
        self.listed.retain(|listed| *listed != id);
        self.awaiting_sweep.retain(|waiting| *waiting != id);
        if let Some(at) = self.warm.iter().position(|(warm, _)| *warm == id) {
            self.warm_bytes -= self.warm.remove(at).map_or(0, |(_, bytes)| bytes);
        }
        self.remove(id);
    }

    fn remove(&mut self, id: RecordId) {
        let record = &mut self.arena[id as usize];
        let key = core::mem::replace(&mut record.key, Key::ROOT);
        record.content = Content::NotLoaded;
        if let Ok(entry) = self
            .table
            .find_entry(table_hash(&self.hasher, &key), |found| *found == id)
        {
            entry.remove();
        }
        self.free.push(id);
    }

    /// Give every record that changed since the last time to `copy`, and keep all of them in memory until [`Self::thaw`]; returns them.
    pub fn freeze(
        &mut self,
        epoch: u32,
        mut copy: impl FnMut(&mut Record) -> Result<(), Error>,
    ) -> Result<Vec<RecordId>, Error> {
        let frozen = core::mem::take(&mut self.listed);
        for together in frozen.chunks(LOOKED_AT_TOGETHER) {
            self.look_at(together.iter().copied());
            for id in together {
                let record = &mut self.arena[*id as usize];
                copy(record)?;
                record.is_listed = false;
                record.is_changed = false;
                record.frozen_in = epoch;
            }
        }
        self.changed_bytes = 0;
        Ok(frozen)
    }

    /// The rows that were frozen in an epoch are in the store. A record that a later checkpoint froze again stays in memory.
    pub fn thaw(&mut self, epoch: u32, frozen: &[RecordId]) {
        for id in frozen {
            let record = &mut self.arena[*id as usize];
            if record.frozen_in == epoch {
                record.frozen_in = 0;
                self.sweep_later(*id);
            }
        }
    }

    /// Bytes of records that changed since rows were last frozen.
    pub const fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Number of records that the next checkpoint looks at.
    pub fn changed_count(&self) -> usize {
        self.listed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_sought_together_are_found_as_each_alone() {
        let key = |number: u16| Key::leaf(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let mut records = Records::new(0, 0);
        for number in 0..5000 {
            records.insert(key(number), Content::NotLoaded, Place::Merkle);
        }
        for first in (0..10_000).step_by(20) {
            let sought = (first..first + 20).map(|number| (number % 3 > 0).then(|| key(number)));
            let alone = sought.clone().map(|key| records.find(&key?));
            assert!(
                alone.eq(records.find_together(sought).into_iter().take(20)),
                "from {first}"
            );
        }
    }

    #[test]
    fn nobody_can_tell_which_keys_meet_in_the_table() {
        let (one, other) = (Records::new(0, 0), Records::new(0, 0));
        let key = Key::leaf([7; 32]);
        assert_ne!(table_hash(&one.hasher, &key), table_hash(&other.hasher, &key));
    }
}
