//! No check is left out of what is shipped: only the unit tests can do that, and they are another build of the crate.

use std::sync::Arc;

use zetakv_verifier::clocks::Clocks;
use zetakv_verifier::entry::Entry;
use zetakv_verifier::key::Key;
use zetakv_verifier::kv::KeyValue;
use zetakv_verifier::standard_crypto::Sum;
use zetakv_verifier::value::{Node, Value};
use zetakv_verifier::violation::ViolationCode;
use zetakv_verifier::{Progress, StandardCrypto, ThreadConfig, Verifier};

#[test]
fn checks_hold() {
    let config = ThreadConfig {
        thread: 0,
        slots: 80,
        certified_epoch: 0,
        root: Some(Node::default()),
        queue_bytes: 1 << 20,
    };
    let clocks = Arc::new(Clocks::new(0).expect("epochs are left"));
    let thread = Verifier::<_, KeyValue>::new(config, StandardCrypto::new([7; 32]), Sum::default(), clocks);
    let mut thread = thread.expect("a thread");
    let cached = Entry::AddMerkle {
        slot: 1,
        parent: 0,
        key: Key::leaf([0; 32]),
        value: Value::initial(true),
    };
    let mut log = Vec::new();
    for entry in [cached, Entry::NextEpoch] {
        entry.encode(&mut log);
    }
    match thread.process(&log, &mut Vec::new()) {
        Progress::Failed(violation) => assert_eq!(violation.code, ViolationCode::CacheNotEmpty),
        other => panic!("an epoch was closed with a record in the cache: {other:?}"),
    }
}
