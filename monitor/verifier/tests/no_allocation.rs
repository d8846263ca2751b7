//! In the steady state a thread allocates nothing: its cache, its queue and its receipt have their memory from the start.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use zetakv_verifier::clocks::Clocks;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Crypto;
use zetakv_verifier::entry::{Entry, Slots};
use zetakv_verifier::key::{Key, KeyHash};
use zetakv_verifier::kv::KeyValue;
use zetakv_verifier::machine::Role;
use zetakv_verifier::output::Output;
use zetakv_verifier::request::{MacDomain, RequestHeader};
use zetakv_verifier::time::Timestamp;
use zetakv_verifier::value::{Commitment, Value};
use zetakv_verifier::{Progress, SessionKeys, StandardCrypto, ThreadConfig, Verifier};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the allocations of each thread.
struct Counting;

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const KEYS: [KeyHash; 2] = [[0x00; 32], [0xff; 32]];
const REQUEST_KEY: [u8; 32] = [1; 32];
const ROUNDS: u32 = 3000;
/// Where epoch 1 begins to close: before the round of this number.
const CUT: u32 = 2000;

/// A request that writes both keys, and reads them.
fn request(crypto: &StandardCrypto, sequence: u64, value: &Commitment) -> Vec<u8> {
    let mut request = Vec::new();
    let header = RequestHeader {
        session: 1,
        generation: 1,
        thread: 0,
        operations: 4,
        sequence,
        after_ts: 0,
    };
    header.encode(&mut request);
    for key in KEYS {
        request.extend_from_slice(&[&[2], &key[..]].concat());
        value.encode(&mut request);
        request.extend_from_slice(&[&[1], &key[..]].concat());
    }
    let mac = crypto.mac(&REQUEST_KEY, MacDomain::Request, &[&request]);
    request.extend_from_slice(&mac);
    request
}

/// The value before the round of this number.
fn value(number: u32) -> Commitment {
    match number {
        0 => Commitment::Null,
        _ => Commitment::of(&vec![number as u8; 20 + number as usize % 30]),
    }
}

/// When the round of this number evicts its record to Blum.
const fn evicted_at(number: u32) -> Timestamp {
    let epoch = if number < CUT { 1 } else { 2 };
    Timestamp::new(epoch, 10 + 2 * number)
}

/// Take the record over into epoch 2 that the round before [`CUT`] has evicted.
fn carry_over() -> Vec<u8> {
    let entry = Entry::CarryOver {
        ts: evicted_at(CUT - 1),
        thread: 0,
        key: Key::leaf(KEYS[1]),
        value: Value::Leaf(value(CUT)),
    };
    let mut log = Vec::new();
    entry.encode(&mut log);
    log
}

/// Both records come, one by Merkle and one from Blum, are worked on by two requests, and go.
fn round(crypto: &StandardCrypto, number: u32) -> Vec<u8> {
    let (old, new) = (value(number), value(number + 1));
    let sequence = u64::from(number) * 2 + 1;
    let requests = [
        request(crypto, sequence, &value(number + 7)),
        request(crypto, sequence + 1, &new),
    ];
    let [left, right] = KEYS.map(Key::leaf);
    let leaf = Value::Leaf(old);
    let add_right = match number {
        0 => Entry::AddMerkle {
            slot: 2,
            parent: 0,
            key: right,
            value: leaf,
        },
        _ => Entry::AddBlum {
            slot: 2,
            ts: match number {
                CUT => Timestamp::new(2, 0),
                _ => evicted_at(number - 1),
            },
            thread: 0,
            key: right,
            value: leaf,
        },
    };
    let evict_right = match number {
        0 => Entry::EvictBlumMerkle {
            slot: 2,
            parent: 0,
            ts: evicted_at(0),
        },
        _ => Entry::EvictBlum {
            slot: 2,
            ts: evicted_at(number),
        },
    };
    let run = |slot| Entry::Run(Slots::new(&[slot]).expect("one slot"));
    let mut entries = vec![
        Entry::Request(&requests[0]),
        Entry::AddMerkle {
            slot: 1,
            parent: 0,
            key: left,
            value: leaf,
        },
        add_right,
        Entry::Request(&requests[1]),
    ];
    entries.extend([run(1), run(1), run(2), run(2)].repeat(2));
    entries.extend([Entry::EvictMerkle { slot: 1, parent: 0 }, evict_right, Entry::Tick]);
    let mut log = Vec::new();
    for entry in entries {
        entry.encode(&mut log);
    }
    log
}

#[test]
fn a_thread_allocates_nothing_while_it_works() {
    let clocks = Arc::new(Clocks::new(0).expect("there is a first epoch"));
    let config = ThreadConfig {
        thread: 0,
        slots: 16,
        certified_epoch: 0,
        root: Some(Default::default()),
        queue_bytes: 1024,
    };
    let crypto = StandardCrypto::new([3; 32]);
    let verifier = Verifier::<_, KeyValue>::new(config, StandardCrypto::new([3; 32]), Default::default(), clocks);
    let mut verifier = verifier.expect("a thread");
    verifier.open_session(SessionKeys {
        session: 1,
        role: Role::Write,
        request_key: REQUEST_KEY.into(),
        receipt_key: [2; 32].into(),
    });
    let mut logs: Vec<_> = (0..ROUNDS).map(|number| round(&crypto, number)).collect();
    // while the epoch closes, too: some rounds after it began to
    logs.insert(CUT as usize + 10, carry_over());
    let mut next_epoch = Vec::new();
    Entry::NextEpoch.encode(&mut next_epoch);
    let mut outputs = Vec::with_capacity(4096);
    let mut receipts = 0;
    let mut before = ALLOCATIONS.get();
    for (number, log) in logs.iter().enumerate() {
        outputs.clear();
        if number == CUT as usize {
            assert_eq!(ALLOCATIONS.get() - before, 0);
            assert_eq!(verifier.process(&next_epoch, &mut outputs), Progress::Done);
            before = ALLOCATIONS.get(); // what it has of the epoch's end, it keeps
        }
        assert_eq!(verifier.process(log, &mut outputs), Progress::Done);
        let mut reader = Reader::new(&outputs);
        while let Ok(output) = Output::decode(&mut reader) {
            receipts += u32::from(matches!(output, Output::Receipt(_)));
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(receipts, 2 * ROUNDS);
    // the count would show one
    drop(Box::new(outputs));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}
