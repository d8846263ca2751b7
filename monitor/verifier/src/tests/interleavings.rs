//! All interleavings of threads that share clocks, by loom: each run of these models takes one, until none is left.
//!
//! What is looked for: two `run`s on one record with neither before the other. Real time orders them only if the memory model does, so a
//! record is a cell that loom watches, and a `run` on it writes it. `make loom` runs this; ordinary builds have none of it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::string::String;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::sync::mpsc;
use loom::thread;

use super::left_out::without;
use super::symbolic::{Multiset, SymbolicCrypto};
use super::watched_atomics::{ACQUIRE, NOT_BEFORE, RELEASE};
use super::world::{DEPTH, Log, NULL, QUEUE_BYTES, REQUEST_KEY, SESSION, SLOTS, get, leaf, put, session_keys, ts};
use crate::aggregate::Aggregator;
use crate::clocks::Clocks;
use crate::codec::{Malformed, Reader};
use crate::crypto::Crypto as _;
use crate::key::KeyHash;
use crate::kv::{self, KeyValue};
use crate::machine::{OperationResult, Role, StateMachine};
use crate::request::{MacDomain, RequestHeader};
use crate::thread::{Progress, ThreadConfig, Verifier};
use crate::value::{Commitment, Node};

std::thread_local! {
    /// The one record that the models are about. Loom's threads are all of one thread of the system, so this is no state of theirs.
    static RECORD: RefCell<Option<Rc<UnsafeCell<()>>>> = const { RefCell::new(None) };
}

/// [`KeyValue`] on records whose uses loom watches.
struct Watched;

impl StateMachine for Watched {
    type Operation = kv::Operation;

    fn decode(reader: &mut Reader<'_>) -> Result<kv::Operation, Malformed> {
        KeyValue::decode(reader)
    }

    fn keys(operation: &kv::Operation) -> &[KeyHash] {
        KeyValue::keys(operation)
    }

    fn role(operation: &kv::Operation) -> Role {
        KeyValue::role(operation)
    }

    fn apply(operation: &kv::Operation, values: &mut [Commitment]) -> OperationResult {
        let record = RECORD.with_borrow(Clone::clone).expect("a model is running");
        record.with_mut(|_| {});
        KeyValue::apply(operation, values)
    }
}

type Thread = Verifier<SymbolicCrypto, Watched, DEPTH>;

/// The verifier threads of a monitor, at the start of epoch 1.
fn threads<const COUNT: usize>(crypto: &SymbolicCrypto, clocks: &Arc<Clocks>) -> [Thread; COUNT] {
    RECORD.set(Some(Rc::new(UnsafeCell::new(()))));
    core::array::from_fn(|thread| {
        let config = ThreadConfig {
            thread: thread as u16,
            slots: SLOTS,
            certified_epoch: 0,
            root: (thread == 0).then(Node::default),
            queue_bytes: QUEUE_BYTES,
        };
        let verifier = Verifier::new(config, crypto.clone(), Multiset::default(), Arc::clone(clocks));
        let mut verifier = verifier.expect("there is a slot for the root");
        verifier.open_session(session_keys(SESSION, Role::Admin));
        verifier
    })
}

fn clocks() -> Arc<Clocks> {
    Arc::new(Clocks::new(0).expect("there is a next epoch"))
}

/// The client's request of this sequence, with this operation.
fn request(crypto: &SymbolicCrypto, thread: u16, sequence: u64, operation: &[u8]) -> Vec<u8> {
    let header = RequestHeader {
        session: SESSION,
        generation: 1,
        thread,
        operations: 1,
        sequence,
        after_ts: 0,
    };
    let mut request = Vec::new();
    header.encode(&mut request);
    request.extend_from_slice(operation);
    let mac = crypto.mac(&REQUEST_KEY, MacDomain::Request, &[&request]);
    request.extend_from_slice(&mac);
    request
}

/// A host that gives a thread its whole log at once, and waits for other threads' clocks like the monitor's process.
fn serve(verifier: &mut Thread, log: &Log) {
    let (mut log, mut outputs) = (log.0.as_slice(), Vec::new());
    loop {
        match verifier.process(log, &mut outputs) {
            Progress::Done => return,
            Progress::Waiting { consumed } => log = &log[consumed..],
            Progress::Failed(violation) => panic!("an honest log is refused: {violation:?}"),
        }
        thread::yield_now();
    }
}

/// A record goes from thread 0 to thread 1 and back, and each runs an operation on it. Neither host waits for the other.
fn handover_and_back() {
    let (crypto, clocks) = (SymbolicCrypto::default(), clocks());
    let [mut first, mut second] = threads(&crypto, &clocks);
    let [put_a, put_c] = [(1, "a"), (2, "c")].map(|(sequence, text)| request(&crypto, 0, sequence, &put("000", text)));
    let put_b = request(&crypto, 1, 1, &put("000", "b"));
    let there = Log::new()
        .request(&put_a)
        .add_merkle(1, 0, "000", NULL)
        .run(&[1])
        .evict_blum_merkle(1, 0, ts(1, 2))
        .tick()
        .request(&put_c)
        .add_blum(1, "000", leaf("b"), ts(1, 4), 1)
        .run(&[1]);
    let back = Log::new()
        .request(&put_b)
        .add_blum(1, "000", leaf("a"), ts(1, 2), 0)
        .run(&[1])
        .evict_blum(1, ts(1, 4))
        .tick();
    let other = thread::spawn(move || serve(&mut second, &back));
    serve(&mut first, &there);
    other.join().expect("it does not fail");
    RECORD.take();
}

/// Thread 0 carries over what it worked on in epoch 1; thread 1 is in epoch 2 already, and takes it from its start, whether it has been carried
/// over yet or not.
fn handover_from_closing_epoch() {
    let (crypto, clocks) = (SymbolicCrypto::default(), clocks());
    let [mut first, mut second] = threads(&crypto, &clocks);
    let put_a = request(&crypto, 0, 1, &put("000", "a"));
    let get_a = request(&crypto, 1, 1, &get("000"));
    let from = Log::new()
        .request(&put_a)
        .add_merkle(1, 0, "000", NULL)
        .run(&[1])
        .evict_blum_merkle(1, 0, ts(1, 2))
        .next_epoch()
        .carry_over("000", leaf("a"), ts(1, 2), 0)
        .verify_epoch();
    let to = Log::new()
        .next_epoch()
        .request(&get_a)
        .add_blum(1, "000", leaf("a"), ts(2, 0), 0)
        .run(&[1]);
    let other = thread::spawn(move || serve(&mut second, &to));
    serve(&mut first, &from);
    other.join().expect("it does not fail");
    RECORD.take();
}

/// Three threads pass a record on: what the third does is after what the first did, though it looks at the second's clock only.
fn handover_by_way_of_another() {
    let (crypto, clocks) = (SymbolicCrypto::default(), clocks());
    let [mut first, mut second, mut third] = threads(&crypto, &clocks);
    let put_a = request(&crypto, 0, 1, &put("000", "a"));
    let get_a = request(&crypto, 2, 1, &get("000"));
    let from = Log::new()
        .request(&put_a)
        .add_merkle(1, 0, "000", NULL)
        .run(&[1])
        .evict_blum_merkle(1, 0, ts(1, 2))
        .tick();
    let by_way = Log::new()
        .add_blum(1, "000", leaf("a"), ts(1, 2), 0)
        .evict_blum(1, ts(1, 4))
        .tick();
    let to = Log::new()
        .request(&get_a)
        .add_blum(1, "000", leaf("a"), ts(1, 4), 1)
        .run(&[1]);
    let others = [
        thread::spawn(move || serve(&mut second, &by_way)),
        thread::spawn(move || serve(&mut third, &to)),
    ];
    serve(&mut first, &from);
    for other in others {
        other.join().expect("it does not fail");
    }
    RECORD.take();
}

/// Two threads close epoch 1 and hand it over; each opens epoch 2 only after whoever certifies has committed to epoch 1.
fn next_epoch_after_certificate() {
    let (crypto, clocks) = (SymbolicCrypto::default(), clocks());
    let verifiers: [Thread; 2] = threads(&crypto, &clocks);
    let register = Rc::new(UnsafeCell::new(()));
    let (events, snapshots) = mpsc::channel();
    let threads = verifiers.map(|mut verifier| {
        let (events, register) = (events.clone(), Rc::clone(&register));
        thread::spawn(move || {
            serve(&mut verifier, &Log::new().next_epoch().verify_epoch());
            let snapshot = verifier.take_snapshot().expect("a snapshot");
            events.send(snapshot).expect("it is listened to");
            serve(&mut verifier, &Log::new().next_epoch()); // which may be "not yet"
            if verifier.clock().epoch == 3 {
                register.with(|_| {});
            }
        })
    });
    let mut aggregator = Aggregator::new(2, 1);
    let mut submit = || {
        let snapshot = snapshots.recv().expect("both hand over");
        aggregator.submit(snapshot, &crypto).expect("the epoch holds")
    };
    assert!(submit().is_none());
    assert_eq!(submit().expect("the last one").epoch, 1);
    register.with_mut(|_| {}); // the commitment
    clocks.certify(1);
    for thread in threads {
        thread.join().expect("it does not fail");
    }
    RECORD.take();
}

/// Go through all interleavings of a model: how many there were.
fn explore(model: fn()) -> usize {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    runs.load(Ordering::Relaxed)
}

/// Whether loom finds two things done in no order, in a model with this made weaker.
fn is_faulty(model: fn(), weaker: &'static str) -> bool {
    let panic = without(&[weaker], || catch_unwind(AssertUnwindSafe(|| explore(model))).err());
    let text = panic.and_then(|panic| panic.downcast::<String>().ok());
    text.is_some_and(|text| text.starts_with("Causality violation"))
}

const MODELS: [(&str, fn(), &[&str]); 4] = [
    (
        "handover_and_back",
        handover_and_back,
        &[RELEASE, ACQUIRE, NOT_BEFORE, "add_blum_clock_passed"],
    ),
    (
        "handover_from_closing_epoch",
        handover_from_closing_epoch,
        &[RELEASE, ACQUIRE, "add_blum_clock_passed"],
    ),
    (
        "handover_by_way_of_another",
        handover_by_way_of_another,
        &[RELEASE, ACQUIRE],
    ),
    (
        "next_epoch_after_certificate",
        next_epoch_after_certificate,
        &[RELEASE, ACQUIRE],
    ),
];

#[test]
fn every_interleaving_is_in_order_and_nothing_weaker_is() {
    let (mut interleavings, mut canaries) = (0, 0);
    for (name, model, needed) in MODELS {
        let runs = explore(model);
        std::println!("{name}: {runs} interleavings");
        assert!(runs > 1, "{name}: nothing is concurrent");
        interleavings += runs;
        for weaker in needed {
            assert!(
                is_faulty(model, weaker),
                "{name}: loom does not notice that {weaker} is missing"
            );
            std::println!("{name}: without {weaker} loom finds a fault");
            canaries += 1;
        }
    }
    std::println!(
        "ASSURANCE loom result=ok models={} interleavings={interleavings} canaries={canaries}",
        MODELS.len()
    );
}
