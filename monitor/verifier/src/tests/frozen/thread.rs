//! A thread between two entries, taken out and put back as a whole: for the search over all states. Only in the tests of this crate.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::{EpochEnd, Verifier};
use crate::cache::Record;
use crate::crypto::Crypto;
use crate::epochs::{Closing, Moment, Sums};
use crate::machine::{Role, StateMachine};
use crate::queue::{Queue, QueuedRequest};
use crate::time::Timestamp;
use crate::value::Node;

impl<C: Crypto, M: StateMachine, const DEPTH: u16> Verifier<C, M, DEPTH> {
    pub(crate) fn records(&self) -> &[Option<Record>] {
        self.cache.records()
    }

    pub(crate) fn occupied(&self) -> usize {
        self.cache.occupied()
    }

    pub(crate) fn moment(&self) -> Moment {
        self.epochs.moment()
    }

    /// The root's value at the end of the closing epoch, from the thread that has it.
    pub(crate) fn closing_root(&self) -> Option<Node> {
        self.end.as_ref().and_then(|end| end.root)
    }

    pub(crate) fn take_sums(&mut self) -> (Sums<C::Sum>, Closing<C::Sum>) {
        self.epochs.take_sums()
    }

    /// Go on from here, with no request waiting, whatever was before; one record or none for each slot. What is given for a closing epoch is
    /// dropped if none is closing.
    pub(crate) fn set(
        &mut self,
        records: &[Option<Record>],
        occupied: usize,
        moment: &Moment,
        (sums, closing): (Sums<C::Sum>, Closing<C::Sum>),
        closing_root: Option<Node>,
    ) {
        self.cache.set_records(records, occupied);
        self.epochs.set(moment, sums, closing);
        self.end = moment.is_closing.then(|| EpochEnd {
            root: closing_root,
            sessions: Vec::new(),
            tag: None,
        });
        if !self.queue.is_empty() {
            self.queue = Queue::new(0);
        }
        self.receipt.clear();
        self.snapshot = None;
        self.failed = None;
        self.offset = 0;
    }

    /// A request of one operation waits, as if a client's had been admitted.
    pub(crate) fn wait_for(&mut self, operation: &[u8]) {
        let request = QueuedRequest {
            session: 1,
            generation: 1,
            sequence: 1,
            after_ts: Timestamp::default(),
            role: Role::Write,
            mac: [0; 16],
            receipt_key: Zeroizing::default(),
            operations: 1,
            done: 0,
        };
        self.queue.push_request(request, operation);
    }
}
