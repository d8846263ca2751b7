//! Rows that are needed from the store, and taking them into memory.

use zetakv_verifier::key::{Key, LEAF_DEPTH};
use zetakv_verifier::value::{Commitment, Value};

use crate::derive::{self, FoundRecord, SUBTREE_RECORDS_MAX};
use crate::error::Error;
use crate::hash::merkle_hash;
use crate::partitions;
use crate::records::{Content, Leaf, Place, Records};
use crate::rows::{self, RecordRow};
use crate::suspects::{Suspect, Suspects};

/// Records' rows that are read at once at the least: else reading is slow where values may be long, but are not.
const RECORDS_AT_ONCE_MIN: usize = 16;

/// Records' rows that are read at once at the most.
const RECORDS_AT_ONCE_MAX: usize = 1024;

/// Rows of a range that are needed at the most: one more than a subtree that is not stored has records.
pub const RANGE_ROWS_MAX: usize = SUBTREE_RECORDS_MAX as usize + 1;

const GARBLED: &str = "a row is garbled";
pub const MISSING: &str = "a row is missing";

/// Records' rows that may be read at once: so many have no more than `read_bytes_max`, even if their values are as long as they may be.
pub fn records_at_once(read_bytes_max: usize, value_bytes_max: usize) -> usize {
    (read_bytes_max / value_bytes_max.max(1)).clamp(RECORDS_AT_ONCE_MIN, RECORDS_AT_ONCE_MAX)
}

/// What is asked of the store at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Store keys of rows.
    pub keys: Vec<Vec<u8>>,
    /// First and past-the-last store keys of ranges, of each of which the first [`RANGE_ROWS_MAX`] rows are needed.
    pub ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Reads {
    /// Whether nothing is asked for.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }
}

/// The records whose rows have been asked for, in the order of the question. A node without a row is then derived from the records below
/// it; a record whose place another one has is then read from its long store key.
#[derive(Debug)]
pub struct Wanted {
    /// With the targets: the keys to which these rows are on the way.
    keys: Vec<(Key, Key)>,
    /// Leaves to be found under their long store keys.
    long: Vec<Key>,
    /// Nodes to be derived, with the targets below them.
    derived: Vec<(Key, Vec<Key>)>,
    /// Bytes of rows that one batch may read.
    read_bytes_max: usize,
    supplied_bytes: usize,
    /// Of the rows that were read since the start.
    pub suspects: Suspects,
}

impl Wanted {
    pub fn new(read_bytes_max: usize) -> Self {
        Self {
            keys: Vec::new(),
            long: Vec::new(),
            derived: Vec::new(),
            read_bytes_max,
            supplied_bytes: 0,
            suspects: Suspects::default(),
        }
    }

    /// Ask for the row of `key`, on the way to `target`. It may be asked for more than once.
    pub fn push(&mut self, key: Key, target: Key) {
        self.keys.push((key, target));
    }

    /// A batch begins: its bytes are counted from here.
    pub const fn begin_batch(&mut self) {
        self.supplied_bytes = 0;
    }

    /// Whether the batch has read so much that it should end with what is ready.
    pub const fn batch_is_full(&self) -> bool {
        self.supplied_bytes >= self.read_bytes_max
    }

    /// Whether nothing is asked for.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.long.is_empty() && self.derived.is_empty()
    }

    /// What to read, each once; rows near each other in the tree are near each other here.
    pub fn reads(&mut self) -> Reads {
        self.keys.sort_unstable_by(|(a, _), (b, _)| a.cmp_post_order(b));
        let keys = by_row(&self.keys).map(|wanted| row_key(&wanted[0].0));
        let long = self.long.iter().map(|key| rows::record_key(key, true));
        Reads {
            keys: keys.chain(long).collect(),
            ranges: self.derived.iter().map(|(node, _)| rows::records_range(node)).collect(),
        }
    }

    /// Take what was asked for into memory. `ranges` may be the first few of those that were asked for: they may hold much more than single
    /// rows do. The others are asked for again, if the batch still has room for them.
    pub fn supply<R: AsRef<[u8]>>(
        &mut self,
        records: &mut Records,
        rows: &[Option<R>],
        ranges: &[Vec<(R, R)>],
    ) -> Result<(), Error> {
        let ranges_fit = ranges.len() <= self.derived.len() && ranges.is_empty() == self.derived.is_empty();
        if rows.len() != by_row(&self.keys).count() + self.long.len() || !ranges_fit {
            return Err(Error::Engine("as many rows must be supplied as were asked for"));
        }
        let row_bytes = |row: &Option<R>| row.as_ref().map_or(0, |row| row.as_ref().len());
        self.supplied_bytes += rows.iter().map(row_bytes).sum::<usize>();
        let in_ranges = ranges.iter().flatten();
        self.supplied_bytes += in_ranges.map(|(_, row)| row.as_ref().len()).sum::<usize>();
        let keys = core::mem::take(&mut self.keys);
        let long = core::mem::take(&mut self.long);
        let derived: Vec<_> = self.derived.drain(..ranges.len()).collect();
        if self.batch_is_full() {
            self.derived.clear();
        }
        let mut rows = rows.iter().map(|row| row.as_ref().map(R::as_ref));
        for (wanted, row) in by_row(&keys).zip(&mut rows) {
            let key = &wanted[0].0;
            let in_store = |text| Error::in_row(text, row_key(key));
            if key.depth() == LEAF_DEPTH {
                self.take_record(records, key, false, row).map_err(in_store)?;
            } else if !self.take_node(records, key, row).map_err(in_store)? {
                self.derived
                    .push((*key, wanted.iter().map(|(_, target)| *target).collect()));
            }
        }
        for (key, row) in long.iter().zip(&mut rows) {
            self.take_record(records, key, true, row)
                .map_err(|text| Error::in_row(text, rows::record_key(key, true)))?;
        }
        for ((node, targets), found) in derived.iter().zip(ranges) {
            let found = self.below(node, found)?;
            derive::derive(records, *node, &found, targets)
                .map_err(|text| Error::in_row(text, rows::node_key(node)))?;
        }
        Ok(())
    }

    fn take_record(
        &mut self,
        records: &mut Records,
        key: &Key,
        is_long: bool,
        row: Option<&[u8]>,
    ) -> Result<(), &'static str> {
        let row = RecordRow::decode(row.ok_or(MISSING)?).map_err(|_| GARBLED)?;
        if rows::leaf_of(row.application_key) == *key {
            let leaf = Leaf::read(row.value);
            let held = rows::checksum(&Value::Leaf(leaf.commitment));
            self.suspects.compare(row.checksum, held, || Suspect {
                store_key: rows::record_key(key, is_long),
                application_key: Some(row.application_key.to_vec()),
            });
            load(records, key, Content::Leaf(leaf), is_long)
        } else if is_long {
            Err(GARBLED)
        } else {
            self.long.push(*key);
            Ok(())
        }
    }

    /// Take a node into memory; false if it has no row, and is to be derived.
    fn take_node(&mut self, records: &mut Records, key: &Key, row: Option<&[u8]>) -> Result<bool, &'static str> {
        match row {
            Some(row) => {
                let (node, said) = rows::decode_node(key, row).map_err(|_| GARBLED)?;
                let held = rows::checksum(&Value::Node(node));
                self.suspects.compare(said, held, || Suspect {
                    store_key: rows::node_key(key),
                    application_key: None,
                });
                load(records, key, Content::Node(Box::new(node)), false).map(|()| true)
            }
            None if key.depth() > partitions::DEPTH => Ok(false),
            None => Err(MISSING),
        }
    }

    /// The records of a range that are below a node, from left to right.
    fn below<'a, R: AsRef<[u8]>>(&mut self, node: &Key, range: &'a [(R, R)]) -> Result<Vec<FoundRecord<'a>>, Error> {
        if range.len() >= RANGE_ROWS_MAX {
            return Err(Error::in_row(MISSING, rows::node_key(node)));
        }
        let mut found = Vec::with_capacity(range.len());
        for (store_key, row) in range {
            let record = read_record(store_key.as_ref(), row.as_ref(), &mut self.suspects)?;
            if node.is_proper_ancestor_of(&record.key) {
                found.push(record);
            }
        }
        found.sort_unstable_by(|a, b| a.key.bits().cmp(b.key.bits()));
        Ok(found)
    }
}

/// A record from its row alone.
pub fn read_record<'a>(store_key: &[u8], row: &'a [u8], suspects: &mut Suspects) -> Result<FoundRecord<'a>, Error> {
    let garbled = || Error::in_row(GARBLED, store_key);
    let row = RecordRow::decode(row).map_err(|_| garbled())?;
    let key = rows::leaf_of(row.application_key);
    let has_long_key = store_key.len() > rows::record_key(&key, false).len();
    if store_key != rows::record_key(&key, has_long_key) {
        return Err(garbled());
    }
    let commitment = row.value.map_or(Commitment::Null, Commitment::of);
    let hash = merkle_hash(&Value::Leaf(commitment));
    suspects.compare(row.checksum, rows::checksum_of(&hash), || Suspect {
        store_key: store_key.to_vec(),
        application_key: Some(row.application_key.to_vec()),
    });
    Ok(FoundRecord {
        key,
        value: row.value,
        commitment,
        hash,
        has_long_key,
    })
}

/// What is wanted, row by row.
fn by_row(wanted: &[(Key, Key)]) -> impl Iterator<Item = &[(Key, Key)]> {
    wanted.chunk_by(|(a, _), (b, _)| a == b)
}

fn row_key(key: &Key) -> Vec<u8> {
    if key.depth() == LEAF_DEPTH {
        rows::record_key(key, false)
    } else {
        rows::node_key(key)
    }
}

fn load(records: &mut Records, key: &Key, content: Content, has_long_key: bool) -> Result<(), &'static str> {
    let Some(id) = records.find(key) else {
        let id = records.insert(*key, content, Place::Merkle);
        records.get_mut(id).has_long_key = has_long_key;
        records.sweep_later(id);
        return Ok(());
    };
    records.sweep_later(id);
    let record = records.get_mut(id);
    match (&mut record.content, content) {
        (old @ Content::NotLoaded, content) => {
            *old = content;
            record.has_long_key = has_long_key;
        }
        (Content::Leaf(old), Content::Leaf(new)) if old.lacks_bytes() => {
            if old.commitment != new.commitment {
                return Err("a record's row does not hold the value that was stored");
            }
            old.bytes = new.bytes;
        }
        _ => {} // it came into memory by another way in the meantime
    }
    Ok(())
}
