//! Rows that are needed from the store, and taking them into memory.

use zetakv_verifier::key::{Key, LEAF_DEPTH};

use crate::error::Error;
use crate::records::{Content, Leaf, Place, Records};
use crate::rows;

/// Bytes of values that may be in memory because one batch reads them.
const VALUE_BYTES_AT_ONCE: usize = 256 << 20;

/// Records' rows that are read at once at the least: else reading is slow where values may be long, but are not.
const RECORDS_AT_ONCE_MIN: usize = 16;

/// Records' rows that are read at once at the most.
const RECORDS_AT_ONCE_MAX: usize = 1024;

/// Records' rows that may be read at once, where values may be that long.
pub fn records_at_once(value_bytes_max: usize) -> usize {
    (VALUE_BYTES_AT_ONCE / value_bytes_max.max(1)).clamp(RECORDS_AT_ONCE_MIN, RECORDS_AT_ONCE_MAX)
}

/// The records whose rows have been asked for, in the order of the question.
#[derive(Debug, Default)]
pub struct Wanted {
    keys: Vec<Key>,
    supplied_bytes: usize,
}

impl Wanted {
    /// Ask for a record's row. It may be asked for more than once.
    pub fn push(&mut self, key: Key) {
        self.keys.push(key);
    }

    /// A batch begins: its bytes are counted from here.
    pub const fn begin_batch(&mut self) {
        self.supplied_bytes = 0;
    }

    /// Whether the batch has read so much that it should end with what is ready.
    pub const fn batch_is_full(&self) -> bool {
        self.supplied_bytes >= VALUE_BYTES_AT_ONCE
    }

    /// Whether nothing is asked for.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The store keys of the rows, each once; those near each other in the tree are near each other here.
    pub fn store_keys(&mut self) -> Vec<Vec<u8>> {
        self.keys.sort_unstable_by(Key::cmp_post_order);
        self.keys.dedup();
        self.keys.iter().map(rows::value_key).collect()
    }

    /// Take the rows that were asked for into memory.
    pub fn supply<R: AsRef<[u8]>>(&mut self, records: &mut Records, rows: &[Option<R>]) -> Result<(), Error> {
        if rows.len() != self.keys.len() {
            return Err(Error::Engine("as many rows must be supplied as were asked for"));
        }
        for (key, row) in self.keys.drain(..).zip(rows) {
            let row = row.as_ref().map(R::as_ref);
            self.supplied_bytes += row.map_or(0, <[u8]>::len);
            load(records, &key, row).map_err(|text| Error::Store {
                text,
                key: rows::value_key(&key),
            })?;
        }
        Ok(())
    }
}

fn load(records: &mut Records, key: &Key, row: Option<&[u8]>) -> Result<(), &'static str> {
    const GARBLED: &str = "a row is garbled";
    let row = row.ok_or("a row is missing")?;
    let content = if key.depth() == LEAF_DEPTH {
        let (_, value) = rows::decode_record(row).map_err(|_| GARBLED)?;
        Content::Leaf(Leaf::read(value))
    } else {
        Content::Node(Box::new(rows::decode_node(key, row).map_err(|_| GARBLED)?))
    };
    let Some(id) = records.find(key) else {
        let id = records.insert(*key, content, Place::Merkle);
        records.sweep_later(id);
        return Ok(());
    };
    records.sweep_later(id);
    let record = records.get_mut(id);
    match (&mut record.content, content) {
        (old @ Content::NotLoaded, content) => *old = content,
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
