//! The store of a world: what is durable, what readers see of it, and those who change it.

use std::collections::BTreeMap;

use zetakv_prover::rows;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::standard_crypto::Sum;
use zetakv_verifier::value::Node;

use super::World;
use crate::client::Model;

pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What is durable after a cut: all that a restart starts from.
#[derive(Clone)]
pub struct Durable {
    pub rows: Rows,
    pub threads: u16,
    pub epoch: u32,
    pub root: Node,
    pub carried: Sum,
    pub models: Vec<Model>,
}

impl Durable {
    /// Of a store that does not exist yet.
    pub fn new(threads: u16) -> Self {
        Self {
            rows: Rows::new(),
            threads,
            epoch: 0,
            root: Node::default(),
            carried: Sum::default(),
            models: vec![Model::new(); usize::from(threads)],
        }
    }
}

impl World {
    /// Bring some of the durable rows to the readers.
    pub(super) fn apply_some(&mut self) {
        let (rows, rng) = (&self.durable.rows, &mut self.rng);
        self.visible.retain(|key, _| rows.contains_key(key) || rng.bool());
        for (key, row) in rows {
            if rng.bool() {
                self.visible.insert(key.clone(), row.clone());
            }
        }
    }

    /// Somebody changes rows of the store, in every way that comes to mind.
    pub fn tamper(&mut self, changes: usize) {
        self.visible = self.durable.rows.clone();
        self.rows_are_honest = false;
        let keys: Vec<_> = self.visible.keys().cloned().collect();
        for _ in 0..changes {
            let key = &keys[self.rng.usize(0..keys.len())];
            let other = self.visible.get(&keys[self.rng.usize(0..keys.len())]).cloned();
            let Some(row) = self.visible.get_mut(key) else { continue };
            match self.rng.u8(0..16) {
                0 => {
                    self.visible.remove(key);
                }
                1 => *row = other.unwrap_or_default(),
                2 => row.truncate(self.rng.usize(0..=row.len())),
                _ if row.is_empty() => {}
                _ => {
                    let at = self.rng.usize(0..row.len());
                    row[at] ^= 1 << self.rng.u8(0..8);
                }
            }
        }
        self.durable.rows = self.visible.clone();
    }

    /// Change one row of the store; an empty one where there is none.
    pub fn change_row(&mut self, store_key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
        self.rows_are_honest = false;
        change(self.durable.rows.entry(store_key.to_vec()).or_default());
        self.visible = self.durable.rows.clone();
    }

    /// The store keys that begin so, without that byte, in order.
    pub fn rows_of(&self, prefix: u8) -> Vec<&[u8]> {
        let keys = self.durable.rows.keys();
        keys.filter(|key| key[0] == prefix).map(|key| &key[1..]).collect()
    }

    /// The durable records are what the clients know.
    pub fn check_durable_records(&self) {
        let mut expected: Model = self
            .durable
            .models
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let records = self
            .durable
            .rows
            .iter()
            .filter(|(key, _)| key[0] == rows::RECORD_PREFIX);
        for (store_key, row) in records {
            let row = rows::RecordRow::decode(row).expect("a record");
            let (key, value) = (row.application_key, row.value);
            let leaf = rows::leaf_of(key);
            assert!(
                [false, true]
                    .iter()
                    .any(|is_long| store_key == &rows::record_key(&leaf, *is_long))
            );
            assert_eq!(
                expected.remove(key).as_deref(),
                value,
                "{:?}",
                String::from_utf8_lossy(key)
            );
        }
        assert_eq!(expected, Model::new(), "no record is missing");
    }
}

/// Change rows as the packed ones of a checkpoint say.
pub fn unpack(packed: &[u8], rows: &mut Rows) {
    let mut reader = Reader::new(packed);
    while reader.remaining() > 0 {
        let mut length = reader.u32().expect("a length") as usize;
        let key = reader.take(length).expect("a store key").to_vec();
        length = reader.u32().expect("a length") as usize;
        if length == u32::MAX as usize {
            rows.remove(&key);
        } else {
            rows.insert(key, reader.take(length).expect("a row").to_vec());
        }
    }
}
