//! The failure latch: the first violation that any part of the monitor finds is final, until the process ends.
//!
//! Invariant: whoever writes a receipt or a certificate looks here first, so none leaves a monitor that is known to have failed.

use std::sync::OnceLock;

use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::key::Key;
use zetakv_verifier::output::Output;
use zetakv_verifier::violation::{NO_THREAD, VIOLATION_BYTES, Violation, ViolationCode};

use crate::identity::{Identity, Run};
use crate::log::log;

const MAGIC: &[u8; 4] = b"ZKV1";

/// How the monitor failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was violated.
    pub violation: Violation,
    /// The same, signed, as clients and operators get it.
    pub signed: Vec<u8>,
}

impl Failure {
    /// For people and logs.
    pub fn text(&self) -> String {
        let Violation {
            code,
            thread,
            epoch,
            offset,
            key,
        } = &self.violation;
        let place = if *thread == NO_THREAD {
            String::new()
        } else {
            format!(", thread {thread}, log offset {offset}")
        };
        format!(
            "the monitor has failed: {}, epoch {epoch}{place}, record {key:?}",
            code.name()
        )
    }

    /// As the output of a verifier thread.
    pub fn output(&self, out: &mut Vec<u8>) {
        Output::Failed(&self.signed).encode(out);
    }
}

/// Holds the first failure.
#[derive(Debug, Default)]
pub struct FailureLatch(OnceLock<Failure>);

impl FailureLatch {
    /// The failure, if there was one.
    pub fn failure(&self) -> Option<&Failure> {
        self.0.get()
    }

    /// Latch a violation, unless there was one before; returns the first.
    pub fn latch(&self, violation: Violation, identity: &Identity, run: &Run) -> &Failure {
        let mut is_first = false;
        let failure = self.0.get_or_init(|| {
            is_first = true;
            Failure {
                violation,
                signed: sign(&violation, identity, run),
            }
        });
        if is_first {
            log(failure.text()); // only now that all can see it: whoever reads the log may stop doing so
        }
        failure
    }
}

/// A violation that concerns no record and no place in a log.
pub const fn violation(code: ViolationCode, thread: ThreadId, epoch: u32) -> Violation {
    Violation {
        code,
        thread,
        epoch,
        offset: 0,
        key: Key::ROOT,
    }
}

fn sign(violation: &Violation, identity: &Identity, run: &Run) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(VIOLATION_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&run.instance);
    bytes.extend_from_slice(&run.incarnation);
    bytes.extend_from_slice(&(violation.code as u16).to_le_bytes());
    bytes.extend_from_slice(&violation.thread.to_le_bytes());
    bytes.extend_from_slice(&violation.epoch.to_le_bytes());
    bytes.extend_from_slice(&violation.offset.to_le_bytes());
    bytes.extend_from_slice(&violation.key.encode());
    let signature = identity.sign(&bytes);
    bytes.extend_from_slice(&signature);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Secret;

    #[test]
    fn the_first_violation_stays() {
        let identity = Identity::derive(&Secret::new([1; 32]));
        let latch = FailureLatch::default();
        let run = Run {
            instance: [4; 16],
            incarnation: [5; 16],
        };
        assert!(latch.failure().is_none());
        let first = violation(ViolationCode::HashMismatch, 3, 9);
        let second = violation(ViolationCode::EpochMismatch, NO_THREAD, 9);
        assert_eq!(latch.latch(first, &identity, &run).violation, first);
        let failure = latch.latch(second, &identity, &run);
        assert_eq!(failure.violation, first);
        assert_eq!(failure.signed.len(), VIOLATION_BYTES);
        assert_eq!(failure.signed[36..40], [10, 0, 3, 0]);
        assert!(failure.text().contains("hash_mismatch, epoch 9, thread 3"));
    }
}
