//! Rows that are needed from the store, and taking them into memory.

use zetakv_verifier::key::{Key, LEAF_DEPTH};

use crate::error::Error;
use crate::records::{Content, Leaf, Place, Records};
use crate::rows;

/// The records whose rows have been asked for, in the order of the question.
#[derive(Debug, Default)]
pub struct Wanted {
    keys: Vec<Key>,
}

impl Wanted {
    /// Ask for a record's row. It may be asked for more than once.
    pub fn push(&mut self, key: Key) {
        self.keys.push(key);
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
