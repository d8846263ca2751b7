//! Clients as the tests need them: they make requests with real MACs, and know what every answer must be.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use zeroize::Zeroizing;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Crypto;
use zetakv_verifier::machine::{OperationResult, Role};
use zetakv_verifier::receipt::{RECEIPT_HEADER_BYTES, ReceiptHeader, Resumed};
use zetakv_verifier::request::{MacDomain, RequestHeader};
use zetakv_verifier::value::{Commitment, Inline};
use zetakv_verifier::{SessionKeys, StandardCrypto};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Get,
    Put(Vec<u8>),
    Delete,
    Insert(Vec<u8>),
    CompareAndSet(Option<Vec<u8>>, Option<Vec<u8>>),
    Increment(i64),
}

/// What a client is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Ok,
    Value(Option<Vec<u8>>),
    Mismatch(Option<Vec<u8>>),
    Exists,
    Forbidden,
    NotANumber,
    Overflow,
}

/// The values of all keys of one thread.
pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Do an action to a plain map: what the service must answer.
pub fn expect(model: &mut Model, role: Role, key: &[u8], action: &Action) -> Answer {
    let old = model.get(key).cloned();
    if role < Role::Write && *action != Action::Get {
        return Answer::Forbidden;
    }
    let mut write = |new: Option<Vec<u8>>| {
        match new {
            Some(new) => model.insert(key.to_vec(), new),
            None => model.remove(key),
        };
        Answer::Ok
    };
    match action {
        Action::Get => Answer::Value(old),
        Action::Put(new) => write(Some(new.clone())),
        Action::Delete => write(None),
        Action::Insert(_) if old.is_some() => Answer::Exists,
        Action::Insert(new) => write(Some(new.clone())),
        Action::CompareAndSet(expected, _) if old != *expected => Answer::Mismatch(old),
        Action::CompareAndSet(_, new) => write(new.clone()),
        Action::Increment(delta) => {
            let number = match old {
                None => 0,
                Some(bytes) => match <[u8; 8]>::try_from(bytes.as_slice()) {
                    Ok(bytes) => i64::from_le_bytes(bytes),
                    Err(_) => return Answer::NotANumber,
                },
            };
            let Some(sum) = number.checked_add(*delta) else {
                return Answer::Overflow;
            };
            write(Some(sum.to_le_bytes().to_vec()));
            Answer::Value(Some(sum.to_le_bytes().to_vec()))
        }
    }
}

fn commitment(value: Option<&[u8]>) -> Commitment {
    value.map_or(Commitment::Null, Commitment::of)
}

/// A request that is under way.
#[derive(Clone, Debug)]
pub struct Sent {
    pub sequence: u64,
    pub operations: Vec<(Vec<u8>, Action)>,
    mac: [u8; 16],
}

/// A session on one thread.
#[derive(Debug)]
pub struct Client {
    pub session: u64,
    pub role: Role,
    pub thread: u16,
    pub generation: u32,
    pub sequence: u64,
    pub sent: VecDeque<Sent>,
    /// The nonce of the resume that is under way.
    pub resuming: Option<[u8; 16]>,
    request_key: [u8; 32],
    receipt_key: [u8; 32],
}

impl Client {
    pub fn new(session: u64, role: Role, thread: u16, rng: &mut Rng) -> Self {
        Self {
            session,
            role,
            thread,
            generation: 1,
            sequence: 0,
            sent: VecDeque::new(),
            resuming: None,
            request_key: core::array::from_fn(|_| rng.u8(..)),
            receipt_key: core::array::from_fn(|_| rng.u8(..)),
        }
    }

    pub fn keys(&self) -> SessionKeys {
        SessionKeys {
            session: self.session,
            role: self.role,
            request_key: Zeroizing::new(self.request_key),
            receipt_key: Zeroizing::new(self.receipt_key),
        }
    }

    /// The body of a request frame that is the session's next.
    pub fn request(&mut self, crypto: &StandardCrypto, operations: Vec<(Vec<u8>, Action)>, after_ts: u64) -> Vec<u8> {
        self.sequence += 1;
        let (body, mac) = self.encode(crypto, self.sequence, &operations, after_ts);
        self.sent.push_back(Sent {
            sequence: self.sequence,
            operations,
            mac,
        });
        body
    }

    /// The body of a request frame with any sequence.
    pub fn encode(
        &self,
        crypto: &StandardCrypto,
        sequence: u64,
        operations: &[(Vec<u8>, Action)],
        after_ts: u64,
    ) -> (Vec<u8>, [u8; 16]) {
        let mut request = Vec::new();
        RequestHeader {
            session: self.session,
            generation: self.generation,
            thread: self.thread,
            operations: operations.len() as u16,
            sequence,
            after_ts,
        }
        .encode(&mut request);
        let mut payload = Vec::new();
        for (key, action) in operations {
            encode_operation(key, action, &mut request, &mut payload);
        }
        let mac = crypto.mac(&self.request_key, MacDomain::Request, &[&request]);
        request.extend_from_slice(&mac);
        let mut body = (request.len() as u32).to_le_bytes().to_vec();
        body.extend_from_slice(&request);
        body.extend_from_slice(&payload);
        (body, mac)
    }

    /// The body of a resume frame.
    pub fn resume(&mut self, crypto: &StandardCrypto, nonce: [u8; 16]) -> Vec<u8> {
        self.generation += 1;
        self.resuming = Some(nonce);
        let mut resume = self.session.to_le_bytes().to_vec();
        resume.extend_from_slice(&self.generation.to_le_bytes());
        resume.extend_from_slice(&self.thread.to_le_bytes());
        resume.extend_from_slice(&[0; 2]);
        resume.extend_from_slice(&nonce);
        let mac = crypto.mac(&self.request_key, MacDomain::Resume, &[&resume]);
        resume.extend_from_slice(&mac);
        resume
    }

    /// Check an answer to a resume: all before it is answered, and what is not will never run.
    pub fn check_resumed(&mut self, crypto: &StandardCrypto, body: &[u8]) {
        let (covered, mac) = body
            .split_last_chunk::<16>()
            .expect("an answer to a resume ends with its MAC");
        let nonce = self.resuming.take().expect("a resume is under way");
        assert!(crypto.mac_is(&self.receipt_key, MacDomain::Resumed, &[covered, &nonce], mac));
        let resumed = Resumed::decode(&mut Reader::new(covered)).expect("well-formed");
        assert_eq!((resumed.session, resumed.generation), (self.session, self.generation));
        if let Some(sent) = self.sent.front() {
            assert!(
                sent.sequence > resumed.last_sequence,
                "a request that ran was not answered before its resume"
            );
        }
        self.sent.clear();
        self.sequence = resumed.last_sequence;
    }

    /// Check a receipt frame's body: its MAC, and every result. Returns its timestamp.
    pub fn check_receipt(&mut self, crypto: &StandardCrypto, model: &mut Model, body: &[u8]) -> u64 {
        let mut reader = Reader::new(body);
        let length = reader.u32().expect("a length") as usize;
        let receipt = reader.take(length).expect("a receipt");
        let sent = self.sent.pop_front().expect("a request is under way");
        let (covered, mac) = receipt.split_last_chunk::<16>().expect("a receipt ends with its MAC");
        assert!(crypto.mac_is(&self.receipt_key, MacDomain::Receipt, &[covered, &sent.mac], mac));
        let header = ReceiptHeader::decode(&mut Reader::new(covered)).expect("a header");
        assert_eq!(
            header.sequence, sent.sequence,
            "receipts come in the order of the requests"
        );
        if header.error != 0 {
            assert_eq!((header.error, header.count), (2, 0));
            reader.end().expect("an error receipt has no values");
            return header.ts;
        }
        assert_eq!(usize::from(header.count), sent.operations.len());
        let mut results = Reader::new(&covered[RECEIPT_HEADER_BYTES..]);
        for (key, action) in &sent.operations {
            let result = OperationResult::decode(&mut results).expect("a result");
            let answer = read_answer(result, &mut reader);
            let expected = expect(model, self.role, key, action);
            assert_eq!(answer, expected, "{action:?} of {:?}", String::from_utf8_lossy(key));
        }
        results.end().expect("no more results");
        reader.end().expect("no more values");
        header.ts
    }
}

fn read_answer(result: OperationResult, values: &mut Reader<'_>) -> Answer {
    let mut value = |commitment: Commitment| match commitment {
        Commitment::Null => None,
        Commitment::Inline(inline) => Some(inline.as_slice().to_vec()),
        Commitment::Digest(length, _) => {
            assert_eq!(values.u8(), Ok(1), "the value is there");
            let bytes = values.take(length as usize).expect("its bytes");
            assert_eq!(Commitment::of(bytes), commitment);
            Some(bytes.to_vec())
        }
    };
    match result {
        OperationResult::Ok => Answer::Ok,
        OperationResult::Value(commitment) => Answer::Value(value(commitment)),
        OperationResult::Mismatch(commitment) => Answer::Mismatch(value(commitment)),
        OperationResult::Exists => Answer::Exists,
        OperationResult::Forbidden => Answer::Forbidden,
        OperationResult::NotANumber => Answer::NotANumber,
        OperationResult::Overflow => Answer::Overflow,
    }
}

fn encode_operation(key: &[u8], action: &Action, request: &mut Vec<u8>, payload: &mut Vec<u8>) {
    let (code, new) = match action {
        Action::Get => (1, None),
        Action::Put(new) => (2, Some(new)),
        Action::Delete => (3, None),
        Action::Insert(new) => (4, Some(new)),
        Action::CompareAndSet(_, new) => (5, new.as_ref()),
        Action::Increment(_) => (6, None),
    };
    request.push(code);
    request.extend_from_slice(blake3::hash(key).as_bytes());
    match action {
        Action::Get | Action::Delete => {}
        Action::Put(new) | Action::Insert(new) => commitment(Some(new)).encode(request),
        Action::CompareAndSet(expected, new) => {
            commitment(expected.as_deref()).encode(request);
            commitment(new.as_deref()).encode(request);
        }
        Action::Increment(delta) => request.extend_from_slice(&delta.to_le_bytes()),
    }
    if !matches!(action, Action::Get) {
        payload.extend_from_slice(&(key.len() as u16).to_le_bytes());
        payload.extend_from_slice(key);
    }
    if let Some(new) = new
        && Inline::new(new).is_none()
    {
        payload.extend_from_slice(new);
    }
}
