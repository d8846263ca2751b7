//! Frames of clients (protocol section 6): requests in, checked against their commitments; receipts and rejections out.

use std::ops::Range;
use std::sync::Arc;

use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::key::Key;
use zetakv_verifier::kv::{Action, KeyValue, Operation};
use zetakv_verifier::machine::StateMachine;
use zetakv_verifier::request::{
    OPERATIONS_PER_REQUEST_MAX, RESUME_BYTES, RequestHeader, UnverifiedRequest, UnverifiedResume,
};
use zetakv_verifier::value::Commitment;

use crate::error::Error;
use crate::partitions;

const RECEIPT_FRAME: u8 = 0x82;
const REJECTED_FRAME: u8 = 0x83;
const RESUMED_FRAME: u8 = 0x84;

/// Who a request is for, and what it may hold.
#[derive(Clone, Copy, Debug)]
pub struct FrameRules {
    /// The thread of this worker.
    pub thread: ThreadId,
    /// Number of threads.
    pub threads: u16,
    /// Bytes of an application key at the most.
    pub key_bytes_max: usize,
    /// Bytes of a value at the most.
    pub value_bytes_max: usize,
    /// Bytes of a receipt frame's body at the most; values beyond are left out.
    pub response_bytes_max: usize,
}

/// An operation of a request, with what the client sent along.
#[derive(Clone, Copy, Debug)]
pub struct ClientOperation<'a> {
    /// What the verifier runs.
    pub operation: &'a Operation,
    /// The application's key; empty for a get, with which it is not sent.
    pub application_key: &'a [u8],
    /// The bytes of the new value, where its commitment is a digest.
    pub bytes: Option<&'a [u8]>,
}

/// An operation, and where in the frame's body is what the client sent along.
#[derive(Clone, Debug)]
struct ParsedOperation {
    operation: Operation,
    application_key: Range<usize>,
    bytes: Option<Range<usize>>,
}

/// A client's request, not authenticated.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// Comes back with the answer.
    pub origin: u64,
    /// The header, as the sender claims.
    pub header: RequestHeader,
    /// That of its frame.
    pub body: Box<[u8]>,
    request: Range<usize>,
    operations: Vec<ParsedOperation>,
}

impl ClientRequest {
    /// The request, as the monitor gets it.
    pub fn request(&self) -> &[u8] {
        &self.body[self.request.clone()]
    }

    /// Number of its operations.
    pub const fn count(&self) -> usize {
        self.operations.len()
    }

    /// Its operations.
    pub fn operations(&self) -> impl Iterator<Item = ClientOperation<'_>> {
        self.operations.iter().map(|parsed| self.with_payload(parsed))
    }

    /// One of them.
    pub fn operation(&self, index: usize) -> Option<ClientOperation<'_>> {
        self.operations.get(index).map(|parsed| self.with_payload(parsed))
    }

    fn with_payload<'a>(&'a self, parsed: &'a ParsedOperation) -> ClientOperation<'a> {
        ClientOperation {
            operation: &parsed.operation,
            application_key: &self.body[parsed.application_key.clone()],
            bytes: parsed.bytes.clone().map(|range| &self.body[range]),
        }
    }
}

/// A client's resume, not authenticated.
#[derive(Clone, Debug)]
pub struct ClientResume {
    /// Comes back with the answer.
    pub origin: u64,
    /// The resume, as the monitor gets it.
    pub resume: Box<[u8; RESUME_BYTES]>,
    /// Its session, as the sender claims.
    pub session: u64,
}

/// The bytes of a value that a digest in a receipt stands for.
pub type ResultBytes = Arc<[u8]>;

/// The values that go with a receipt, in the order of its results.
///
/// Invariant: together they have no more bytes than a receipt frame. One request can ask for far more: the rest is not even kept.
#[derive(Clone, Debug, Default)]
pub struct ResultValues {
    /// None: left out.
    values: Vec<Option<ResultBytes>>,
    bytes: usize,
}

impl ResultValues {
    /// Add the next value, or leave it out.
    pub fn push(&mut self, value: ResultBytes, response_bytes_max: usize) {
        let fits = self.bytes + value.len() <= response_bytes_max;
        if fits {
            self.bytes += value.len();
        }
        self.values.push(fits.then_some(value));
    }

    /// Bytes of the values that are kept.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Read the body of a request frame.
pub fn parse_request(rules: &FrameRules, origin: u64, body: &[u8]) -> Result<ClientRequest, Error> {
    let mut reader = Reader::new(body);
    let read = |reader: &Reader<'_>| body.len() - reader.remaining();
    let request = read_counted(&mut reader).map_err(|_| Error::malformed("the frame ends before its request does"))?;
    let request_range = read(&reader) - request.len()..read(&reader);
    let parts = UnverifiedRequest::split(request)
        .map_err(|_| Error::malformed("the request is too short for its header, or longer than 65,536 bytes"))?;
    let header = parts.header;
    if header.thread != rules.thread {
        let text = format!(
            "the request is for thread {}, and this is thread {}",
            header.thread, rules.thread
        );
        return Err(Error::malformed(text));
    }
    if header.operations == 0 || header.operations > OPERATIONS_PER_REQUEST_MAX {
        let text = format!(
            "a request has 1 to {OPERATIONS_PER_REQUEST_MAX} operations, this one {}",
            header.operations
        );
        return Err(Error::malformed(text));
    }
    let mut encoded = Reader::new(parts.operations);
    let mut operations = Vec::with_capacity(usize::from(header.operations));
    for index in 0..header.operations {
        let operation = KeyValue::decode(&mut encoded)
            .map_err(|_| Error::malformed(format!("operation {index} of the request is malformed")))?;
        let (key_length, value_length) = read_payload(rules, index, &operation, &mut reader)?;
        let bytes = value_length.map(|length| read(&reader) - length..read(&reader));
        let key_end = bytes.as_ref().map_or(read(&reader), |range| range.start);
        operations.push(ParsedOperation {
            operation,
            application_key: key_end - key_length..key_end,
            bytes,
        });
    }
    encoded
        .end()
        .map_err(|_| Error::malformed("the request goes on after its last operation"))?;
    reader
        .end()
        .map_err(|_| Error::malformed("the frame goes on after its last value"))?;
    Ok(ClientRequest {
        origin,
        header,
        body: body.into(),
        request: request_range,
        operations,
    })
}

fn read_counted<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let length = reader.u32()? as usize;
    reader.take(length)
}

/// Read what was sent along with an operation; returns the lengths of its key, and of its value, where that is sent.
fn read_payload(
    rules: &FrameRules,
    index: u16,
    operation: &Operation,
    reader: &mut Reader<'_>,
) -> Result<(usize, Option<usize>), Error> {
    if partitions::thread_of(&Key::leaf(operation.key), rules.threads) != rules.thread {
        return Err(Error::malformed(format!(
            "the key of operation {index} belongs to another thread"
        )));
    }
    if operation.action == Action::Get {
        return Ok((0, None));
    }
    let ends = |_: Malformed| Error::malformed(format!("the frame ends before the key or value of operation {index}"));
    let length = usize::from(reader.u16().map_err(ends)?);
    let application_key = reader.take(length).map_err(ends)?;
    if length > rules.key_bytes_max {
        let text = format!(
            "the key of operation {index} has {length} bytes, at most {} are allowed",
            rules.key_bytes_max
        );
        return Err(Error::payload(text));
    }
    if blake3::hash(application_key).as_bytes() != &operation.key {
        return Err(Error::payload(format!(
            "the key of operation {index} does not have the hash that the request names"
        )));
    }
    match operation.action.new_commitment() {
        Some(commitment @ Commitment::Digest(value_length, _)) => {
            let value_length = *value_length as usize;
            if value_length > rules.value_bytes_max {
                let most = rules.value_bytes_max;
                let text =
                    format!("the value of operation {index} has {value_length} bytes, at most {most} are allowed");
                return Err(Error::payload(text));
            }
            let value = reader.take(value_length).map_err(ends)?;
            if Commitment::of(value) != *commitment {
                let text = format!("the value of operation {index} does not have the hash that the request names");
                return Err(Error::payload(text));
            }
            Ok((length, Some(value_length)))
        }
        _ => Ok((length, None)),
    }
}

/// Read the body of a resume frame.
pub fn parse_resume(rules: &FrameRules, origin: u64, body: &[u8]) -> Result<ClientResume, Error> {
    let resume: &[u8; RESUME_BYTES] = body
        .try_into()
        .map_err(|_| Error::malformed(format!("a resume has {RESUME_BYTES} bytes")))?;
    let parts = UnverifiedResume::split(resume).map_err(|_| Error::malformed("the resume's padding is not zero"))?;
    if parts.thread != rules.thread {
        let text = format!(
            "the resume is for thread {}, and this is thread {}",
            parts.thread, rules.thread
        );
        return Err(Error::malformed(text));
    }
    Ok(ClientResume {
        origin,
        resume: Box::new(*resume),
        session: parts.session,
    })
}

/// The receipt frame: the receipt, and the values that its digests stand for, as far as they fit.
pub fn receipt_frame(rules: &FrameRules, receipt: &[u8], values: &ResultValues) -> Vec<u8> {
    let value_bytes = values.bytes() + values.values.len();
    let mut body = Vec::with_capacity(4 + receipt.len() + value_bytes.min(rules.response_bytes_max));
    body.extend_from_slice(&(receipt.len() as u32).to_le_bytes()); // receipts are far below 4 GiB
    body.extend_from_slice(receipt);
    // each value that is left out takes one byte
    let mut room = rules
        .response_bytes_max
        .saturating_sub(body.len() + values.values.len());
    for value in &values.values {
        match value {
            Some(bytes) if bytes.len() <= room => {
                room -= bytes.len();
                body.push(1);
                body.extend_from_slice(bytes);
            }
            _ => body.push(0),
        }
    }
    frame(RECEIPT_FRAME, &[&body])
}

/// The frame that tells a client that its request, or its resume (sequence 0), was rejected.
pub fn rejected_frame(session: u64, thread: ThreadId, sequence: u64, reason: u8) -> Vec<u8> {
    let parts: [&[u8]; 4] = [
        &session.to_le_bytes(),
        &thread.to_le_bytes(),
        &sequence.to_le_bytes(),
        &[reason],
    ];
    frame(REJECTED_FRAME, &parts)
}

/// The answer to a resume.
pub fn resumed_frame(resumed: &[u8]) -> Vec<u8> {
    frame(RESUMED_FRAME, &[resumed])
}

fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(4 + length);
    out.extend_from_slice(&(length as u32).to_le_bytes()); // response_bytes_max bounds it
    out.push(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// Whether the result of an action may hold the record's former value.
pub const fn may_return_value(action: &Action) -> bool {
    matches!(action, Action::Get | Action::CompareAndSet(..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FrameErrorCode;

    const RULES: FrameRules = FrameRules {
        thread: 0,
        threads: 1,
        key_bytes_max: 10,
        value_bytes_max: 100,
        response_bytes_max: 60,
    };

    /// A request frame's body with one put.
    fn put(application_key: &[u8], committed: &[u8], sent: &[u8]) -> Vec<u8> {
        let mut request = Vec::new();
        RequestHeader {
            session: 1,
            generation: 1,
            thread: 0,
            operations: 1,
            sequence: 1,
            after_ts: 0,
        }
        .encode(&mut request);
        request.push(2);
        request.extend_from_slice(blake3::hash(application_key).as_bytes());
        Commitment::of(committed).encode(&mut request);
        request.extend_from_slice(&[0; 16]);
        let mut body = (request.len() as u32).to_le_bytes().to_vec();
        body.extend_from_slice(&request);
        body.extend_from_slice(&(application_key.len() as u16).to_le_bytes());
        body.extend_from_slice(application_key);
        body.extend_from_slice(sent);
        body
    }

    fn code(body: &[u8]) -> Option<FrameErrorCode> {
        match parse_request(&RULES, 7, body) {
            Err(Error::Frame { code, .. }) => Some(code),
            Err(other) => panic!("{other}"),
            Ok(request) => {
                assert_eq!((request.origin, request.count()), (7, 1));
                None
            }
        }
    }

    #[test]
    fn payloads_are_checked_against_the_request() {
        assert_eq!(code(&put(b"key", b"inline", b"")), None);
        assert_eq!(code(&put(b"key", &[1; 50], &[1; 50])), None);
        assert_eq!(code(&put(b"key", &[1; 50], &[2; 50])), Some(FrameErrorCode::Payload));
        assert_eq!(code(&put(b"key", &[1; 101], &[1; 101])), Some(FrameErrorCode::Payload));
        assert_eq!(code(&put(b"a longer key", b"", b"")), Some(FrameErrorCode::Payload));
        assert_eq!(code(&put(b"key", &[1; 50], &[1; 49])), Some(FrameErrorCode::Malformed));
        assert_eq!(code(&put(b"key", b"inline", b"more")), Some(FrameErrorCode::Malformed));
    }

    #[test]
    fn every_cut_frame_is_malformed() {
        let body = put(b"key", &[1; 50], &[1; 50]);
        for length in 0..body.len() {
            assert_eq!(code(&body[..length]), Some(FrameErrorCode::Malformed), "{length}");
        }
    }

    #[test]
    fn values_that_do_not_fit_are_left_out() {
        let mut values = ResultValues::default();
        for value in [&[1; 40][..], &[2; 40], &[3; 2]] {
            values.push(value.into(), RULES.response_bytes_max);
        }
        assert_eq!(values.bytes(), 42, "what is left out is not kept");
        let frame = receipt_frame(&RULES, &[9; 10], &values);
        let body = [&[10, 0, 0, 0][..], &[9; 10], &[1], &[1; 40], &[0], &[1, 3, 3]].concat();
        assert_eq!(frame[4], RECEIPT_FRAME);
        assert_eq!(frame[5..], body);
        assert!(body.len() <= RULES.response_bytes_max);
    }
}
