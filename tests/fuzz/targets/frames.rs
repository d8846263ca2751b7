//! What clients and the write-ahead log give to the prover: frames with the right hashes, and anything in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zetakv_fuzz::service::{self, RULES, SESSION};
use zetakv_fuzz::{Input, within};
use zetakv_prover::PlainEngine;
use zetakv_verifier::kv::Action;
use zetakv_verifier::request::RequestHeader;
use zetakv_verifier::value::Commitment;

fn commitment(value: &[u8]) -> Commitment {
    Commitment::of(value)
}

/// The body of a request frame; one of its bytes may be changed.
fn body(input: &mut Input<'_>) -> Vec<u8> {
    let count = input.u8() % 4;
    let (mut operations, mut payload) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let length = usize::from(input.u8());
        let key = input.take(length);
        let action = match input.u8() % 6 {
            0 => Action::Get,
            1 => Action::Put(commitment(input.counted())),
            2 => Action::Delete,
            3 => Action::Insert(commitment(input.counted())),
            4 => Action::CompareAndSet(commitment(input.counted()), Commitment::Null),
            _ => Action::Increment(input.u64() as i64),
        };
        service::encode_operation(blake3::hash(key).as_bytes(), &action, &mut operations);
        if action != Action::Get {
            payload.extend_from_slice(&(key.len() as u16).to_le_bytes());
            payload.extend_from_slice(key);
            payload.extend_from_slice(input.counted());
        }
    }
    let header = RequestHeader {
        session: SESSION,
        generation: 1,
        thread: u16::from(input.u8() == 255),
        operations: u16::from(count) + u16::from(input.u8() == 255),
        sequence: 1,
        after_ts: 0,
    };
    let request = service::authentic(&service::crypto(), &header, &operations);
    let mut body = [&(request.len() as u32).to_le_bytes()[..], &request, &payload].concat();
    if input.u8() % 2 == 0 {
        let at = input.below(body.len());
        body[at] ^= input.u8();
    }
    body
}

fn record(input: &mut Input<'_>) -> Vec<u8> {
    let mut record = input.array::<16>().to_vec();
    for _ in 0..input.u8() % 4 {
        match input.u8() % 3 {
            0 => record.extend_from_slice(&[&[0][..], &input.array::<16>()].concat()),
            1 => {
                let body = body(input);
                record.extend_from_slice(&[1, input.u8() % 5]);
                record.extend_from_slice(&(body.len() as u32).to_le_bytes());
                record.extend_from_slice(&body);
            }
            _ => record.extend_from_slice(input.counted()),
        }
    }
    record
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut prover = service::prover(None);
    let mut replaying = service::prover(Some([8; 16]));
    let mut plain = PlainEngine::new(RULES, 1);
    within(256 * 1024 + 64 * bytes.len(), || {
        while !input.is_empty() {
            match input.u8() % 5 {
                0 => drop(prover.submit(SESSION, input.counted())),
                1 => drop(prover.submit_resume(SESSION, input.take(48))),
                2 => {
                    let body = body(&mut input);
                    assert_eq!(prover.submit(SESSION, &body), plain.submit(SESSION, &body));
                }
                3 => drop(replaying.replay(&record(&mut input))),
                _ => drop(prover.absorb(input.counted())),
            }
        }
        let _ = prover.reads();
        let _ = prover.log();
        let _ = replaying.end_replay();
        let _ = replaying.log();
    });
});
