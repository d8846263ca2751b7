//! What the aggregator takes: of each thread one snapshot, of the epoch that is open.

use alloc::vec::Vec;

use crate::aggregate::Aggregator;
use crate::entry::ThreadId;
use crate::standard_crypto::{StandardCrypto, Sum};
use crate::thread::{EpochEnd, Snapshot};
use crate::value::Node;
use crate::violation::ViolationCode::EpochMismatch;

const EPOCH: u32 = 5;

fn snapshot(thread: ThreadId, epoch: u32) -> Snapshot<Sum> {
    Snapshot {
        thread,
        epoch,
        added: Sum::default(),
        evicted: Sum::default(),
        carried: Sum::default(),
        end: EpochEnd {
            root: (thread == 0).then(Node::default),
            sessions: Vec::new(),
            tag: None,
        },
    }
}

#[test]
fn each_thread_once_and_of_the_open_epoch() {
    let crypto = StandardCrypto::new([7; 32]);
    let started = || {
        let mut aggregator = Aggregator::new(2, EPOCH);
        assert!(matches!(aggregator.submit(snapshot(0, EPOCH), &crypto), Ok(None)));
        aggregator
    };
    for (thread, epoch) in [(0, EPOCH), (1, EPOCH - 1), (1, EPOCH + 1), (2, EPOCH)] {
        let refused = started().submit(snapshot(thread, epoch), &crypto).map(|_| ());
        assert_eq!(refused.map_err(|violation| violation.code), Err(EpochMismatch));
    }
    let held = started()
        .submit(snapshot(1, EPOCH), &crypto)
        .expect("it is as it should be");
    assert_eq!(held.map(|held| held.epoch), Some(EPOCH));
}
