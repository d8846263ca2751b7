//! A verifier thread, its tree, and its one client; logs are recorded first, and timed when they are processed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use fastrand::Rng;
use zeroize::Zeroizing;
use zetakv_verifier::clocks::Clocks;
use zetakv_verifier::crypto::Crypto;
use zetakv_verifier::entry::{Entry, Slots};
use zetakv_verifier::kv::KeyValue;
use zetakv_verifier::machine::Role;
use zetakv_verifier::output::Output;
use zetakv_verifier::request::{MacDomain, RequestHeader};
use zetakv_verifier::standard_crypto::Sum;
use zetakv_verifier::time::Timestamp;
use zetakv_verifier::value::{Commitment, Node};
use zetakv_verifier::{Progress, SessionKeys, StandardCrypto, ThreadConfig, Verifier};

use crate::tree::{NodeId, Tree};

/// Twice the default: the cases with most cached records fit.
pub const SLOTS: u32 = 65_536;
/// As in the paper.
const VALUE_BYTES: usize = 8;
const REQUEST_KEY: [u8; 32] = [1; 32];
const RECEIPT_KEY: [u8; 32] = [2; 32];

/// How long the verifier worked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// CPU time of the thread.
    pub cpu: Duration,
    /// Time on the wall.
    pub wall: Duration,
    /// Bytes of log.
    pub log_bytes: usize,
}

/// A verifier thread with all that belongs to it.
pub struct World {
    verifier: Verifier<StandardCrypto, KeyValue>,
    clocks: Arc<Clocks>,
    crypto: StandardCrypto,
    /// All records.
    pub tree: Tree,
    /// The verifier's clock.
    clock: Timestamp,
    /// Of each record that is in Blum, when it was evicted.
    blum: Vec<(NodeId, Timestamp)>,
    /// Operations of a request.
    operations: usize,
    sequence: u64,
    /// For choices, and for values.
    pub rng: Rng,
    /// Messages that are recorded.
    messages: Vec<Vec<u8>>,
    outputs: Vec<u8>,
}

impl World {
    /// An empty tree.
    pub fn new(operations: usize) -> Self {
        let clocks = Arc::new(Clocks::new(0).expect("epochs are left"));
        let config = ThreadConfig {
            thread: 0,
            slots: SLOTS,
            certified_epoch: 0,
            root: Some(Node::default()),
            queue_bytes: 4 << 20,
        };
        let crypto = || StandardCrypto::new([7; 32]);
        let mut verifier = Verifier::new(config, crypto(), Sum::default(), clocks.clone()).expect("a thread");
        verifier.open_session(SessionKeys {
            session: 1,
            role: Role::Write,
            request_key: Zeroizing::new(REQUEST_KEY),
            receipt_key: Zeroizing::new(RECEIPT_KEY),
        });
        Self {
            verifier,
            clocks,
            crypto: crypto(),
            tree: Tree::new(crypto()),
            clock: Timestamp::new(1, 1),
            blum: Vec::new(),
            operations,
            sequence: 0,
            rng: Rng::with_seed(1),
            messages: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Put every record once, in the order of the keys, so that each node is added once.
    pub fn load(&mut self, records: usize) {
        let mut hashes: Vec<_> = (0..records as u64)
            .map(|number| *blake3::hash(&number.to_be_bytes()).as_bytes())
            .collect();
        hashes.sort_unstable();
        let mut path = vec![0];
        for some in hashes.chunks(self.operations) {
            let mut log = Vec::new();
            let values: Vec<_> = some.iter().map(|_| self.value()).collect();
            self.request(
                some.iter().zip(&values).map(|(hash, value)| (*hash, Some(*value))),
                &mut log,
            );
            for (hash, value) in some.iter().zip(&values) {
                let leaf = self.tree.append(*hash, &mut path, &mut log);
                self.run(leaf, Some(*value), &mut log);
            }
            self.messages.push(log);
            self.process();
        }
        let mut log = Vec::new();
        for id in path.drain(1..).rev() {
            self.tree.evict_merkle(id, &mut log);
        }
        self.messages.push(log);
        self.process();
    }

    fn value(&mut self) -> Commitment {
        Commitment::of(&self.rng.u64(..).to_le_bytes()[..VALUE_BYTES])
    }

    /// Half gets, half puts, of these leaves: the request's entry, and what each operation writes.
    pub fn mixed_request(&mut self, leaves: &[NodeId], log: &mut Vec<u8>) -> Vec<Option<Commitment>> {
        let writes: Vec<_> = leaves.iter().map(|_| self.rng.bool().then(|| self.value())).collect();
        let hashes: Vec<_> = leaves.iter().map(|leaf| *self.tree.record(*leaf).key.bits()).collect();
        self.request(hashes.into_iter().zip(writes.iter().copied()), log);
        writes
    }

    fn request(
        &mut self,
        operations: impl ExactSizeIterator<Item = ([u8; 32], Option<Commitment>)>,
        log: &mut Vec<u8>,
    ) {
        self.sequence += 1;
        let mut request = Vec::new();
        RequestHeader {
            session: 1,
            generation: 1,
            thread: 0,
            operations: operations.len() as u16, // at most 512
            sequence: self.sequence,
            after_ts: 0,
        }
        .encode(&mut request);
        for (hash, new) in operations {
            request.push(if new.is_some() { 2 } else { 1 });
            request.extend_from_slice(&hash);
            if let Some(new) = new {
                new.encode(&mut request);
            }
        }
        let mac = self.crypto.mac(&REQUEST_KEY, MacDomain::Request, &[&request]);
        request.extend_from_slice(&mac);
        Entry::Request(&request).encode(log);
    }

    /// Run the next operation on a cached leaf.
    pub fn run(&mut self, leaf: NodeId, new: Option<Commitment>, log: &mut Vec<u8>) {
        let slot = self.tree.record(leaf).slot.expect("the leaf is cached");
        Entry::Run(Slots::new(&[slot]).expect("one slot")).encode(log);
        if let Some(new) = new {
            self.tree.put(leaf, new);
        }
    }

    /// Bring these leaves to Blum, from Merkle: what [`Self::in_blum`] then names by their places.
    pub fn bring_to_blum(&mut self, leaves: &[NodeId]) {
        for &leaf in leaves {
            let mut log = Vec::new();
            let path = self.tree.uncached_path(leaf);
            for (slot, &id) in (1..).zip(&path) {
                self.tree.add_merkle(id, slot, &mut log);
            }
            let ts = self.tick();
            self.tree.evict_blum_merkle(leaf, ts, &mut log);
            self.blum.push((leaf, ts));
            for &id in path[..path.len() - 1].iter().rev() {
                self.tree.evict_merkle(id, &mut log);
            }
            self.messages.push(log);
        }
        self.process();
    }

    /// How many leaves are in Blum.
    pub const fn in_blum(&self) -> usize {
        self.blum.len()
    }

    /// The leaf in Blum at this place.
    pub fn leaf_in_blum(&self, place: usize) -> NodeId {
        self.blum[place].0
    }

    /// Add the leaf at this place from Blum.
    pub fn add_blum(&mut self, place: usize, slot: u32, log: &mut Vec<u8>) {
        let (leaf, ts) = self.blum[place];
        self.tree.add_blum(leaf, slot, ts, log);
        if ts >= self.clock {
            self.clock = ts.next().expect("the counter is far from its end");
        }
    }

    /// Evict it again.
    pub fn evict_blum(&mut self, place: usize, log: &mut Vec<u8>) {
        let ts = self.tick();
        let entry = &mut self.blum[place];
        entry.1 = ts;
        self.tree.evict_blum(entry.0, ts, log);
    }

    fn tick(&mut self) -> Timestamp {
        self.clock = self.clock.next().expect("the counter is far from its end");
        self.clock
    }

    /// Carry all over to the next epoch, and check that the old one holds. Returns what the verifier spent.
    pub fn cut(&mut self) -> Spent {
        let start = self.clock.next_epoch().expect("epochs are left");
        let mut log = Vec::new();
        Entry::NextEpoch.encode(&mut log);
        for place in 0..self.blum.len() {
            let (leaf, old) = self.blum[place];
            self.tree.carry_over(leaf, old, &mut log);
            self.blum[place].1 = start;
            if log.len() > 1 << 20 {
                self.messages.push(core::mem::take(&mut log));
            }
        }
        Entry::VerifyEpoch.encode(&mut log);
        self.messages.push(log);
        let spent = self.process();
        self.clock = start.next().expect("the counter begins");
        let snapshot = self.verifier.take_snapshot().expect("the epoch was handed over");
        assert!(
            self.crypto.equal(&snapshot.added, &snapshot.evicted),
            "the epoch does not hold"
        );
        self.clocks.certify(snapshot.epoch);
        spent
    }

    /// Record a message.
    pub fn record(&mut self, log: Vec<u8>) {
        self.messages.push(log);
    }

    /// Process what is recorded, timed; every request must have its receipt.
    pub fn process(&mut self) -> Spent {
        let messages = core::mem::take(&mut self.messages);
        let mut spent = Spent::default();
        self.outputs.clear();
        let (wall, cpu) = (Instant::now(), ThreadTime::now());
        for message in &messages {
            assert_eq!(self.verifier.process(message, &mut self.outputs), Progress::Done);
            spent.log_bytes += message.len();
        }
        (spent.wall, spent.cpu) = (wall.elapsed(), cpu.elapsed());
        let mut reader = zetakv_verifier::codec::Reader::new(&self.outputs);
        let (mut admitted, mut receipts) = (0, 0);
        while reader.remaining() > 0 {
            match Output::decode(&mut reader).expect("an output") {
                Output::Admitted(_) => admitted += 1,
                Output::Receipt(_) => receipts += 1,
                Output::HandedOver(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(admitted, receipts);
        spent
    }
}
