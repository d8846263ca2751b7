//! A service of one thread: an honest prover, the real verifier thread and aggregator, a store, and a client that knows what its answers
//! must be. Between prover and verifier sits whoever fuzzes.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroizing;
use zetakv_prover::{Config, FrameRules, Prover, RANGE_ROWS_MAX};
use zetakv_verifier::clocks::Clocks;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Crypto as _;
use zetakv_verifier::kv::{Action, KeyValue};
use zetakv_verifier::machine::{OperationResult, Role};
use zetakv_verifier::receipt::ReceiptHeader;
use zetakv_verifier::request::{MacDomain, RequestHeader};
use zetakv_verifier::standard_crypto::Sum;
use zetakv_verifier::value::{Commitment, Node};
use zetakv_verifier::{Aggregator, SessionKeys, StandardCrypto, ThreadConfig, Verifier};

pub const SESSION: u64 = 1;
pub const REQUEST_KEY: [u8; 32] = [1; 32];
pub const RECEIPT_KEY: [u8; 32] = [2; 32];
const SLOTS: u32 = 256;
const SECRET: [u8; 32] = [7; 32];

pub const RULES: FrameRules = FrameRules {
    thread: 0,
    threads: 1,
    key_bytes_max: 64,
    value_bytes_max: 256,
    response_bytes_max: 4096,
};

pub fn crypto() -> StandardCrypto {
    StandardCrypto::new(SECRET)
}

/// Verifier thread 0 at the start of epoch 1, with the client's session open.
pub fn verifier(role: Role, clocks: &Arc<Clocks>) -> Verifier<StandardCrypto, KeyValue> {
    let config = ThreadConfig {
        thread: 0,
        slots: SLOTS,
        certified_epoch: 0,
        root: Some(Node::default()),
        queue_bytes: 64 * 1024,
    };
    let verifier = Verifier::new(config, crypto(), Sum::default(), Arc::clone(clocks));
    let mut verifier = verifier.expect("there is a slot for the root");
    verifier.open_session(SessionKeys {
        session: SESSION,
        role,
        request_key: Zeroizing::new(REQUEST_KEY),
        receipt_key: Zeroizing::new(RECEIPT_KEY),
    });
    verifier
}

pub fn clocks() -> Arc<Clocks> {
    Arc::new(Clocks::new(0).expect("there is a next epoch"))
}

/// A prover at the first start.
pub fn prover(log_incarnation: Option<[u8; 16]>) -> Prover {
    let config = Config {
        rules: RULES,
        previous_threads: 1,
        epoch: 1,
        fresh: true,
        slots: SLOTS,
        hot_records_max: 8,
        hot_bytes_max: usize::MAX,
        kept_value_bytes_max: 64 * 1024,
        warm_bytes_max: 16 * 1024,
        read_bytes_max: 16 * 1024,
        log_incarnation,
    };
    Prover::new(config).expect("a prover")
}

/// An operation of the client: the application's key, and what to do.
pub type Operation = (Vec<u8>, Action);

/// Encode an operation as in a request.
pub fn encode_operation(key_hash: &[u8; 32], action: &Action, out: &mut Vec<u8>) {
    let code = match action {
        Action::Get => 1,
        Action::Put(_) => 2,
        Action::Delete => 3,
        Action::Insert(_) => 4,
        Action::CompareAndSet(..) => 5,
        Action::Increment(_) => 6,
    };
    out.push(code);
    out.extend_from_slice(key_hash);
    match action {
        Action::Get | Action::Delete => {}
        Action::Put(new) | Action::Insert(new) => new.encode(out),
        Action::CompareAndSet(expected, new) => {
            expected.encode(out);
            new.encode(out);
        }
        Action::Increment(delta) => out.extend_from_slice(&delta.to_le_bytes()),
    }
}

/// An authentic request of the client: header, operations, MAC.
pub fn authentic(crypto: &StandardCrypto, header: &RequestHeader, operations: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    header.encode(&mut request);
    request.extend_from_slice(operations);
    let mac = crypto.mac(&REQUEST_KEY, MacDomain::Request, &[&request]);
    request.extend_from_slice(&mac);
    request
}

/// The records as they must be: what each operation does to a plain map.
#[derive(Default)]
pub struct Model(BTreeMap<Vec<u8>, Commitment>);

impl Model {
    /// Do an operation: its result.
    pub fn apply(&mut self, (key, action): &Operation) -> OperationResult {
        let old = self.0.get(key).copied().unwrap_or(Commitment::Null);
        let (new, result) = match *action {
            Action::Get => (old, OperationResult::Value(old)),
            Action::Put(new) => (new, OperationResult::Ok),
            Action::Delete => (Commitment::Null, OperationResult::Ok),
            Action::Insert(_) if !old.is_null() => (old, OperationResult::Exists),
            Action::Insert(new) => (new, OperationResult::Ok),
            Action::CompareAndSet(expected, _) if expected != old => (old, OperationResult::Mismatch(old)),
            Action::CompareAndSet(_, new) => (new, OperationResult::Ok),
            Action::Increment(delta) => increment(old, delta),
        };
        self.0.insert(key.clone(), new);
        result
    }
}

fn increment(old: Commitment, delta: i64) -> (Commitment, OperationResult) {
    let number = match &old {
        Commitment::Null => Some(0),
        Commitment::Inline(inline) => inline.as_slice().try_into().ok().map(i64::from_le_bytes),
        Commitment::Digest(..) => None,
    };
    match number.map(|number| number.checked_add(delta)) {
        None => (old, OperationResult::NotANumber),
        Some(None) => (old, OperationResult::Overflow),
        Some(Some(sum)) => {
            let new = Commitment::of(&sum.to_le_bytes());
            (new, OperationResult::Value(new))
        }
    }
}

/// Prover, verifier thread, aggregator, store and client.
pub struct Service {
    pub crypto: StandardCrypto,
    pub clocks: Arc<Clocks>,
    pub verifier: Verifier<StandardCrypto, KeyValue>,
    pub prover: Prover,
    pub aggregator: Aggregator<Sum>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    model: Model,
    sequence: u64,
    /// Operations of requests without a receipt yet, by sequence.
    sent: BTreeMap<u64, Vec<Operation>>,
    /// Whether all receipts so far were right.
    pub is_right: bool,
}

impl Default for Service {
    fn default() -> Self {
        let clocks = clocks();
        Self {
            crypto: crypto(),
            verifier: verifier(Role::Admin, &clocks),
            prover: prover(None),
            aggregator: Aggregator::new(1, 1),
            clocks,
            rows: BTreeMap::new(),
            model: Model::default(),
            sequence: 0,
            sent: BTreeMap::new(),
            is_right: true,
        }
    }
}

impl Service {
    /// Let the client send a request.
    pub fn send(&mut self, operations: Vec<Operation>) {
        self.sequence += 1;
        let header = RequestHeader {
            session: SESSION,
            generation: 1,
            thread: 0,
            operations: operations.len() as u16,
            sequence: self.sequence,
            after_ts: 0,
        };
        let mut encoded = Vec::new();
        for (key, action) in &operations {
            encode_operation(blake3::hash(key).as_bytes(), action, &mut encoded);
        }
        let request = authentic(&self.crypto, &header, &encoded);
        let mut body = (request.len() as u32).to_le_bytes().to_vec();
        body.extend_from_slice(&request);
        for (key, _) in operations.iter().filter(|(_, action)| *action != Action::Get) {
            body.extend_from_slice(&(key.len() as u16).to_le_bytes());
            body.extend_from_slice(key);
        }
        self.sent.insert(self.sequence, operations);
        self.prover.submit(SESSION, &body).expect("the client is honest");
    }

    /// Give the prover the rows that it wants, and take its log. `None`: it has found that something is wrong.
    pub fn log(&mut self) -> Option<Vec<u8>> {
        loop {
            let reads = self.prover.reads().ok()?;
            if reads.is_empty() {
                return self.prover.log().ok();
            }
            let rows: Vec<_> = reads.keys.iter().map(|key| self.rows.get(key)).collect();
            let in_range = |(first, end)| self.rows.range(first..end).take(RANGE_ROWS_MAX).collect();
            let ranges: Vec<Vec<_>> = reads.ranges.into_iter().map(in_range).collect();
            self.prover.supply(&rows, &ranges).ok()?;
        }
    }

    /// Make the changed rows durable.
    pub fn checkpoint(&mut self, packed: &[u8]) {
        let mut reader = Reader::new(packed);
        let counted = |reader: &mut Reader<'_>| {
            let length = reader.u32().expect("a length");
            (length < u32::MAX).then(|| reader.take(length as usize).expect("packed bytes").to_vec())
        };
        while reader.remaining() > 0 {
            let key = counted(&mut reader).expect("a store key");
            match counted(&mut reader) {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
    }

    /// Let the client check a receipt: its MAC must be right, and its results are compared with what they should be.
    pub fn check_receipt(&mut self, receipt: &[u8]) {
        let (covered, _mac) = receipt.split_last_chunk::<16>().expect("a MAC");
        let mut reader = Reader::new(covered);
        let header = ReceiptHeader::decode(&mut reader).expect("a header");
        let operations = self
            .sent
            .remove(&header.sequence)
            .expect("one receipt for each request");
        assert_eq!((header.error, usize::from(header.count)), (0, operations.len()));
        for operation in &operations {
            let result = OperationResult::decode(&mut reader).expect("a result");
            self.is_right &= result == self.model.apply(operation);
        }
        assert_eq!(reader.end(), Ok(()));
    }
}
