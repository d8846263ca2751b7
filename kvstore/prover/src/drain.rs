//! The drain: between `next_epoch` and `verify_epoch` every record that is cached or in Blum goes to Blum at the first moment of the next
//! epoch, or to Merkle if it has not been used lately.
//!
//! All go in post-order of the key tree, so one timestamp serves for all of them. A record that goes to Merkle needs its parent in the
//! cache: the path to it is brought in, and its nodes leave again, by Merkle, when the last record below them has had its turn. They are
//! always ancestors of the record whose turn it is, so they form a stack. Invariant: what is still to come is later in post-order than all
//! that was evicted.

use zetakv_verifier::key::{Key, LEAF_DEPTH};

use crate::cache::{AddedBy, NO_SLOT};
use crate::error::Error;
use crate::mirror::{HOT_LEAF_USES, Mirror};
use crate::partitions;
use crate::reading::Wanted;
use crate::records::{Content, Place, Record, RecordId, Records};
use crate::walk::End;

/// Epochs after which a record that was not needed leaves Blum. In Blum it costs work in every epoch; to leave and to come back costs about
/// fifty times as much (docs/performance.md).
const HOT_EPOCHS: usize = 64;

/// The same for a node, which many paths may lead around, and for a record on which fewer than two operations ran since it was found in Blum
/// at the start.
const HOT_EPOCHS_AT_FIRST: usize = 16;

/// Bytes of one log of a drain, so that the verifier checks while the prover writes.
const LOG_BYTES: usize = 1 << 20;

/// Records that are planned at once: the log of so many is about that long.
const BATCH_RECORDS: usize = 8192;

const NOT_CACHED: Error = Error::Engine("the drain has lost a record");

/// A drain in progress.
#[derive(Debug)]
pub struct Drain {
    /// What is cached or in Blum, in post-order.
    worklist: Vec<RecordId>,
    /// Records whose rows may be read at once.
    records_at_once: usize,
    done: usize,
    /// The records before this in the worklist are planned: what they need is in memory, once `unplanned` is empty.
    planned: usize,
    /// With the last node that was found on the path to each.
    unplanned: Vec<(RecordId, Option<RecordId>)>,
    /// The nodes that were brought in for records that went to Merkle, from the top.
    stack: Vec<RecordId>,
    path: Vec<RecordId>,
}

impl Drain {
    /// Begin, right after `next_epoch`.
    pub fn new(mirror: &mut Mirror, all_to_merkle: bool, records_at_once: usize) -> Self {
        let worklist = in_post_order(&mirror.records);
        choose_cold(mirror, &worklist, all_to_merkle);
        Self {
            worklist,
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
            self.planned = self.worklist.len().min(self.done + BATCH_RECORDS);
            let planned = &self.worklist[self.done..self.planned];
            self.unplanned.extend(planned.iter().map(|id| (*id, None)));
            wanted.begin_batch();
        } else if wanted.batch_is_full() {
            self.cut_batch_short();
        }
        let mut still_unplanned = Vec::new();
        let mut records = 0;
        for (id, mut reached) in self.unplanned.drain(..) {
            if records >= self.records_at_once {
                still_unplanned.push((id, reached));
                continue;
            }
            if let Some(key) = missing(mirror, id, &mut reached)? {
                records += usize::from(key.depth() == LEAF_DEPTH);
                wanted.push(key, mirror.records.get(id).key);
                still_unplanned.push((id, reached));
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
        let planned = &self.worklist[self.done..self.planned];
        let ready = planned.iter().take_while(|id| *id != first).count();
        self.unplanned.truncate(usize::from(ready == 0));
        self.planned = self.done + ready.max(1);
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
            let id = self.worklist[self.done];
            self.done += 1;
            let key = mirror.records.get(id).key;
            self.leave_behind(mirror, Some(&key))?;
            self.take_turn(mirror, id, &key)?;
        }
        if self.done < self.worklist.len() {
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

    fn take_turn(&mut self, mirror: &mut Mirror, id: RecordId, key: &Key) -> Result<(), Error> {
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
        let goes_cold = core::mem::take(&mut mirror.records.get_mut(id).goes_cold);
        match added_by {
            AddedBy::Blum if goes_cold => {
                mirror.records.get_mut(id).uses = 0;
                let mut path = core::mem::take(&mut self.path);
                mirror.walk(key, Some(id), &mut path)?;
                let parent = mirror.bring_path(&path, &mut self.stack)?;
                self.path = path;
                mirror.evict_merkle(slot, parent)
            }
            AddedBy::Blum => mirror.evict_blum(slot, mirror.clock),
            AddedBy::Merkle { parent } if goes_cold => mirror.evict_merkle(slot, parent),
            AddedBy::Merkle { .. } => mirror.evict_blum_merkle(slot, mirror.clock),
        }
    }
}

/// The record whose row must be in memory before a record has its turn, if there is one.
fn missing(mirror: &Mirror, id: RecordId, reached: &mut Option<RecordId>) -> Result<Option<Key>, Error> {
    let record = mirror.records.get(id);
    if let Content::NotLoaded = record.content {
        return Ok(Some(record.key));
    }
    let comes_from_blum = match record.place {
        Place::Cached(slot) => mirror
            .cache
            .get(slot)
            .is_some_and(|occupant| occupant.added_by == AddedBy::Blum),
        Place::Blum { .. } | Place::Merkle => true,
    };
    if !(record.goes_cold && comes_from_blum) {
        return Ok(None);
    }
    match mirror.search(&record.key, reached)? {
        End::Record(_) => Ok(None),
        End::Missing(key) => Ok(Some(key)),
        End::Nothing | End::Other(_) => Err(Error::Store {
            text: "a record in Blum is not in the tree",
            key: crate::rows::hot_key(&record.key, record.has_long_key),
        }),
    }
}

/// All records that are cached or in Blum, descendants before their ancestors, from left to right.
fn in_post_order(records: &Records) -> Vec<RecordId> {
    let known = records.known().iter();
    let mut sorted: Vec<(u64, RecordId)> = known.map(|id| (first_bits(&records.get(*id).key), *id)).collect();
    sorted.sort_unstable_by(|(bits_a, a), (bits_b, b)| {
        bits_a
            .cmp(bits_b)
            .then_with(|| records.get(*a).key.cmp_post_order(&records.get(*b).key))
    });
    sorted.into_iter().map(|(_, id)| id).collect()
}

/// The first 64 bits of a path, padded with ones: decides the post-order of most pairs.
fn first_bits(key: &Key) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.bits()[..8]);
    u64::from_be_bytes(bytes) | u64::MAX.checked_shr(u32::from(key.depth())).unwrap_or(0)
}

/// Mark the records that go to Merkle: what is cached and not hot, what was not used lately, and the oldest of what is too much.
fn choose_cold(mirror: &mut Mirror, worklist: &[RecordId], all_to_merkle: bool) {
    let closing_epoch = mirror.clock.epoch - 1; // next_epoch has raised it
    let mut by_age = [0_usize; HOT_EPOCHS];
    let mut stay = usize::from(partitions::COUNT);
    for id in worklist {
        let record = mirror.records.get(*id);
        if record.key.depth() == partitions::DEPTH {
            continue;
        }
        let age = age_of(mirror, *id, closing_epoch);
        let is_cold = all_to_merkle || age >= hot_epochs(record) || is_passing(mirror, *id);
        mirror.records.get_mut(*id).goes_cold = is_cold;
        if !is_cold {
            by_age[age] += 1;
            stay += 1;
        }
    }
    let mut excess = stay.saturating_sub(mirror.hot_records_max);
    for age in (0..HOT_EPOCHS).rev() {
        if excess == 0 {
            break;
        }
        if by_age[age] == 0 {
            continue;
        }
        for id in worklist {
            let record = mirror.records.get(*id);
            let is_eligible = !record.goes_cold && record.key.depth() != partitions::DEPTH;
            if excess > 0 && is_eligible && age_of(mirror, *id, closing_epoch) == age {
                mirror.records.get_mut(*id).goes_cold = true;
                excess -= 1;
            }
        }
    }
}

fn hot_epochs(record: &Record) -> usize {
    if record.uses < HOT_LEAF_USES {
        HOT_EPOCHS_AT_FIRST
    } else {
        HOT_EPOCHS
    }
}

/// Epochs since a record was last used.
fn age_of(mirror: &Mirror, id: RecordId, epoch: u32) -> usize {
    epoch.saturating_sub(mirror.records.get(id).last_used) as usize
}

/// Whether a record is cached, and not worth being found in Blum.
fn is_passing(mirror: &Mirror, id: RecordId) -> bool {
    let Place::Cached(slot) = mirror.records.get(id).place else {
        return false;
    };
    mirror
        .cache
        .get(slot)
        .is_some_and(|occupant| occupant.added_by != AddedBy::Blum && !mirror.is_hot(occupant))
}
