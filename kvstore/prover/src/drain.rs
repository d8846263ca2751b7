//! The drain: between `next_epoch` and `verify_epoch` every record that is cached or in Blum goes to Blum at the first moment of the next
//! epoch, or to Merkle if it has not been used lately.
//!
//! All go in post-order of the key tree, so one timestamp serves for all of them. A record that goes to Merkle needs its parent in the
//! cache: the path to it is brought in, and its nodes leave again, by Merkle, when the last record below them has had its turn. They are
//! always ancestors of the record whose turn it is, so they form a stack. Invariant: what is still to come is later in post-order than all
//! that was evicted.

use std::cmp::Reverse;

use zetakv_verifier::key::{Key, LEAF_DEPTH};

use crate::cache::{AddedBy, NO_SLOT, Occupant};
use crate::error::Error;
use crate::mirror::{HOT_LEAF_USES, HotSize, Mirror};
use crate::partitions;
use crate::reading::Wanted;
use crate::records::{LOOKED_AT_TOGETHER, Place, Record, RecordId, Records};
use crate::walk::End;

/// Epochs after which a record that was not needed leaves Blum. In Blum it costs work in every epoch; to leave and to come back costs about
/// fifty times as much (docs/performance.md).
const HOT_EPOCHS: u32 = 64;

/// The same for a node, which many paths may lead around, and for a record on which fewer than two operations ran since it was found in Blum
/// at the start.
const HOT_EPOCHS_AT_FIRST: u32 = 16;

/// Bytes of one log of a drain, so that the verifier checks while the prover writes.
const LOG_BYTES: usize = 1 << 20;

/// Records that are planned at once: the log of so many is about that long.
const BATCH_RECORDS: usize = 8192;

const NOT_CACHED: Error = Error::Engine("the drain has lost a record");

/// A drain in progress.
#[derive(Debug)]
pub struct Drain {
    /// What is cached or in Blum, in post-order.
    turns: Vec<Turn>,
    /// Records whose rows may be read at once.
    records_at_once: usize,
    done: usize,
    /// The turns before this one are planned: what they need is in memory, once `unplanned` is empty.
    planned: usize,
    /// Indices into `turns`, with the last node that was found on the path to each.
    unplanned: Vec<(usize, Option<RecordId>)>,
    /// The nodes that were brought in for records that went to Merkle, from the top.
    stack: Vec<RecordId>,
    path: Vec<RecordId>,
}

/// The turn of a record.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// The first 64 bits of its path, padded with ones: decides the post-order of most pairs.
    first_bits: u64,
    record: RecordId,
    /// Epochs since it was last used; [`HOT_EPOCHS`] are as old as more.
    age: u8,
    goes_cold: bool,
    /// When the drain began, its content was in memory: it stays there.
    is_loaded: bool,
}

impl Turn {
    fn new(mirror: &Mirror, id: RecordId, record: &Record, all_to_merkle: bool) -> Self {
        let closing_epoch = mirror.clock.epoch - 1; // next_epoch has raised it
        let age = closing_epoch.saturating_sub(record.last_used).min(HOT_EPOCHS);
        let is_cold = all_to_merkle || age >= hot_epochs(record) || is_passing(mirror, record);
        Self {
            first_bits: first_bits(&record.key),
            record: id,
            age: age as u8, // at most HOT_EPOCHS
            goes_cold: is_cold && record.key.depth() != partitions::DEPTH,
            is_loaded: record.content.is_loaded(),
        }
    }
}

impl Drain {
    /// Begin, right after `next_epoch`.
    pub fn new(mirror: &mut Mirror, all_to_merkle: bool, records_at_once: usize) -> Self {
        // all that is asked of each record is asked here: there may be a million, far from each other in memory
        let (mut hot, mut staying) = (HotSize::default(), HotSize::default());
        let known = mirror.records.known().iter().map(|id| {
            let record = mirror.records.get(*id);
            let turn = Turn::new(mirror, *id, record, all_to_merkle);
            if comes_from_blum(mirror, record) {
                hot.add(record);
            }
            if !turn.goes_cold {
                staying.add(record);
            }
            turn
        });
        let mut turns = known.collect::<Vec<_>>();
        mirror.hot = hot;
        make_room(&mirror.records, &mut turns, staying.beyond(mirror.hot_max));
        sort_in_post_order(&mirror.records, &mut turns);
        Self {
            turns,
            records_at_once,
            done: 0,
            planned: 0,
            unplanned: Vec::new(),
            stack: Vec::new(),
            path: Vec::new(),
        }
    }

    /// Ask for the rows that the next records need.
    pub fn plan(&mut self, mirror: &Mirror, wanted: &mut Wanted) -> Result<(), Error> {
        if self.done == self.planned {
            self.planned = self.turns.len().min(self.done + BATCH_RECORDS);
            let needs_rows = |index: &usize| self.turns[*index].goes_cold || !self.turns[*index].is_loaded;
            let in_need = (self.done..self.planned).filter(needs_rows);
            self.unplanned.extend(in_need.map(|index| (index, None)));
            wanted.begin_batch();
        } else if wanted.batch_is_full() {
            self.cut_batch_short();
        }
        let mut still_unplanned = Vec::new();
        let mut records = 0;
        for (index, mut reached) in self.unplanned.drain(..) {
            if records >= self.records_at_once {
                still_unplanned.push((index, reached));
                continue;
            }
            let turn = &self.turns[index];
            if let Some(key) = missing(mirror, turn, &mut reached)? {
                records += usize::from(key.depth() == LEAF_DEPTH);
                wanted.push(key, mirror.records.get(turn.record).key);
                still_unplanned.push((index, reached));
            }
        }
        self.unplanned = still_unplanned;
        Ok(())
    }

    /// End the batch before the first record that is not ready; or after it, if there is none before.
    fn cut_batch_short(&mut self) {
        let Some((first, _)) = self.unplanned.first() else {
            return;
        };
        let is_first_of_all = *first == self.done;
        self.planned = if is_first_of_all { self.done + 1 } else { *first };
        self.unplanned.truncate(usize::from(is_first_of_all));
    }

    /// Whether all that was planned is written, so that memory may be swept.
    pub const fn is_between_plans(&self) -> bool {
        self.done == self.planned
    }

    /// Write the next piece of the log; true if it is the last.
    pub fn write(&mut self, mirror: &mut Mirror) -> Result<bool, Error> {
        if !self.unplanned.is_empty() {
            return Err(Error::Engine("the rows that a drain needs have not been supplied"));
        }
        while self.done < self.planned && mirror.log_bytes() < LOG_BYTES {
            if self.done.is_multiple_of(LOOKED_AT_TOGETHER) {
                let together = &self.turns[self.done..self.planned.min(self.done + LOOKED_AT_TOGETHER)];
                mirror.records.look_at(together.iter().map(|turn| turn.record));
            }
            let turn = self.turns[self.done];
            self.done += 1;
            let key = mirror.records.get(turn.record).key;
            self.leave_behind(mirror, Some(&key))?;
            self.take_turn(mirror, &turn, &key)?;
        }
        if self.done < self.turns.len() {
            return Ok(false);
        }
        self.leave_behind(mirror, None)?;
        Ok(true)
    }

    /// Evict the nodes of the stack that are not above the record whose turn is next.
    fn leave_behind(&mut self, mirror: &mut Mirror, next: Option<&Key>) -> Result<(), Error> {
        while let Some(id) = self.stack.last() {
            let record = mirror.records.get(*id);
            if next.is_some_and(|next| record.key.is_proper_ancestor_of(next)) {
                break;
            }
            let Place::Cached(slot) = record.place else {
                return Err(NOT_CACHED);
            };
            let Some(AddedBy::Merkle { parent }) = mirror.cache.get(slot).map(|occupant| occupant.added_by) else {
                return Err(NOT_CACHED);
            };
            mirror.evict_merkle(slot, parent)?;
            self.stack.pop();
        }
        Ok(())
    }

    fn take_turn(&mut self, mirror: &mut Mirror, turn: &Turn, key: &Key) -> Result<(), Error> {
        let id = turn.record;
        let slot = match mirror.records.get(id).place {
            Place::Cached(slot) => slot,
            Place::Blum { .. } => {
                let slot = mirror.make_room(NO_SLOT)?;
                mirror.add_blum(id, slot)?;
                slot
            }
            Place::Merkle => return Err(NOT_CACHED),
        };
        let added_by = mirror.cache.get(slot).ok_or(NOT_CACHED)?.added_by;
        match added_by {
            AddedBy::Blum if turn.goes_cold => {
                mirror.records.get_mut(id).uses = 0;
                let mut path = core::mem::take(&mut self.path);
                mirror.walk(key, Some(id), &mut path)?;
                let parent = mirror.bring_path(&path, &mut self.stack)?;
                self.path = path;
                mirror.evict_merkle(slot, parent)
            }
            AddedBy::Blum => mirror.evict_blum(slot, mirror.clock),
            AddedBy::Merkle { parent } if turn.goes_cold => mirror.evict_merkle(slot, parent),
            AddedBy::Merkle { .. } => mirror.evict_blum_merkle(slot, mirror.clock),
        }
    }
}

/// The record whose row must be in memory before a record has its turn, if there is one.
fn missing(mirror: &Mirror, turn: &Turn, reached: &mut Option<RecordId>) -> Result<Option<Key>, Error> {
    let record = mirror.records.get(turn.record);
    if !record.content.is_loaded() {
        return Ok(Some(record.key));
    }
    if !(turn.goes_cold && comes_from_blum(mirror, record)) {
        return Ok(None);
    }
    match mirror.search(&record.key, reached)? {
        End::Record(_) => Ok(None),
        End::Missing(key) => Ok(Some(key)),
        End::Nothing | End::Other(_) => {
            let marker = crate::rows::hot_key(&record.key, record.has_long_key);
            Err(Error::in_row("a record in Blum is not in the tree", marker))
        }
    }
}

/// Descendants before their ancestors, otherwise from left to right.
fn sort_in_post_order(records: &Records, turns: &mut [Turn]) {
    turns.sort_unstable_by(|a, b| {
        let by_key = || records.get(a.record).key.cmp_post_order(&records.get(b.record).key);
        a.first_bits.cmp(&b.first_bits).then_with(by_key)
    });
}

fn first_bits(key: &Key) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.bits()[..8]);
    u64::from_be_bytes(bytes) | u64::MAX.checked_shr(u32::from(key.depth())).unwrap_or(0)
}

/// Of what would be hot and is too much, the oldest goes cold.
fn make_room(records: &Records, turns: &mut [Turn], mut excess: HotSize) {
    if excess.is_empty() {
        return;
    }
    let mut staying: Vec<_> = turns.iter_mut().filter(|turn| !turn.goes_cold).collect();
    staying.sort_unstable_by_key(|turn| Reverse(turn.age));
    for turn in staying {
        let record = records.get(turn.record);
        if record.key.depth() == partitions::DEPTH {
            continue;
        }
        turn.goes_cold = true;
        excess.remove(record);
        if excess.is_empty() {
            return;
        }
    }
}

/// What is in a record's slot, if it is cached.
fn occupant<'a>(mirror: &'a Mirror, record: &Record) -> Option<&'a Occupant> {
    match record.place {
        Place::Cached(slot) => mirror.cache.get(slot),
        Place::Blum { .. } | Place::Merkle => None,
    }
}

/// Whether a record that is cached or in Blum was in Blum before.
fn comes_from_blum(mirror: &Mirror, record: &Record) -> bool {
    occupant(mirror, record).is_none_or(|occupant| occupant.added_by == AddedBy::Blum)
}

fn hot_epochs(record: &Record) -> u32 {
    if record.uses < HOT_LEAF_USES {
        HOT_EPOCHS_AT_FIRST
    } else {
        HOT_EPOCHS
    }
}

/// Whether a record is cached, and not worth being found in Blum.
fn is_passing(mirror: &Mirror, record: &Record) -> bool {
    occupant(mirror, record).is_some_and(|occupant| occupant.added_by != AddedBy::Blum && !mirror.is_hot(occupant))
}
