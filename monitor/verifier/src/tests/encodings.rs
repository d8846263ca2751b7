//! Encodings are read back, and are as long as their constants say.

use alloc::vec;
use alloc::vec::Vec;

use crate::codec::{Malformed, Reader};
use crate::entry::Entry;
use crate::key::Key;
use crate::machine::{OperationResult, Role};
use crate::output::Output;
use crate::request::{REQUEST_BYTES_MAX, UnverifiedRequest};
use crate::time::Timestamp;
use crate::value::{Child, Commitment, Node, Value};
use crate::violation::VIOLATION_BYTES;

const DIGEST: Commitment = Commitment::Digest(100, [7; 32]);

#[test]
fn roles_have_numbers() {
    for role in [Role::Read, Role::Write, Role::Admin] {
        assert_eq!(Role::from_u8(role as u8), Some(role));
    }
    assert_eq!((Role::from_u8(0), Role::from_u8(4)), (None, None));
}

#[test]
fn results_of_operations() {
    let all = [
        (OperationResult::Ok, true),
        (OperationResult::Value(DIGEST), true),
        (OperationResult::Mismatch(DIGEST), false),
        (OperationResult::Exists, false),
        (OperationResult::Forbidden, false),
        (OperationResult::NotANumber, false),
        (OperationResult::Overflow, false),
    ];
    let mut longest = 0;
    for (result, succeeded) in all {
        let mut bytes = Vec::new();
        result.encode(&mut bytes);
        longest = longest.max(bytes.len());
        assert_eq!(OperationResult::decode(&mut Reader::new(&bytes)), Ok(result));
        assert_eq!(result.succeeded(), succeeded, "{result:?}");
    }
    assert_eq!(longest, OperationResult::ENCODED_BYTES_MAX);
}

#[test]
fn what_is_carried_over_is_as_in_the_protocol() {
    let entry = Entry::CarryOver {
        ts: Timestamp::new(2, 7),
        thread: 3,
        key: Key::leaf([0xa5; 32]),
        value: Value::Leaf(DIGEST),
    };
    let mut value = Vec::new();
    Value::Leaf(DIGEST).encode(&mut value);
    let expected = [
        &[16][..],
        &[7, 0, 0, 0, 2, 0, 0, 0],
        &[3, 0],
        &Key::leaf([0xa5; 32]).encode(),
        &value,
    ];
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    assert_eq!(bytes, expected.concat());
    let mut reader = Reader::new(&bytes);
    assert_eq!(Entry::decode(&mut reader), Ok(entry));
    assert_eq!(reader.remaining(), 0);
    for length in 0..bytes.len() {
        assert_eq!(Entry::decode(&mut Reader::new(&bytes[..length])), Err(Malformed));
    }
}

#[test]
fn the_longest_value() {
    let child = |byte| Child {
        key: Key::leaf([byte; 32]),
        hash: Some([byte; 32]),
    };
    let value = Value::Node(Node {
        sides: [Some(child(1)), Some(child(0xff))],
    });
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    assert_eq!(bytes.len(), Value::ENCODED_BYTES_MAX);
    assert_eq!(Value::decode(&mut Reader::new(&bytes)), Ok(value));
}

#[test]
fn signed_violations_are_as_long_as_in_the_protocol() {
    let magic_instance_incarnation = 4 + 16 + 16;
    let code_thread_epoch_offset = 2 + 2 + 4 + 8;
    let signature = 64;
    let fields = magic_instance_incarnation + code_thread_epoch_offset + Key::ENCODED_BYTES + signature;
    assert_eq!(VIOLATION_BYTES, fields);
    let signed = [3; VIOLATION_BYTES];
    let mut bytes = Vec::new();
    Output::Failed(&signed).encode(&mut bytes);
    let mut reader = Reader::new(&bytes);
    assert!(matches!(Output::decode(&mut reader), Ok(Output::Failed(read)) if read == signed));
    assert_eq!(reader.remaining(), 0);
}

#[test]
fn a_request_may_have_as_many_bytes_as_its_limit() {
    let bytes = vec![0; REQUEST_BYTES_MAX + 1];
    assert!(UnverifiedRequest::split(&bytes[1..]).is_ok());
    assert!(UnverifiedRequest::split(&bytes).is_err());
}
