//! Which records have been in Blum for long without being used. All records in Blum are seen once in an epoch, when they are carried over; of
//! these the oldest are remembered, until the cache is cleared at the end of the next epoch.

use crate::partitions;
use crate::records::{Record, RecordId};
use crate::room::HOT_LEAF_USES;

/// Epochs after which a record that was not needed leaves Blum. In Blum it costs work in every epoch; to leave and to come back costs about
/// fifty times as much (docs/performance.md).
const HOT_EPOCHS: u32 = 64;

/// The same for a node, which many paths may lead around, and for a record on which fewer than two operations ran since it was found in Blum
/// at the start.
const HOT_EPOCHS_AT_FIRST: u32 = 16;

/// Of the records in Blum, at most one in so many is remembered that has been used lately: to make room, if there is too little.
const REMEMBERED_SHARE: usize = 16;

/// Ages that are told apart.
const AGES: usize = HOT_EPOCHS as usize + 1;

/// Epochs since a record was last used, at the end of `epoch`; [`HOT_EPOCHS`] are as old as more.
pub fn age(record: &Record, epoch: u32) -> u32 {
    epoch.saturating_sub(record.last_used).min(HOT_EPOCHS)
}

/// Epochs after which a record that was not needed leaves Blum.
pub const fn hot_epochs(record: &Record) -> u32 {
    if record.uses < HOT_LEAF_USES {
        HOT_EPOCHS_AT_FIRST
    } else {
        HOT_EPOCHS
    }
}

/// The oldest records in Blum.
#[derive(Debug)]
pub struct Aging {
    /// Records by age, of those seen so far.
    by_age: [usize; AGES],
    /// From this age on, records are remembered: the last time, one in [`REMEMBERED_SHARE`] had it at the most, but for those of [`HOT_EPOCHS`].
    remembered_age: u32,
    /// With their ages.
    seen: Vec<(u32, RecordId)>,
    oldest: Vec<(u32, RecordId)>,
}

impl Aging {
    /// Nothing has been seen.
    pub const fn new() -> Self {
        Self {
            by_age: [0; AGES],
            remembered_age: HOT_EPOCHS,
            seen: Vec::new(),
            oldest: Vec::new(),
        }
    }

    /// A record in Blum, when `epoch` had ended. Partition nodes stay there for ever.
    pub fn see(&mut self, id: RecordId, record: &Record, epoch: u32) {
        if record.key.depth() == partitions::DEPTH {
            return;
        }
        let age = age(record, epoch);
        self.by_age[age as usize] += 1;
        if age > 0 && (age >= self.remembered_age || age >= hot_epochs(record)) {
            self.seen.push((age, id));
        }
    }

    /// All have been seen.
    pub fn all_seen(&mut self) {
        let by_age = core::mem::replace(&mut self.by_age, [0; AGES]);
        let mut room = by_age.iter().sum::<usize>() / REMEMBERED_SHARE;
        self.remembered_age = HOT_EPOCHS;
        for age in (1..HOT_EPOCHS).rev() {
            let Some(rest) = room.checked_sub(by_age[age as usize]) else {
                break;
            };
            room = rest;
            self.remembered_age = age;
        }
        self.oldest = core::mem::take(&mut self.seen);
        self.oldest.sort_unstable_by_key(|(age, _)| core::cmp::Reverse(*age));
    }

    /// The oldest records, as of the last time all were seen, the oldest first, once; with each, whether it may be old enough now to leave Blum.
    /// They may have been used since.
    pub fn take_oldest(&mut self) -> impl Iterator<Item = (RecordId, bool)> + use<> {
        let oldest = core::mem::take(&mut self.oldest).into_iter();
        oldest.map(|(age, id)| (id, age + 1 >= HOT_EPOCHS_AT_FIRST))
    }
}

#[cfg(test)]
mod tests {
    use zetakv_verifier::key::Key;

    use super::*;
    use crate::records::{Content, Place, Records};

    #[test]
    fn few_are_remembered_and_the_oldest_first() {
        const EPOCH: u32 = 100;
        let mut records = Records::new(0, 0);
        // a sixteenth of 160: all of age 20 and 3, but not of age 1
        let ages = [(20, 5), (3, 4), (1, 100), (0, 51)];
        let ages: Vec<_> = ages.iter().flat_map(|(age, count)| vec![*age; *count]).collect();
        let ids = ages.iter().enumerate().map(|(number, age)| {
            let key = Key::leaf(*blake3::hash(&number.to_le_bytes()).as_bytes());
            let id = records.insert(key, Content::NotLoaded, Place::Merkle);
            let record = records.get_mut(id);
            (record.last_used, record.uses) = (EPOCH - age, HOT_LEAF_USES);
            id
        });
        let ids: Vec<_> = ids.collect();
        let mut aging = Aging::new();
        let see_all = |aging: &mut Aging| {
            ids.iter().for_each(|id| aging.see(*id, records.get(*id), EPOCH));
            aging.all_seen();
            aging
                .take_oldest()
                .map(|(id, may_leave)| (ages[id as usize], may_leave))
                .collect()
        };
        let at_first: Vec<_> = see_all(&mut aging);
        assert_eq!(
            at_first,
            [],
            "nothing has been there for long, and which are the oldest is not known"
        );
        let oldest: Vec<_> = see_all(&mut aging);
        assert_eq!(oldest, [vec![(20, true); 5], vec![(3, false); 4]].concat());
    }
}
