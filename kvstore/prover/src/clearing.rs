//! Clearing the cache, right before `next_epoch`: what is worth being found in Blum goes there, all else to Merkle; and so do records in Blum
//! that have not been used lately.
//!
//! What came by Merkle or goes there has its turn in post-order of the key tree. A record that goes to Merkle needs its parent in the cache: the
//! path to it is brought in, and its nodes leave again when the last record below them has had its turn. They are always ancestors of the
//! record whose turn it is, so they form a stack. Invariant: what is still to come is later in post-order than all that has left. At last go
//! the records that came from Blum and go back, in any order.

use zetakv_verifier::entry::Slot;
use zetakv_verifier::key::{Key, LEAF_DEPTH};

use crate::aging::{Aging, age, hot_epochs};
use crate::cache::{AddedBy, NO_SLOT, Occupant};
use crate::error::Error;
use crate::mirror::{LOG_BYTES, Mirror};
use crate::partitions;
use crate::reading::Wanted;
use crate::records::{LOOKED_AT_TOGETHER, Place, Record, RecordId, Records};
use crate::walk::End;

/// Records that are planned at once: a few logs of them.
const BATCH_RECORDS: usize = 8192;

const NOT_CACHED: Error = Error::Engine("a record has left the cache before its turn");

/// A clearing in progress.
#[derive(Debug)]
pub struct Clearing {
    /// What came by Merkle or goes there, in post-order.
    turns: Vec<Turn>,
    /// What came from Blum and goes back, and is cached.
    going_back: Vec<Slot>,
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
    goes_cold: bool,
}

impl Turn {
    fn new(mirror: &Mirror, id: RecordId, goes_cold: bool) -> Self {
        let key = &mirror.records.get(id).key;
        Self {
            first_bits: first_bits(key),
            record: id,
            goes_cold: goes_cold && key.depth() != partitions::DEPTH,
        }
    }
}

impl Clearing {
    /// Begin. `all_to_merkle`: nothing stays in Blum but the partition nodes.
    pub fn new(mirror: &mut Mirror, aging: &mut Aging, all_to_merkle: bool, records_at_once: usize) -> Self {
        mirror.is_clearing = true;
        let (mut turns, going_back) = if all_to_merkle {
            let all = mirror.records.known().iter();
            (all.map(|id| Turn::new(mirror, *id, true)).collect(), Vec::new())
        } else {
            (choose_turns(mirror, aging), from_blum(mirror).collect())
        };
        turns.extend(left_by_others(mirror).map(|id| Turn::new(mirror, id, false)));
        sort_in_post_order(&mirror.records, &mut turns);
        turns.dedup_by_key(|turn| turn.record);
        Self {
            turns,
            going_back,
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
            self.unplanned
                .extend((self.done..self.planned).map(|index| (index, None)));
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
            return Err(Error::Engine(
                "the rows that records need to leave the cache have not been supplied",
            ));
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
        go_back(mirror, &mut self.going_back, usize::MAX)?;
        mirror.is_clearing = !self.going_back.is_empty();
        Ok(!mirror.is_clearing)
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
            match mirror.cache.get(slot).ok_or(NOT_CACHED)?.added_by {
                AddedBy::Blum => mirror.evict_blum(slot)?,
                AddedBy::Merkle { parent } => mirror.evict_merkle(slot, parent)?,
            }
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
            AddedBy::Blum => mirror.evict_blum(slot),
            AddedBy::Merkle { parent } if turn.goes_cold => mirror.evict_merkle(slot, parent),
            AddedBy::Merkle { .. } => mirror.evict_blum_merkle(slot),
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

/// What is cached and came by Merkle, and of what is in Blum the oldest: what was not used for long, and as many as there is too little room
/// for. If these are not enough, what would be new in Blum does not come there.
fn choose_turns(mirror: &Mirror, aging: &mut Aging) -> Vec<Turn> {
    let (mut turns, mut coming) = (Vec::new(), Vec::new());
    let mut hot = mirror.hot;
    for (_, occupant) in mirror.cache.occupants() {
        if occupant.added_by == AddedBy::Blum {
            continue;
        }
        if mirror.is_hot(occupant) {
            hot.add(mirror.records.get(occupant.record));
            coming.push(occupant.record);
        } else {
            turns.push(Turn::new(mirror, occupant.record, true));
        }
    }
    let mut excess = hot.beyond(mirror.hot_max);
    for (id, may_be_old) in aging.take_oldest() {
        if excess.is_empty() && !may_be_old {
            break;
        }
        let record = mirror.records.get(id);
        let is_old = age(record, mirror.clock.epoch) >= hot_epochs(record);
        if matches!(record.place, Place::Blum { .. }) && (is_old || !excess.is_empty()) {
            excess.remove(record);
            turns.push(Turn::new(mirror, id, true));
        }
    }
    for id in coming {
        turns.push(Turn::new(mirror, id, !excess.is_empty()));
        excess.remove(mirror.records.get(id));
    }
    turns
}

/// The slots of what came from Blum.
pub fn from_blum(mirror: &Mirror) -> impl Iterator<Item = Slot> {
    let occupants = mirror.cache.occupants();
    occupants
        .filter(|(_, occupant)| occupant.added_by == AddedBy::Blum)
        .map(|(slot, _)| slot)
}

/// Evict to Blum what is in these slots, from the last one on, so many at the most and as the log has room for; but not what did not come from
/// there, or has a child in the cache.
pub fn go_back(mirror: &mut Mirror, slots: &mut Vec<Slot>, most: usize) -> Result<(), Error> {
    let least = slots.len().saturating_sub(most);
    let log_bytes_max = mirror.log_bytes_with_cut();
    while slots.len() > least && mirror.log_bytes() < log_bytes_max {
        if slots.len().is_multiple_of(LOOKED_AT_TOGETHER) {
            let next = slots.iter().rev().take(LOOKED_AT_TOGETHER);
            let next = next.filter_map(|slot| mirror.cache.get(*slot));
            mirror.records.look_at(next.map(|occupant| occupant.record));
        }
        let occupant = slots.pop().and_then(|slot| Some((slot, mirror.cache.get(slot)?)));
        if let Some((slot, occupant)) = occupant
            && occupant.added_by == AddedBy::Blum
            && occupant.is_free_of_links()
        {
            mirror.evict_blum(slot)?;
        }
    }
    Ok(())
}

/// Records in Blum that another thread has evicted in this epoch: only that thread could carry them over. At the very first start these are the
/// partition nodes.
fn left_by_others(mirror: &Mirror) -> impl Iterator<Item = RecordId> {
    let partitions = (0..partitions::COUNT).filter_map(|partition| mirror.records.find(&partitions::node(partition)));
    partitions.filter(|id| match mirror.records.get(*id).place {
        Place::Blum { ts, thread } => thread != mirror.thread && ts.counter > 0,
        Place::Merkle | Place::Cached(_) => false,
    })
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
