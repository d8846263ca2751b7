//! What clients send can never make a verifier thread fail: authentic requests with anything in them, and resumes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zetakv_fuzz::service::{self, REQUEST_KEY, SESSION};
use zetakv_fuzz::{Input, decoder_bytes_max, within};
use zetakv_verifier::Progress;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Crypto as _;
use zetakv_verifier::entry::Entry;
use zetakv_verifier::kv::KeyValue;
use zetakv_verifier::machine::{Role, StateMachine as _};
use zetakv_verifier::output::Output;
use zetakv_verifier::request::{MacDomain, RequestHeader};

/// Operations that can be read are written as the same bytes.
fn check_encoding(operations: &[u8]) {
    let mut reader = Reader::new(operations);
    let mut again = Vec::new();
    while reader.remaining() > 0 {
        let Ok(operation) = KeyValue::decode(&mut reader) else {
            break;
        };
        service::encode_operation(&operation.key, &operation.action, &mut again);
        assert_eq!(again, operations[..operations.len() - reader.remaining()]);
    }
}

fn request(input: &mut Input<'_>) -> Vec<u8> {
    let honest = input.u8();
    let or = |bit: u8, honest_value: u64, other: u64| if honest & bit == 0 { honest_value } else { other };
    let header = RequestHeader {
        session: or(1, SESSION, input.u64()),
        generation: or(2, 1, input.u64()) as u32,
        thread: or(4, 0, input.u64()) as u16,
        operations: input.u16() % 600,
        sequence: 1 + u64::from(input.u8() % 4),
        after_ts: or(8, 0, input.u64()),
    };
    let operations = input.counted();
    check_encoding(operations);
    service::authentic(&service::crypto(), &header, operations)
}

fn resume(input: &mut Input<'_>) -> [u8; 48] {
    let mut resume = input.array();
    resume[..8].copy_from_slice(&SESSION.to_le_bytes());
    let mac = service::crypto().mac(&REQUEST_KEY, MacDomain::Resume, &[&resume[..32]]);
    resume[32..].copy_from_slice(&mac);
    resume
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let role = [Role::Read, Role::Write, Role::Admin][input.below(3)];
    let mut verifier = service::verifier(role, &service::clocks());
    within(2 * decoder_bytes_max(bytes), || {
        while !input.is_empty() {
            let mut log = Vec::new();
            match input.u8() % 4 {
                0 => Entry::Resume(&resume(&mut input)).encode(&mut log),
                1 => Entry::Request(input.counted()).encode(&mut log),
                _ => Entry::Request(&request(&mut input)).encode(&mut log),
            }
            let mut outputs = Vec::new();
            assert_eq!(verifier.process(&log, &mut outputs), Progress::Done);
            let mut reader = Reader::new(&outputs);
            if reader.remaining() > 0 {
                Output::decode(&mut reader).expect("outputs are well-formed");
            }
            assert_eq!(reader.remaining(), 0, "one answer for each at the most");
        }
    });
});
