//! The offline walk over a whole store: every record and node against the hash that its parent holds, from the root down.
//!
//! Partition by partition, from left to right: first the rows of its nodes and its hot markers, then the rows of its records, in the order
//! of the store; then all of it is compared. In memory is one partition of the 64: its nodes, and of each record its key and hash, no value.
//! What is pinned by no hash, because it is in Blum, is given away for the monitor to sum up.
//!
//! Invariants: each row that was given is accounted for, as what the tree leads to or as a finding; nothing is proved by what is itself in
//! doubt: what a wrong node vouches for is counted as *unproved*. Nothing here is trusted but the root's value, which the monitor tells.

use std::collections::{BTreeMap, HashMap, HashSet};

use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::key::{Key, LEAF_DEPTH};
use zetakv_verifier::value::{Child, Commitment, Hash, Node, Value};

use crate::derive::SUBTREE_RECORDS_MAX;
use crate::findings::{FINDING_KEYS_MAX, FINDINGS_MAX, Finding, Kind, Totals};
use crate::hash::merkle_hash;
use crate::partitions;
use crate::rows::{self, RecordRow, SHORT_KEY_BITS, checksum};

/// How a parent vouches for what is below it.
#[derive(Clone, Copy, Debug)]
struct Expected {
    hash: Vouched,
    /// The number of the finding that puts all of it in doubt.
    doubt: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Vouched {
    /// By this hash.
    Hash(Hash),
    /// By the sum of what is in Blum.
    Blum,
    /// By nothing that is known.
    Unknown,
}

/// A record as its row has it.
#[derive(Debug)]
struct Found {
    key: Key,
    application_key: Box<[u8]>,
    commitment: Commitment,
    checksum_fits: bool,
    has_long_key: bool,
}

impl Found {
    fn store_key(&self) -> Vec<u8> {
        rows::record_key(&self.key, self.has_long_key)
    }

    const fn value(&self) -> Value {
        Value::Leaf(self.commitment)
    }
}

/// The walk. Call [`Self::begin`], [`Self::records`] as often as needed and [`Self::end`] for the partitions 0 to 63, in order.
#[derive(Debug)]
pub struct Audit {
    threads: u16,
    partition: u16,
    /// The nodes to come that are at or above the partition nodes, as their parents vouch for them.
    above: BTreeMap<[u8; Key::ENCODED_BYTES], Expected>,
    nodes: HashMap<Key, Vec<u8>>,
    /// Store keys of the hot markers.
    hot: HashSet<Vec<u8>>,
    records: Vec<Found>,
    garbled: Vec<Key>,
    findings: Vec<Finding>,
    totals: Totals,
    blum: Vec<u8>,
}

impl Audit {
    /// `threads`: the number of threads that wrote the store; `root`: the encoded value of the root, None if nobody tells.
    pub fn new(threads: u16, root: Option<&[u8]>) -> Result<Self, Malformed> {
        if !threads.is_power_of_two() || threads > partitions::COUNT {
            return Err(Malformed);
        }
        let mut audit = Self {
            threads,
            partition: 0,
            above: BTreeMap::new(),
            nodes: HashMap::new(),
            hot: HashSet::new(),
            records: Vec::new(),
            garbled: Vec::new(),
            findings: Vec::new(),
            totals: Totals::default(),
            blum: Vec::new(),
        };
        match root {
            Some(bytes) => {
                let mut reader = Reader::new(bytes);
                let Value::Node(root) = Value::decode(&mut reader)? else {
                    return Err(Malformed);
                };
                reader.end()?;
                for child in root.sides.iter().flatten() {
                    audit.above.insert(child.key.encode(), vouched_by(child, None));
                }
            }
            None => audit.expect_unknown(&Key::ROOT, None),
        }
        Ok(audit)
    }

    /// The rows of nodes and hot markers of the next partition.
    pub fn begin<R: AsRef<[u8]>>(&mut self, nodes: &[(R, R)], markers: &[R]) {
        for (store_key, row) in nodes {
            match rows::decode_node_key(store_key.as_ref()) {
                Ok(key) => drop(self.nodes.insert(key, row.as_ref().to_vec())),
                Err(Malformed) => self.find_row(Kind::Extra, store_key.as_ref()),
            }
        }
        for store_key in markers {
            match rows::decode_hot_key(store_key.as_ref()) {
                Ok(_) => drop(self.hot.insert(store_key.as_ref().to_vec())),
                Err(Malformed) => self.find_row(Kind::Extra, store_key.as_ref()),
            }
        }
    }

    /// Rows of records of this partition.
    pub fn records<R: AsRef<[u8]>>(&mut self, rows: &[(R, R)]) {
        for (store_key, row) in rows {
            let store_key = store_key.as_ref();
            if let Some(found) = read_record(store_key, row.as_ref()) {
                self.records.push(found);
                continue;
            }
            self.find_row(Kind::Garbled, store_key);
            if let Some(first_bytes) = store_key.get(1..=usize::from(SHORT_KEY_BITS / 8)) {
                let mut bits = [0; 32];
                bits[..first_bytes.len()].copy_from_slice(first_bytes);
                self.garbled.push(Key::prefix(bits, SHORT_KEY_BITS));
            }
        }
    }

    /// All rows of the partition are here: compare them.
    pub fn end(&mut self) {
        let mut records = core::mem::take(&mut self.records);
        records.sort_unstable_by(|a, b| {
            let by_path = a.key.bits().cmp(b.key.bits());
            by_path.then(a.has_long_key.cmp(&b.has_long_key))
        });
        records.dedup_by(|later, first| {
            let is_double = later.key == first.key;
            if is_double {
                self.find_record(Kind::Extra, later);
            }
            is_double
        });
        self.check_long_keys(&records);
        let partition = partitions::node(self.partition);
        for depth in 1..=partitions::DEPTH {
            let key = Key::prefix(*partition.bits(), depth);
            // those above are visited with the first partition below them
            let is_first = key.bits() == partition.bits();
            if let Some(expected) = self.above.remove(&key.encode())
                && is_first
            {
                let below = if depth == partitions::DEPTH { &records[..] } else { &[] };
                self.visit(&key, expected, below);
                records.truncate(if depth == partitions::DEPTH { 0 } else { records.len() });
            }
        }
        self.extra(&records);
        for key in core::mem::take(&mut self.nodes).into_keys() {
            self.find_row(Kind::Extra, &rows::node_key(&key));
        }
        for marker in core::mem::take(&mut self.hot) {
            self.find_row(Kind::Extra, &marker);
        }
        self.garbled.clear();
        self.partition += 1;
    }

    /// What is in Blum so far: base key, thread and value of each, as `zetakv-monitor-operator check` reads them. Taken once.
    pub fn take_blum(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.blum)
    }

    /// What was found, at most [`FINDINGS_MAX`].
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What was looked at.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    // --- from the top down ---

    /// Everything at and below `key`, which a parent leads to; `records`: those whose paths begin with it.
    fn visit(&mut self, key: &Key, expected: Expected, records: &[Found]) {
        let is_hot = self.is_hot(key, expected, records);
        if key.depth() == LEAF_DEPTH {
            return self.visit_record(key, expected, records);
        }
        self.totals.nodes += 1;
        if let Some(row) = self.nodes.remove(key) {
            return self.visit_stored(key, expected, &row, records);
        }
        if key.depth() > partitions::DEPTH && records.len() <= usize::from(SUBTREE_RECORDS_MAX) && !is_hot {
            return self.visit_derived(key, expected, records);
        }
        let found = self.find_node(Kind::Missing, key);
        self.visit_guessed(key, Some(found), records);
    }

    /// Whether it is in Blum, as its parent says; its marker must say the same.
    fn is_hot(&mut self, key: &Key, expected: Expected, records: &[Found]) -> bool {
        let has_long_key = records.first().is_some_and(|found| found.has_long_key);
        let marker = rows::hot_key(key, has_long_key);
        let has_marker = self.hot.remove(&marker);
        let is_hot = match expected.hash {
            Vouched::Blum => true,
            Vouched::Hash(_) => false,
            Vouched::Unknown => return has_marker,
        };
        if has_marker != is_hot {
            let kind = if has_marker { Kind::Extra } else { Kind::Missing };
            self.find_row(kind, &marker);
        }
        is_hot
    }

    fn visit_record(&mut self, key: &Key, expected: Expected, records: &[Found]) {
        let Some(found) = records.first() else {
            if !self.has_garbled_below(key) {
                self.find_row(Kind::Missing, &rows::record_key(key, false));
            }
            return;
        };
        self.totals.records += 1;
        let value = found.value();
        let fits = match expected.hash {
            Vouched::Hash(hash) => merkle_hash(&value) == hash,
            Vouched::Blum => {
                self.sum_up(key, &value);
                true
            }
            Vouched::Unknown => true,
        };
        match expected.doubt {
            _ if !found.checksum_fits => self.find_record(Kind::Changed, found),
            None if !fits => self.find_record(Kind::Changed, found),
            None => {}
            Some(doubt) => self.unproved(doubt, found),
        }
    }

    fn visit_stored(&mut self, key: &Key, expected: Expected, row: &[u8], records: &[Found]) {
        let Ok((node, row_checksum)) = rows::decode_node(key, row) else {
            let found = self.find_node(Kind::Garbled, key);
            return self.visit_guessed(key, Some(found), records);
        };
        let value = Value::Node(node);
        let fits = match expected.hash {
            Vouched::Hash(hash) => merkle_hash(&value) == hash,
            Vouched::Blum => {
                self.sum_up(key, &value);
                true
            }
            Vouched::Unknown => true,
        };
        let checksum_fits = row_checksum == checksum(&value);
        let is_wrong = !checksum_fits || (!fits && expected.doubt.is_none());
        let doubt = if is_wrong {
            Some(self.find_node(Kind::Changed, key))
        } else {
            expected.doubt
        };
        for (child, records) in node.sides.iter().zip(halves(key, records)) {
            let Some(child) = child else {
                self.extra(records);
                continue;
            };
            let expected = vouched_by(child, doubt);
            if child.key.depth() <= partitions::DEPTH {
                self.above.insert(child.key.encode(), expected);
                continue;
            }
            let is_below = |found: &Found| found.key == child.key || child.key.is_proper_ancestor_of(&found.key);
            let first = records.partition_point(|found| !is_below(found) && found.key.bits() < child.key.bits());
            let count = records[first..].partition_point(is_below);
            self.extra(&records[..first]);
            self.visit(&child.key, expected, &records[first..first + count]);
            self.extra(&records[first + count..]);
        }
    }

    /// A node without a row, since there are so few records below it: its value follows from them.
    fn visit_derived(&mut self, key: &Key, expected: Expected, records: &[Found]) {
        let node = self.derived(key, records);
        let fits = match expected.hash {
            Vouched::Hash(hash) => merkle_hash(&Value::Node(node)) == hash,
            Vouched::Blum | Vouched::Unknown => true,
        };
        let mut is_explained = self.has_garbled_below(key);
        for found in records.iter().filter(|found| !found.checksum_fits) {
            self.find_record(Kind::Changed, found);
            is_explained = true;
        }
        self.totals.records += records.len() as u64;
        if fits && expected.doubt.is_none() {
            return;
        }
        let doubt = match expected.doubt {
            Some(doubt) => doubt,
            None if is_explained => {
                self.totals.unproved += records.iter().filter(|found| found.checksum_fits).count() as u64;
                return;
            }
            None => self.find_node(Kind::SubtreeChanged, key),
        };
        for found in records.iter().filter(|found| found.checksum_fits) {
            self.unproved(doubt, found);
        }
    }

    /// The value of a node without a row. A tree of compressed paths over a set of keys is canonical: see `derive.rs`.
    fn derived(&mut self, key: &Key, records: &[Found]) -> Node {
        let mut node = Node::default();
        for (side, records) in node.sides.iter_mut().zip(halves(key, records)) {
            *side = match records {
                [] => None,
                [found] => {
                    let is_hot = self.hot.remove(&rows::hot_key(&found.key, found.has_long_key));
                    let value = found.value();
                    if is_hot {
                        self.sum_up(&found.key, &value);
                    }
                    Some(Child {
                        key: found.key,
                        hash: (!is_hot).then(|| merkle_hash(&value)),
                    })
                }
                [first, .., last] => {
                    self.totals.nodes += 1;
                    let child = first.key.common_prefix(&last.key);
                    let value = Value::Node(self.derived(&child, records));
                    Some(Child {
                        key: child,
                        hash: Some(merkle_hash(&value)),
                    })
                }
            };
        }
        node
    }

    /// A node whose row says nothing: its children are those that the records below suggest.
    fn visit_guessed(&mut self, key: &Key, doubt: Option<usize>, records: &[Found]) {
        if key.depth() < partitions::DEPTH {
            return self.expect_unknown(key, doubt);
        }
        let hash = Vouched::Unknown;
        for records in halves(key, records) {
            if let [first, .., last] = records {
                let child = first.key.common_prefix(&last.key);
                self.visit(&child, Expected { hash, doubt }, records);
            } else if let [found] = records {
                self.visit(&found.key, Expected { hash, doubt }, records);
            }
        }
    }

    /// The children of a node of the spine, where nothing says more of them.
    fn expect_unknown(&mut self, key: &Key, doubt: Option<usize>) {
        for side in [0, 1] {
            let mut bits = *key.bits();
            bits[0] |= side << (7 - key.depth()); // the spine is within the first byte
            let child = Key::prefix(bits, key.depth() + 1);
            let is_partition = child.depth() == partitions::DEPTH;
            let hash = if is_partition { Vouched::Blum } else { Vouched::Unknown };
            self.above.insert(child.encode(), Expected { hash, doubt });
        }
    }

    // --- what is found ---

    fn sum_up(&mut self, key: &Key, value: &Value) {
        self.totals.in_blum += 1;
        self.blum.extend_from_slice(&key.encode());
        let thread = partitions::thread_of(key, self.threads);
        self.blum.extend_from_slice(&thread.to_le_bytes());
        value.encode(&mut self.blum);
    }

    fn has_garbled_below(&self, key: &Key) -> bool {
        let depth = key.depth().min(SHORT_KEY_BITS);
        let first = Key::prefix(*key.bits(), depth);
        self.garbled.iter().any(|it| Key::prefix(*it.bits(), depth) == first)
    }

    /// A record has a long store key only where another has the short one: else nobody finds it.
    fn check_long_keys(&mut self, records: &[Found]) {
        let short = |found: &Found| Key::prefix(*found.key.bits(), SHORT_KEY_BITS);
        for group in records.chunk_by(|a, b| short(a) == short(b)) {
            if group.iter().all(|found| found.has_long_key) && !self.has_garbled_below(&short(&group[0])) {
                self.find_row(Kind::Missing, &rows::record_key(&group[0].key, false));
            }
        }
    }

    fn extra(&mut self, records: &[Found]) {
        for found in records {
            self.find_record(Kind::Extra, found);
        }
    }

    fn unproved(&mut self, doubt: usize, found: &Found) {
        self.totals.unproved += 1;
        if let Some(finding) = self.findings.get_mut(doubt) {
            finding.records_below += 1;
            if finding.keys.len() < FINDING_KEYS_MAX {
                finding.keys.push(found.application_key.to_vec());
            }
        }
    }

    fn find_record(&mut self, kind: Kind, found: &Found) {
        self.find(kind, found.store_key(), vec![found.application_key.to_vec()]);
    }

    fn find_node(&mut self, kind: Kind, key: &Key) -> usize {
        self.find(kind, rows::node_key(key), Vec::new())
    }

    fn find_row(&mut self, kind: Kind, store_key: &[u8]) {
        self.find(kind, store_key.to_vec(), Vec::new());
    }

    /// The number of the new finding.
    fn find(&mut self, kind: Kind, store_key: Vec<u8>, keys: Vec<Vec<u8>>) -> usize {
        self.totals.findings += 1;
        if self.findings.len() >= FINDINGS_MAX {
            return usize::MAX;
        }
        self.findings.push(Finding {
            kind,
            store_key,
            keys,
            records_below: 0,
        });
        self.findings.len() - 1
    }
}

const fn vouched_by(child: &Child, doubt: Option<usize>) -> Expected {
    let hash = match child.hash {
        Some(hash) => Vouched::Hash(hash),
        None => Vouched::Blum,
    };
    Expected { hash, doubt }
}

/// Of the records below a node, in order, those on its left and on its right.
fn halves<'a>(key: &Key, records: &'a [Found]) -> [&'a [Found]; 2] {
    let is_left = |found: &Found| key.direction_to(&found.key).is_some_and(|side| side as usize == 0);
    let (left, right) = records.split_at(records.partition_point(is_left));
    [left, right]
}

/// A record, if its row can be read, and is under its own store key.
fn read_record(store_key: &[u8], row: &[u8]) -> Option<Found> {
    let row = RecordRow::decode(row).ok()?;
    let key = rows::leaf_of(row.application_key);
    let has_long_key = store_key != rows::record_key(&key, false);
    if has_long_key && store_key != rows::record_key(&key, true) {
        return None;
    }
    let commitment = row.value.map_or(Commitment::Null, Commitment::of);
    Some(Found {
        key,
        application_key: row.application_key.into(),
        commitment,
        checksum_fits: row.checksum == checksum(&Value::Leaf(commitment)),
        has_long_key,
    })
}
