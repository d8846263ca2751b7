//! Writing the verifier log: each method appends one entry, and does to the mirror what the entry does to the verifier.
//!
//! Invariant: after each method, clock, cache, links and values here are those of the verifier when it has read the log so far. An honest
//! prover is accused if this breaks, so nothing else writes entries or changes the clock, the cache or the place of a record.

use zetakv_verifier::Incarnation;
use zetakv_verifier::crypto::Mac;
use zetakv_verifier::entry::{Entry, Slot, Slots, ThreadId};
use zetakv_verifier::key::{Key, LEAF_DEPTH};
use zetakv_verifier::machine::Role;
use zetakv_verifier::request::RESUME_BYTES;
use zetakv_verifier::time::Timestamp;
use zetakv_verifier::value::{Child, NO_HASH, Node};

use crate::cache::{AddedBy, Cache, NO_SLOT, Occupant, ROOT_SLOT};
use crate::derive::SUBTREE_RECORDS_MAX;
use crate::error::Error;
use crate::hash::merkle_hash;
use crate::records::{Place, Record, RecordId, Records, STORED};
use crate::rows::SHORT_KEY_BITS;

/// Bytes of one log, before nothing more is begun that can wait for the next: so many find room in a socket at once, and the verifier can read all
/// of one log while the next is written (Linux gives a Unix socket 208 KiB, bookkeeping included).
pub const LOG_BYTES: usize = 128 << 10;

/// Bytes that every log has for what ends an epoch, however many operations are in it: else clients that have enough of them in flight could keep
/// an epoch from ending.
const CUT_BYTES_MIN: usize = LOG_BYTES / 2;

const LINK_BROKEN: Error = Error::Engine("a slot of the cache is not what it should be");
const CLOCK_ENDS: Error = Error::Engine("the clock is at its end: the epoch should have been closed long ago");

/// What has been written and done since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Operations that ran.
    pub operations: u64,
    /// Bytes of verifier log.
    pub log_bytes: u64,
    /// Records added by Merkle.
    pub merkle_adds: u64,
    /// Records added from Blum.
    pub blum_adds: u64,
}

/// So many records, which take so many bytes of memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct HotSize {
    pub records: usize,
    pub bytes: usize,
}

impl HotSize {
    /// One record more.
    pub fn add(&mut self, record: &Record) {
        self.records += 1;
        self.bytes += record.bytes_in_memory();
    }

    /// One record less, which may have had other bytes when it was added.
    pub fn remove(&mut self, record: &Record) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(record.bytes_in_memory());
    }

    /// Both together.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            bytes: self.bytes + other.bytes,
        }
    }

    /// What is above the most that may be.
    pub const fn beyond(self, most: Self) -> Self {
        Self {
            records: self.records.saturating_sub(most.records),
            bytes: self.bytes.saturating_sub(most.bytes),
        }
    }

    /// Whether there is nothing.
    pub const fn is_empty(self) -> bool {
        self.records == 0 && self.bytes == 0
    }
}

/// One verifier thread, as its log has made it.
#[derive(Debug)]
pub struct Mirror {
    pub thread: ThreadId,
    pub records: Records,
    pub cache: Cache,
    pub clock: Timestamp,
    /// The cache is being cleared: each record has its turn.
    pub is_clearing: bool,
    /// What is in Blum, or in the cache from there. Bytes are as of when a record came, or was last carried over.
    pub hot: HotSize,
    pub hot_max: HotSize,
    pub counters: Counters,
    log: Vec<u8>,
}

impl Mirror {
    /// A thread at the start of an epoch, with nothing in memory.
    pub fn new(thread: ThreadId, epoch: u32, slots: u32, hot_max: HotSize, records: Records) -> Self {
        Self {
            thread,
            records,
            cache: Cache::new(slots),
            clock: Timestamp::new(epoch, 1),
            is_clearing: false,
            hot: HotSize::default(),
            hot_max,
            counters: Counters::default(),
            log: Vec::new(),
        }
    }

    /// Bytes of the log that is being written.
    pub const fn log_bytes(&self) -> usize {
        self.log.len()
    }

    /// How many bytes the log may have when it has, beside operations, what ends an epoch.
    pub fn log_bytes_with_cut(&self) -> usize {
        LOG_BYTES.max(self.log.len() + CUT_BYTES_MIN)
    }

    /// The log that has been written.
    pub fn take_log(&mut self) -> Vec<u8> {
        self.counters.log_bytes += self.log.len() as u64;
        core::mem::take(&mut self.log)
    }

    fn emit(&mut self, entry: &Entry<'_>) {
        entry.encode(&mut self.log);
    }

    /// The record in a slot that has one.
    pub fn occupant(&self, slot: Slot) -> Result<&Occupant, Error> {
        self.cache.get(slot).ok_or(LINK_BROKEN)
    }

    /// A record is in Blum that the log of this thread has not put there: at the start, by the former owner of its partition.
    pub fn found_in_blum(&mut self, id: RecordId, ts: Timestamp, thread: ThreadId) {
        self.hot.add(self.records.get(id));
        self.records.set_place(id, Place::Blum { ts, thread });
        self.touch(id);
    }

    /// Another thread goes on with a record that is in Blum.
    pub fn forget(&mut self, id: RecordId) {
        self.hot.remove(self.records.get(id));
        self.records.forget(id);
    }

    // --- Merkle ---

    /// Add a record by the hash that its parent has of it.
    pub fn add_again(&mut self, id: RecordId, slot: Slot, parent: Slot) -> Result<(), Error> {
        self.records.get_mut(id).hash_is_current = true;
        self.add_merkle(id, slot, parent)
    }

    /// At the very first start: the root, which the verifier has in its slot for ever.
    pub fn place_root(&mut self) -> RecordId {
        let id = self.records.insert_new(Key::ROOT, None);
        self.records.set_place(id, Place::Cached(ROOT_SLOT));
        self.cache.occupy(ROOT_SLOT, id, AddedBy::Blum);
        id
    }

    /// The root is not needed any more: all proofs start at partition nodes or below.
    pub fn forget_root(&mut self, id: RecordId) {
        self.cache.vacate(ROOT_SLOT);
        self.records.forget(id);
    }

    /// Add a new record with its initial value: its parent has none on that side, or only one below it, which is then below the new one.
    ///
    /// `application_key` is that of a leaf; None for a node.
    pub fn add_new(
        &mut self,
        key: Key,
        application_key: Option<&[u8]>,
        slot: Slot,
        parent: Slot,
    ) -> Result<RecordId, Error> {
        let above = self.occupant(parent)?;
        let (parent_id, links) = (above.record, above.links);
        let direction = self.records.get(parent_id).key.direction_to(&key).ok_or(LINK_BROKEN)?;
        let mut sides = *self.records.node(parent_id)?;
        let below = sides.side(direction).copied();
        let linked_below = links[direction as usize];

        let id = self.records.insert_new(key, application_key);
        self.add_merkle(id, slot, parent)?;
        let hash = Some(NO_HASH);
        sides.set_side(direction, Child { key, hash });
        self.records.write_node(parent_id, sides);
        if application_key.is_some() {
            self.records.get_mut(id).has_long_key = self.records.get(parent_id).key.depth() >= SHORT_KEY_BITS;
            self.count_record(parent)?;
        }
        let Some(below) = below else { return Ok(id) };
        match self.count_below(&below.key) {
            STORED => self.store_from(slot)?,
            count => self.records.get_mut(id).records_below = count,
        }

        let direction = key.direction_to(&below.key).ok_or(LINK_BROKEN)?;
        let mut sides = Node::default();
        sides.set_side(direction, below);
        self.records.write_node(id, sides);
        if let Some(child) = self.cache.get_mut(linked_below) {
            child.added_by = AddedBy::Merkle { parent: slot };
            self.cache.link(slot, direction, linked_below);
        }
        Ok(id)
    }

    /// The number of records below a child, itself included; [`STORED`] if it is not derived, or not in memory.
    fn count_below(&self, child: &Key) -> u8 {
        if child.depth() == LEAF_DEPTH {
            return 1;
        }
        self.records
            .find(child)
            .map_or(STORED, |id| self.records.get(id).records_below)
    }

    /// A record is new below a cached node: the derived nodes above it count it, and those that have too many are stored from now on.
    fn count_record(&mut self, mut slot: Slot) -> Result<(), Error> {
        loop {
            let Occupant {
                record: id, added_by, ..
            } = *self.occupant(slot)?;
            match self.records.get(id).records_below {
                STORED => return Ok(()),
                SUBTREE_RECORDS_MAX => self.records.store_node(id),
                count => self.records.get_mut(id).records_below = count + 1,
            }
            let AddedBy::Merkle { parent } = added_by else {
                return Err(LINK_BROKEN); // derived nodes are never in Blum
            };
            slot = parent;
        }
    }

    /// The node in a slot is stored from now on, and so are all above it.
    fn store_from(&mut self, mut slot: Slot) -> Result<(), Error> {
        loop {
            let Occupant {
                record: id, added_by, ..
            } = *self.occupant(slot)?;
            if self.records.get(id).records_below != STORED {
                self.records.store_node(id);
            }
            let AddedBy::Merkle { parent } = added_by else {
                return Ok(());
            };
            slot = parent;
        }
    }

    fn add_merkle(&mut self, id: RecordId, slot: Slot, parent: Slot) -> Result<(), Error> {
        let record = self.records.get(id);
        let (key, value) = (record.key, record.value()?);
        self.emit(&Entry::AddMerkle {
            slot,
            parent,
            key,
            value,
        });
        self.counters.merkle_adds += 1;
        let above = self.cache.get_mut(parent).ok_or(LINK_BROKEN)?;
        above.passages = above.passages.saturating_add(1);
        above.referenced = true;
        let parent_id = above.record;
        let parent_key = self.records.get(parent_id).key;
        self.cache
            .link(parent, parent_key.direction_to(&key).ok_or(LINK_BROKEN)?, slot);
        self.records.get_mut(id).above = parent_id;
        self.cache.occupy(slot, id, AddedBy::Merkle { parent });
        self.records.set_place(id, Place::Cached(slot));
        self.touch(id);
        Ok(())
    }

    /// Evict a record, and have its hash in its parent.
    pub fn evict_merkle(&mut self, slot: Slot, parent: Slot) -> Result<(), Error> {
        self.emit(&Entry::EvictMerkle { slot, parent });
        let occupant = *self.occupant(slot)?;
        if occupant.added_by == AddedBy::Blum {
            self.hot.remove(self.records.get(occupant.record));
            self.records.list(occupant.record);
        }
        let record = self.records.get(occupant.record);
        let key = record.key;
        if !record.hash_is_current {
            let hash = merkle_hash(&record.value()?);
            self.write_side(parent, &key, |side| side.hash = Some(hash))?;
        }
        self.leave(slot, parent, &key, Place::Merkle)?;
        self.records.get_mut(occupant.record).hash_is_current = true;
        Ok(())
    }

    /// Change what a cached parent has of the record `key` on its side.
    fn write_side(&mut self, parent: Slot, key: &Key, change: impl FnOnce(&mut Child)) -> Result<(), Error> {
        let id = self.occupant(parent)?.record;
        let direction = self.records.get(id).key.direction_to(key).ok_or(LINK_BROKEN)?;
        let mut sides = *self.records.node(id)?;
        match &mut sides.sides[direction as usize] {
            Some(side) if side.key == *key => change(side),
            _ => return Err(LINK_BROKEN),
        }
        self.records.write_node(id, sides);
        Ok(())
    }

    /// Empty a slot, and its parent's link to it ([`NO_SLOT`]: it has none).
    fn leave(&mut self, slot: Slot, parent: Slot, key: &Key, place: Place) -> Result<(), Error> {
        let id = self.occupant(slot)?.record;
        if parent != NO_SLOT {
            let parent_key = self.records.get(self.occupant(parent)?.record).key;
            self.cache
                .link(parent, parent_key.direction_to(key).ok_or(LINK_BROKEN)?, NO_SLOT);
        }
        self.cache.vacate(slot);
        self.records.set_place(id, place);
        Ok(())
    }

    // --- Blum ---

    /// Add a record that is in Blum, for which it may have to be carried over first.
    pub fn add_blum(&mut self, id: RecordId, slot: Slot) -> Result<(), Error> {
        self.carry_over(id)?;
        let record = self.records.get(id);
        let Place::Blum { ts, thread } = record.place else {
            return Err(Error::Engine("a record is not in Blum"));
        };
        let (key, value) = (record.key, record.value()?);
        self.emit(&Entry::AddBlum {
            slot,
            ts,
            thread,
            key,
            value,
        });
        self.counters.blum_adds += 1;
        self.pass(ts)?;
        self.cache.occupy(slot, id, AddedBy::Blum);
        self.records.set_place(id, Place::Cached(slot));
        Ok(())
    }

    /// Carry a record over that is in Blum since an epoch before the clock's; nothing happens if it is not.
    pub fn carry_over(&mut self, id: RecordId) -> Result<(), Error> {
        let record = self.records.get(id);
        let Place::Blum { ts, thread } = record.place else {
            return Ok(());
        };
        if ts.epoch == self.clock.epoch {
            return Ok(());
        }
        let (key, value) = (record.key, record.value()?);
        self.emit(&Entry::CarryOver { ts, thread, key, value });
        let (ts, thread) = (Timestamp::new(self.clock.epoch, 0), self.thread);
        self.records.set_place(id, Place::Blum { ts, thread });
        Ok(())
    }

    /// Evict a record that came from Blum.
    pub fn evict_blum(&mut self, slot: Slot) -> Result<(), Error> {
        let ts = self.clock.next().ok_or(CLOCK_ENDS)?;
        self.emit(&Entry::EvictBlum { slot, ts });
        let thread = self.thread;
        let key = self.records.get(self.occupant(slot)?.record).key;
        self.clock = ts;
        self.leave(slot, NO_SLOT, &key, Place::Blum { ts, thread })
    }

    /// Evict to Blum a record that was added by Merkle.
    pub fn evict_blum_merkle(&mut self, slot: Slot) -> Result<(), Error> {
        let ts = self.clock.next().ok_or(CLOCK_ENDS)?;
        let occupant = *self.occupant(slot)?;
        let AddedBy::Merkle { parent } = occupant.added_by else {
            return Err(LINK_BROKEN);
        };
        self.emit(&Entry::EvictBlumMerkle { slot, parent, ts });
        let thread = self.thread;
        let key = self.records.get(occupant.record).key;
        self.write_side(parent, &key, |side| side.hash = None)?;
        self.records.get_mut(occupant.record).hash_is_current = false;
        self.clock = ts;
        self.hot.add(self.records.get(occupant.record));
        self.records.list(occupant.record);
        self.leave(slot, parent, &key, Place::Blum { ts, thread })
    }

    // --- the clock ---

    /// The clock passes a moment. One that it has passed may be any: clients choose it.
    fn pass(&mut self, ts: Timestamp) -> Result<(), Error> {
        if self.clock <= ts {
            self.clock = ts.next().ok_or(CLOCK_ENDS)?;
        }
        Ok(())
    }

    /// Move the clock by one, so that others may add what was evicted last.
    pub fn tick(&mut self) -> Result<(), Error> {
        self.emit(&Entry::Tick);
        self.pass(self.clock)
    }

    /// Ask to close the epoch; whether that was done, the monitor answers.
    pub fn ask_next_epoch(&mut self) -> Result<(), Error> {
        if self.cache.occupied_count() > 0 {
            return Err(Error::Engine("the cache is not cleared"));
        }
        self.emit(&Entry::NextEpoch);
        Ok(())
    }

    /// The monitor has begun to close the epoch.
    pub fn begin_closing(&mut self) -> Result<(), Error> {
        self.clock = self.clock.next_epoch().and_then(Timestamp::next).ok_or(CLOCK_ENDS)?;
        Ok(())
    }

    /// Hand the closing epoch over: all that was in Blum at its end is carried over.
    pub fn verify_epoch(&mut self) {
        self.emit(&Entry::VerifyEpoch);
    }

    // --- requests ---

    /// Have a request admitted.
    pub fn request(&mut self, request: &[u8]) {
        self.emit(&Entry::Request(request));
    }

    /// Have a resume admitted.
    pub fn resume(&mut self, resume: &[u8; RESUME_BYTES]) {
        self.emit(&Entry::Resume(resume));
    }

    /// What is replayed next was admitted by this incarnation.
    pub fn replay_mark(&mut self, incarnation: &Incarnation) {
        self.emit(&Entry::ReplayMark(incarnation));
    }

    /// Have a request replayed.
    pub fn replay(&mut self, role: Option<Role>, request: &[u8]) {
        self.emit(&Entry::Replay { role, request });
    }

    /// End the replay.
    pub fn end_replay(&mut self, tag: &Mac) {
        self.emit(&Entry::EndReplay(tag));
    }

    /// Run the next operation on the leaf in a slot. `after_ts`: where it is the first of its request.
    pub fn run(&mut self, slot: Slot, after_ts: Option<Timestamp>) -> Result<(), Error> {
        self.emit(&Entry::Run(Slots::new(&[slot]).ok_or(LINK_BROKEN)?));
        self.operation_ran(after_ts)?;
        let occupant = self.cache.get_mut(slot).ok_or(LINK_BROKEN)?;
        occupant.referenced = true;
        let id = occupant.record;
        self.touch(id);
        Ok(())
    }

    /// Run the next operation, a read, on a key that is not in the tree.
    pub fn run_absent(&mut self, parent: Slot, after_ts: Option<Timestamp>) -> Result<(), Error> {
        self.emit(&Entry::RunAbsent { parent });
        self.operation_ran(after_ts)?;
        self.cache.get_mut(parent).ok_or(LINK_BROKEN)?.referenced = true;
        Ok(())
    }

    fn operation_ran(&mut self, after_ts: Option<Timestamp>) -> Result<(), Error> {
        self.counters.operations += 1;
        after_ts.map_or(Ok(()), |ts| self.pass(ts))
    }

    /// A record was needed: it is not among the oldest.
    pub fn touch(&mut self, id: RecordId) {
        let epoch = self.clock.epoch;
        self.records.get_mut(id).last_used = epoch;
    }
}
