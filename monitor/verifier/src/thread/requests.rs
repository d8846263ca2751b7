//! What a thread does with clients' requests and resumes: admit them, run their operations on cached records, answer with MACs.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::{Verifier, replaying};
use crate::check::{Fault, check};
use crate::codec::{Malformed, Reader};
use crate::crypto::{Crypto, Mac, MacKey};
use crate::entry::{Slot, Slots};
use crate::key::{Key, KeyHash};
use crate::machine::{KEYS_PER_OPERATION_MAX, Role, StateMachine, execute};
use crate::output::Output;
use crate::queue::{QueuedRequest, QueuedResume};
use crate::receipt::{RECEIPT_HEADER_BYTES, RESUMED_BYTES, ReceiptHeader, Resumed};
use crate::request::{MAC_BYTES, MacDomain, OPERATIONS_PER_REQUEST_MAX, RESUME_BYTES, RequestError, UnverifiedRequest};
use crate::sessions::AuthenticRequest;
use crate::time::Timestamp;
use crate::value::{Commitment, Value};
use crate::violation::ViolationCode;

impl<C: Crypto, M: StateMachine, const DEPTH: u16> Verifier<C, M, DEPTH> {
    /// Admit a request, or say why not.
    pub(super) fn request(&mut self, bytes: &[u8], outputs: &mut Vec<u8>) -> Result<(), Fault> {
        let request = match self.sessions.authenticate(&self.crypto, bytes) {
            Ok(request) => request,
            Err(rejection) => {
                Output::Rejected(rejection as u8).encode(outputs);
                return Ok(());
            }
        };
        let after_ts = Timestamp::from_u64(request.header.after_ts);
        let is_own = |key: &KeyHash| self.chain.as_ref().is_none_or(|chain| chain.owns(key));
        let role = if self.epochs.is_ahead_of_all(after_ts) {
            self.refuse(&request, RequestError::AfterTsAhead, outputs);
            None
        } else if self.epochs.is_for_later(after_ts) || !self.queue.has_room(request.operations.len()) {
            Output::NotYet.encode(outputs);
            return Ok(());
        } else if check_operations::<M>(request.header.operations, request.operations, is_own).is_err() {
            self.refuse(&request, RequestError::Malformed, outputs);
            None
        } else {
            self.admit(&request, after_ts, outputs);
            Some(request.role)
        };
        if let Some(chain) = &mut self.chain {
            chain.admitted(&self.crypto, role, bytes);
        }
        Ok(())
    }

    /// Put a request that an earlier incarnation admitted into the queue again. That it was, and that it is well-formed, shows at the end of
    /// the replay, before anybody is answered. Its session is over, so its receipt has a key that nobody uses.
    pub(super) fn replay(&mut self, role: Option<Role>, bytes: &[u8], outputs: &mut Vec<u8>) -> Result<(), Fault> {
        let chain = replaying(&mut self.chain)?;
        let request = UnverifiedRequest::split(bytes).map_err(|malformed| Fault::new(malformed.into(), Key::ROOT))?;
        if role.is_some() && !self.queue.has_room(request.operations.len()) {
            Output::NotYet.encode(outputs);
            return Ok(());
        }
        let header = request.header;
        chain.replayed(&self.crypto, role, bytes, header.session, header.sequence)?;
        if let Some(role) = role {
            let queued = QueuedRequest {
                session: header.session,
                generation: header.generation,
                sequence: header.sequence,
                after_ts: Timestamp::default(), // of a clock that is gone
                role,
                mac: *request.mac,
                receipt_key: Zeroizing::default(),
                operations: header.operations,
                done: 0,
            };
            self.queue.push_request(queued, request.operations);
        }
        Ok(())
    }

    fn admit(&mut self, request: &AuthenticRequest<'_>, after_ts: Timestamp, outputs: &mut Vec<u8>) {
        self.sessions.consume(request);
        let queued = QueuedRequest {
            session: request.header.session,
            generation: request.header.generation,
            sequence: request.header.sequence,
            after_ts,
            role: request.role,
            mac: request.mac,
            receipt_key: request.receipt_key.clone(),
            operations: request.header.operations,
            done: 0,
        };
        self.queue.push_request(queued, request.operations);
        Output::Admitted(request.role).encode(outputs);
    }

    /// Answer with an error receipt.
    fn refuse(&mut self, request: &AuthenticRequest<'_>, error: RequestError, outputs: &mut Vec<u8>) {
        self.sessions.consume(request);
        let header = ReceiptHeader {
            session: request.header.session,
            generation: request.header.generation,
            thread: self.thread,
            count: 0,
            sequence: request.header.sequence,
            ts: self.epochs.clock().to_u64(),
            error: error as u8,
        };
        let mut receipt = [0; RECEIPT_HEADER_BYTES + MAC_BYTES];
        let (covered, mac) = receipt.split_at_mut(RECEIPT_HEADER_BYTES);
        covered.copy_from_slice(&header.encode());
        mac.copy_from_slice(&self.receipt_mac(&request.receipt_key, covered, &request.mac));
        Output::Refused(&receipt).encode(outputs);
    }

    fn receipt_mac(&self, key: &MacKey, covered: &[u8], request_mac: &Mac) -> Mac {
        self.crypto.mac(key, MacDomain::Receipt, &[covered, request_mac])
    }

    /// Admit a resume, and answer at once if nothing is before it.
    pub(super) fn resume(&mut self, resume: &[u8; RESUME_BYTES], outputs: &mut Vec<u8>) -> Result<(), Fault> {
        if !self.queue.has_room(0) {
            Output::NotYet.encode(outputs);
            return Ok(());
        }
        match self.sessions.resume(&self.crypto, resume) {
            Err(rejection) => Output::Rejected(rejection as u8).encode(outputs),
            Ok(resume) if self.queue.is_empty() => self.resumed(&resume, outputs),
            Ok(resume) => self.queue.push_resume(resume),
        }
        Ok(())
    }

    fn resumed(&self, resume: &QueuedResume, outputs: &mut Vec<u8>) {
        let header = Resumed {
            session: resume.session,
            generation: resume.generation,
            thread: self.thread,
            last_sequence: resume.last_sequence,
            ts: self.epochs.clock().to_u64(),
        };
        let mut answer = [0; RESUMED_BYTES + MAC_BYTES];
        let (covered, mac) = answer.split_at_mut(RESUMED_BYTES);
        covered.copy_from_slice(&header.encode());
        mac.copy_from_slice(
            &self
                .crypto
                .mac(&resume.receipt_key, MacDomain::Resumed, &[covered, &resume.nonce]),
        );
        Output::Resumed(&answer).encode(outputs);
    }

    /// Run the next operation on the records in these slots.
    pub(super) fn run(&mut self, slots: &Slots, outputs: &mut Vec<u8>) -> Result<(), Fault> {
        let (role, operation, end) = self.next_operation()?;
        let slots = slots.as_slice();
        let keys = M::keys(&operation);
        check!(run_slot_for_each_key: slots.len() == keys.len(), else WrongRecord(Key::ROOT));
        let mut values = [Commitment::Null; KEYS_PER_OPERATION_MAX];
        for (index, (slot, hash)) in slots.iter().zip(keys).enumerate() {
            let leaf = leaf::<DEPTH>(hash);
            let record = self.cache.get(*slot, &leaf)?;
            check!(run_slots_distinct: !slots[..index].contains(slot), else WrongRecord(leaf));
            check!(run_slot_holds_key: record.key == leaf, else WrongRecord(leaf));
            let Value::Leaf(value) = record.value else {
                return Err(Fault::new(ViolationCode::WrongRecord, leaf));
            };
            values[index] = value;
        }
        let result = execute::<M>(&operation, role, &mut values[..slots.len()]);
        if result.succeeded() {
            for (slot, value) in slots.iter().zip(values) {
                self.cache.get_mut(*slot, &Key::ROOT)?.set_value(Value::Leaf(value));
            }
        }
        result.encode(&mut self.receipt);
        self.finish_operation(end, outputs);
        Ok(())
    }

    /// Run the next operation, on one key, where a parent in the cache proves that no record has this key: as if there were one, and it were
    /// null. It must leave it so: then no record needs to be made, and reading, or failing to write, does not make the tree grow.
    pub(super) fn run_absent(&mut self, parent: Slot, outputs: &mut Vec<u8>) -> Result<(), Fault> {
        let (role, operation, end) = self.next_operation()?;
        let [hash] = M::keys(&operation) else {
            return Err(Fault::new(ViolationCode::NotAbsent, Key::ROOT));
        };
        let leaf = leaf::<DEPTH>(hash);
        let side = self.cache.above(parent, &leaf)?.side().copied();
        let may_be_there = |key: &Key| *key == leaf || key.is_proper_ancestor_of(&leaf);
        let absent = side.is_none_or(|child| !may_be_there(&child.key));
        check!(run_absent_proved: absent, else NotAbsent(leaf));
        let mut value = Commitment::Null;
        let result = execute::<M>(&operation, role, core::slice::from_mut(&mut value));
        check!(run_absent_changes_nothing: value.is_null(), else NotAbsent(leaf));
        result.encode(&mut self.receipt);
        self.finish_operation(end, outputs);
        Ok(())
    }

    /// The next operation of the request at the head, and where it ends in the queue. Before the first, the clock passes `after_ts`.
    fn next_operation(&mut self) -> Result<(Role, M::Operation, usize), Fault> {
        let Some(request) = self.queue.head() else {
            return Err(Fault::new(ViolationCode::NoRequest, Key::ROOT));
        };
        let (role, after_ts, is_first) = (request.role, request.after_ts, request.done == 0);
        if is_first {
            self.epochs.pass(after_ts, &Key::ROOT)?;
            self.receipt.clear();
            self.receipt.resize(RECEIPT_HEADER_BYTES, 0);
        }
        // what is in the queue has been decoded before, so this does not fail
        let decoded = self.queue.next_operation::<M>();
        let (operation, end) = decoded.map_err(|malformed| Fault::new(malformed.into(), Key::ROOT))?;
        Ok((role, operation, end))
    }

    /// The operation that ends there has run. After the last of a request, answer it and the resumes that waited for it.
    fn finish_operation(&mut self, end: usize, outputs: &mut Vec<u8>) {
        let Some(request) = self.queue.finish_operation(end) else {
            return;
        };
        let header = ReceiptHeader {
            session: request.session,
            generation: request.generation,
            thread: self.thread,
            count: request.operations,
            sequence: request.sequence,
            ts: self.epochs.clock().to_u64(),
            error: 0,
        };
        self.receipt[..RECEIPT_HEADER_BYTES].copy_from_slice(&header.encode());
        let mac = self.receipt_mac(&request.receipt_key, &self.receipt, &request.mac);
        self.receipt.extend_from_slice(&mac);
        Output::Receipt(&self.receipt).encode(outputs);
        while let Some(resume) = self.queue.pop_resume() {
            self.resumed(&resume, outputs);
        }
    }
}

/// The leaf of a key hash, in a tree of this depth.
fn leaf<const DEPTH: u16>(hash: &KeyHash) -> Key {
    Key::prefix(*hash, DEPTH)
}

/// Whether these bytes are so many operations, and not too many, on keys that are allowed.
fn check_operations<M: StateMachine>(
    count: u16,
    operations: &[u8],
    is_allowed: impl Fn(&KeyHash) -> bool,
) -> Result<(), Malformed> {
    if count == 0 || count > OPERATIONS_PER_REQUEST_MAX {
        return Err(Malformed);
    }
    let mut reader = Reader::new(operations);
    for _ in 0..count {
        let operation = M::decode(&mut reader)?;
        if !M::keys(&operation).iter().all(&is_allowed) {
            return Err(Malformed);
        }
    }
    reader.end()
}
