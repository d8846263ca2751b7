//! A monitor's threads and aggregator in one place, a host that writes their logs by hand, and a client with one session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::vec::Vec;

use zeroize::Zeroizing;

use super::symbolic::SymbolicCrypto;
use crate::aggregate::{Aggregator, HeldEpoch};
use crate::clocks::Clocks;
use crate::codec::{Malformed, Reader};
use crate::crypto::{Crypto, Mac, MacKey};
use crate::entry::{Entry, Slot, Slots, ThreadId};
use crate::key::{Key, KeyHash};
use crate::kv::{self, KeyValue};
use crate::machine::{OperationResult, Role, StateMachine};
use crate::output::Output;
use crate::receipt::{ReceiptHeader, Resumed};
use crate::request::{MacDomain, RESUME_BYTES, RequestHeader};
use crate::sessions::SessionKeys;
use crate::thread::{Progress, ThreadConfig, Verifier};
use crate::time::Timestamp;
use crate::value::{Child, Commitment, Hash, NO_HASH, Node, Value};
use crate::violation::Violation;

/// Depth of the leaves.
pub const DEPTH: u16 = 3;
/// Slots of each thread.
pub const SLOTS: u32 = 16;
/// Bytes of operations in each thread's queue.
pub const QUEUE_BYTES: usize = 1000;
/// The client's session.
pub const SESSION: u64 = 7;
pub const REQUEST_KEY: MacKey = [1; 32];
pub const RECEIPT_KEY: MacKey = [2; 32];
pub const NONCE: [u8; 16] = [5; 16];

/// The operations of [`KeyValue`], and one that exchanges two records.
pub struct Machine;

pub enum Operation {
    One(kv::Operation),
    Exchange([KeyHash; 2]),
}

impl StateMachine for Machine {
    type Operation = Operation;

    fn decode(reader: &mut Reader<'_>) -> Result<Operation, Malformed> {
        if reader.rest().first() == Some(&100) {
            reader.u8()?;
            return Ok(Operation::Exchange([*reader.array()?, *reader.array()?]));
        }
        KeyValue::decode(reader).map(Operation::One)
    }

    fn keys(operation: &Operation) -> &[KeyHash] {
        match operation {
            Operation::One(operation) => KeyValue::keys(operation),
            Operation::Exchange(keys) => keys,
        }
    }

    fn role(operation: &Operation) -> Role {
        match operation {
            Operation::One(operation) => KeyValue::role(operation),
            Operation::Exchange(_) => Role::Write,
        }
    }

    fn apply(operation: &Operation, values: &mut [Commitment]) -> OperationResult {
        match operation {
            Operation::One(operation) => KeyValue::apply(operation, values),
            Operation::Exchange(_) => {
                values.swap(0, 1);
                OperationResult::Ok
            }
        }
    }
}

/// The key of a path of bits.
pub fn key(path: &str) -> Key {
    Key::prefix(hash_of(path), path.len() as u16)
}

/// The key hash that begins with a path of bits.
pub fn hash_of(path: &str) -> KeyHash {
    let mut bits = [0; 32];
    for (i, bit) in path.bytes().enumerate() {
        bits[i / 8] |= (bit - b'0') << (7 - i % 8);
    }
    bits
}

pub const NULL: Value = Value::Leaf(Commitment::Null);
pub const EMPTY_NODE: Value = Value::Node(Node { sides: [None; 2] });

pub fn leaf(text: &str) -> Value {
    Value::Leaf(Commitment::of(text.as_bytes()))
}

/// A node at a path, with these children: path, hash (None: in Blum).
pub fn node_of(path: &str, children: &[(&str, Option<Hash>)]) -> Value {
    let mut node = Node::default();
    for &(child, hash) in children {
        let child = Child { key: key(child), hash };
        let direction = key(path).direction_to(&child.key).expect("a descendant");
        node.set_side(direction, child);
    }
    Value::Node(node)
}

pub const NEVER_EVICTED: Option<Hash> = Some(NO_HASH);

/// A moment.
pub fn ts(epoch: u32, counter: u32) -> Timestamp {
    Timestamp::new(epoch, counter)
}

/// Operations, encoded.
pub fn get(path: &str) -> Vec<u8> {
    [&[1][..], &hash_of(path)].concat()
}

pub fn put(path: &str, text: &str) -> Vec<u8> {
    let mut operation = [&[2][..], &hash_of(path)].concat();
    Commitment::of(text.as_bytes()).encode(&mut operation);
    operation
}

pub fn increment(path: &str, delta: i64) -> Vec<u8> {
    [&[6][..], &hash_of(path), &delta.to_le_bytes()].concat()
}

pub fn exchange(a: &str, b: &str) -> Vec<u8> {
    [&[100][..], &hash_of(a), &hash_of(b)].concat()
}

/// The result of a read.
pub fn found(text: &str) -> OperationResult {
    OperationResult::Value(Commitment::of(text.as_bytes()))
}

pub const FOUND_NULL: OperationResult = OperationResult::Value(Commitment::Null);

/// A piece of a verifier log.
#[derive(Clone, Default)]
pub struct Log(pub Vec<u8>);

impl Log {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn entry(mut self, entry: &Entry<'_>) -> Self {
        entry.encode(&mut self.0);
        self
    }

    pub fn add_merkle(self, slot: Slot, parent: Slot, path: &str, value: Value) -> Self {
        let key = key(path);
        self.entry(&Entry::AddMerkle {
            slot,
            parent,
            key,
            value,
        })
    }

    pub fn evict_merkle(self, slot: Slot, parent: Slot) -> Self {
        self.entry(&Entry::EvictMerkle { slot, parent })
    }

    pub fn add_blum(self, slot: Slot, path: &str, value: Value, ts: Timestamp, thread: ThreadId) -> Self {
        let key = key(path);
        self.entry(&Entry::AddBlum {
            slot,
            ts,
            thread,
            key,
            value,
        })
    }

    pub fn evict_blum(self, slot: Slot, ts: Timestamp) -> Self {
        self.entry(&Entry::EvictBlum { slot, ts })
    }

    pub fn evict_blum_merkle(self, slot: Slot, parent: Slot, ts: Timestamp) -> Self {
        self.entry(&Entry::EvictBlumMerkle { slot, parent, ts })
    }

    pub fn next_epoch(self) -> Self {
        self.entry(&Entry::NextEpoch)
    }

    pub fn carry_over(self, path: &str, value: Value, ts: Timestamp, thread: ThreadId) -> Self {
        let key = key(path);
        self.entry(&Entry::CarryOver { ts, thread, key, value })
    }

    pub fn verify_epoch(self) -> Self {
        self.entry(&Entry::VerifyEpoch)
    }

    pub fn tick(self) -> Self {
        self.entry(&Entry::Tick)
    }

    pub fn request(self, request: &[u8]) -> Self {
        self.entry(&Entry::Request(request))
    }

    pub fn resume(self, resume: &[u8; RESUME_BYTES]) -> Self {
        self.entry(&Entry::Resume(resume))
    }

    pub fn run(self, slots: &[Slot]) -> Self {
        self.entry(&Entry::Run(Slots::new(slots).expect("1 to 8 slots")))
    }

    pub fn run_absent(self, parent: Slot) -> Self {
        self.entry(&Entry::RunAbsent { parent })
    }
}

/// What a thread answered; MACs have been checked.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Admitted(Role),
    Rejected(u8),
    NotYet,
    Refused(ReceiptHeader),
    Receipt(ReceiptHeader, Vec<OperationResult>),
    Resumed(Resumed),
    HandedOver(u32),
    EpochNotYet,
    Logged(Mac),
}

pub struct World<C: Crypto> {
    pub crypto: C,
    pub clocks: Arc<Clocks>,
    pub threads: Vec<Verifier<C, Machine, DEPTH>>,
    pub aggregator: Aggregator<C::Sum>,
    /// Bytes of log that each thread has done.
    pub offsets: Vec<u64>,
    /// MACs of the requests, by thread and sequence.
    request_macs: BTreeMap<(ThreadId, u64), Mac>,
}

impl World<SymbolicCrypto> {
    /// At the start of epoch 1, with symbolic cryptography.
    pub fn symbolic(threads: u16) -> Self {
        let crypto = SymbolicCrypto::default();
        Self::new(threads, || crypto.clone())
    }
}

impl<C: Crypto> World<C> {
    /// At the start of epoch 1, with an empty tree.
    pub fn new(threads: u16, crypto: impl Fn() -> C) -> Self {
        Self::restarted(threads, crypto, 0, Node::default(), &C::Sum::default())
    }

    /// After a certified epoch, the client's session open on all threads, with every role.
    pub fn restarted(threads: u16, crypto: impl Fn() -> C, certified_epoch: u32, root: Node, carried: &C::Sum) -> Self {
        let clocks = Arc::new(Clocks::new(certified_epoch).expect("there is a next epoch"));
        let start = |thread| {
            let config = ThreadConfig {
                thread,
                slots: SLOTS,
                certified_epoch,
                root: (thread == 0).then_some(root),
                queue_bytes: QUEUE_BYTES,
            };
            let carried = if thread == 0 {
                carried.clone()
            } else {
                C::Sum::default()
            };
            let mut verifier =
                Verifier::new(config, crypto(), carried, Arc::clone(&clocks)).expect("there is a slot for the root");
            verifier.open_session(session_keys(SESSION, Role::Admin));
            verifier
        };
        Self {
            crypto: crypto(),
            threads: (0..threads).map(start).collect(),
            clocks,
            aggregator: Aggregator::new(threads, certified_epoch + 1),
            offsets: std::vec![0; usize::from(threads)],
            request_macs: BTreeMap::new(),
        }
    }

    /// Give a thread a piece of log.
    pub fn process(&mut self, thread: ThreadId, log: &Log) -> (Progress, Vec<Answer>) {
        let mut outputs = Vec::new();
        let progress = self.threads[usize::from(thread)].process(&log.0, &mut outputs);
        let offset = &mut self.offsets[usize::from(thread)];
        match progress {
            Progress::Done => *offset += log.0.len() as u64,
            Progress::Waiting { consumed } => *offset += consumed as u64,
            Progress::Failed(_) => assert_eq!(outputs, [], "nothing leaves with a violation"),
        }
        (progress, self.read_answers(thread, &outputs))
    }

    /// The same, where it is to be accepted.
    #[track_caller]
    pub fn accepted(&mut self, thread: ThreadId, log: Log) -> Vec<Answer> {
        let (progress, answers) = self.process(thread, &log);
        assert_eq!(progress, Progress::Done);
        answers
    }

    /// Thread 0 puts these values into the leaves 000 and 100, which are in Blum then since 1:5 and 1:6. The client's next request is its second.
    #[track_caller]
    pub fn two_in_blum(&mut self, first: &str, second: &str) {
        self.admit(0, 1, &[put("000", first), put("100", second)]);
        let log = Log::new()
            .add_merkle(1, 0, "000", NULL)
            .add_merkle(2, 0, "100", NULL)
            .run(&[1])
            .run(&[2])
            .evict_blum_merkle(1, 0, ts(1, 5))
            .evict_blum_merkle(2, 0, ts(1, 6));
        self.accepted(0, log);
    }

    fn read_answers(&self, thread: ThreadId, outputs: &[u8]) -> Vec<Answer> {
        let mut reader = Reader::new(outputs);
        let mut answers = Vec::new();
        while reader.remaining() > 0 {
            answers.push(match Output::decode(&mut reader).expect("outputs are well-formed") {
                Output::Admitted(role) => Answer::Admitted(role),
                Output::Rejected(reason) => Answer::Rejected(reason),
                Output::NotYet => Answer::NotYet,
                Output::Refused(receipt) => Answer::Refused(self.read_receipt(thread, receipt).0),
                Output::Receipt(receipt) => {
                    let (header, results) = self.read_receipt(thread, receipt);
                    Answer::Receipt(header, results)
                }
                Output::Resumed(resumed) => Answer::Resumed(self.read_resumed(resumed)),
                Output::HandedOver(epoch) => Answer::HandedOver(epoch),
                Output::EpochNotYet => Answer::EpochNotYet,
                Output::Logged(tag) => Answer::Logged(*tag),
                Output::Failed(_) => panic!("the process around the thread says so"),
            });
        }
        answers
    }

    fn read_receipt(&self, thread: ThreadId, receipt: &[u8]) -> (ReceiptHeader, Vec<OperationResult>) {
        let (covered, mac) = receipt.split_last_chunk().expect("a MAC");
        let mut reader = Reader::new(covered);
        let header = ReceiptHeader::decode(&mut reader).expect("a header");
        let results = (0..header.count)
            .map(|_| OperationResult::decode(&mut reader).expect("a result"))
            .collect();
        assert_eq!(reader.end(), Ok(()));
        let request_mac = &self.request_macs[&(thread, header.sequence)];
        let parts = [covered, request_mac];
        assert!(self.crypto.mac_is(&RECEIPT_KEY, MacDomain::Receipt, &parts, mac));
        (header, results)
    }

    fn read_resumed(&self, resumed: &[u8]) -> Resumed {
        let (covered, mac) = resumed.split_last_chunk().expect("a MAC");
        let mut reader = Reader::new(covered);
        let header = Resumed::decode(&mut reader).expect("a header");
        assert_eq!(reader.end(), Ok(()));
        assert!(
            self.crypto
                .mac_is(&RECEIPT_KEY, MacDomain::Resumed, &[covered, &NONCE], mac)
        );
        header
    }

    /// A request of the client.
    pub fn make_request(
        &mut self,
        thread: ThreadId,
        sequence: u64,
        change: impl FnOnce(&mut RequestHeader),
        operations: &[Vec<u8>],
    ) -> Vec<u8> {
        let mut header = RequestHeader {
            session: SESSION,
            generation: 1,
            thread,
            operations: operations.len() as u16,
            sequence,
            after_ts: 0,
        };
        change(&mut header);
        let mut request = Vec::new();
        header.encode(&mut request);
        request.extend_from_slice(&operations.concat());
        let mac = self.crypto.mac(&REQUEST_KEY, MacDomain::Request, &[&request]);
        request.extend_from_slice(&mac);
        self.request_macs.insert((thread, sequence), mac);
        request
    }

    /// A resume of the client.
    pub fn make_resume(&self, thread: ThreadId, generation: u32) -> [u8; RESUME_BYTES] {
        let mut resume = [0; RESUME_BYTES];
        resume[..8].copy_from_slice(&SESSION.to_le_bytes());
        resume[8..12].copy_from_slice(&generation.to_le_bytes());
        resume[12..14].copy_from_slice(&thread.to_le_bytes());
        resume[16..32].copy_from_slice(&NONCE);
        let mac = self.crypto.mac(&REQUEST_KEY, MacDomain::Resume, &[&resume[..32]]);
        resume[32..].copy_from_slice(&mac);
        resume
    }

    /// Let a thread admit the client's request of this sequence.
    #[track_caller]
    pub fn admit(&mut self, thread: ThreadId, sequence: u64, operations: &[Vec<u8>]) {
        let request = self.make_request(thread, sequence, |_| {}, operations);
        let answers = self.accepted(thread, Log::new().request(&request));
        assert_eq!(answers, [Answer::Admitted(Role::Admin)]);
    }

    /// Run a log that ends the only waiting request, and return its results.
    #[track_caller]
    pub fn results(&mut self, thread: ThreadId, log: Log) -> Vec<OperationResult> {
        match self.accepted(thread, log).pop() {
            Some(Answer::Receipt(_, results)) => results,
            other => panic!("a receipt, not {other:?}"),
        }
    }

    /// Close the epoch on a thread that carries this over, and submit what it hands over.
    #[track_caller]
    pub fn close(&mut self, thread: ThreadId, carried: Log) -> Result<Option<HeldEpoch<C::Sum>>, Violation> {
        assert_eq!(self.accepted(thread, Log::new().next_epoch()), []);
        self.accepted(thread, carried);
        self.hand_over(thread)
    }

    /// Let a thread hand over the epoch that it closes, and submit that.
    #[track_caller]
    pub fn hand_over(&mut self, thread: ThreadId) -> Result<Option<HeldEpoch<C::Sum>>, Violation> {
        let answers = self.accepted(thread, Log::new().verify_epoch());
        assert!(matches!(answers[..], [Answer::HandedOver(_)]), "{answers:?}");
        self.submit(thread)
    }

    /// Submit what a thread has handed over, and certify the epoch if it holds.
    #[track_caller]
    pub fn submit(&mut self, thread: ThreadId) -> Result<Option<HeldEpoch<C::Sum>>, Violation> {
        let snapshot = self.threads[usize::from(thread)].take_snapshot().expect("a snapshot");
        let held = self.aggregator.submit(snapshot, &self.crypto)?;
        if let Some(held) = &held {
            self.clocks.certify(held.epoch);
        }
        Ok(held)
    }
}

/// Keys of a session, the same for all.
pub fn session_keys(session: u64, role: Role) -> SessionKeys {
    SessionKeys {
        session,
        role,
        request_key: Zeroizing::new(REQUEST_KEY),
        receipt_key: Zeroizing::new(RECEIPT_KEY),
    }
}
