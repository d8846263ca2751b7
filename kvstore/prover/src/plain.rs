//! The unverified baseline: the same client frames and rows, and no proofs. It shows what verification costs.
//!
//! Session 0, generation 1, zero MACs; receipts have the timestamp (epoch, 1), or the first one after their requests'. Invariant: a record that is not in memory is what its row in
//! the store says, and null if there is none.

use std::collections::VecDeque;

use hashbrown::HashMap;
use zetakv_verifier::key::{Key, KeyHash};
use zetakv_verifier::machine::Role;
use zetakv_verifier::receipt::ReceiptHeader;
use zetakv_verifier::request::MAC_BYTES;
use zetakv_verifier::time::Timestamp;

use crate::error::{Error, FrameErrorCode};
use crate::execute::apply;
use crate::frames::{ClientRequest, FrameRules, ResultValues, parse_request, receipt_frame};
use crate::reading::records_at_once;
use crate::records::Leaf;
use crate::rows::{RecordRow, pack_row, record_key};
use crate::work::ClientFrame;

/// Records that stay in memory for the next request, like the prover's hot ones.
const RECORDS_MAX: usize = 1 << 20;

/// Longer values of clean records are not kept in memory, as in a prover with its usual share.
const KEPT_VALUE_BYTES_MAX: usize = 1024;

/// Bytes of values that may be in memory because one batch reads them.
const READ_BYTES_MAX: usize = 256 << 20;

const NOT_LOADED: Error = Error::Engine("the rows that operations need have not been supplied");

#[derive(Debug)]
struct PlainRecord {
    leaf: Leaf,
    /// The epoch whose checkpoint froze it last, until that is applied (0): the row is read from memory meanwhile.
    frozen_in: u32,
    is_listed: bool,
    was_used: bool,
}

impl PlainRecord {
    /// Whether its row may not be in the store.
    const fn is_changed(&self) -> bool {
        self.is_listed || self.frozen_in != 0
    }
}

/// The rows that one cut froze, until they are applied.
#[derive(Debug)]
struct Generation {
    epoch: u32,
    keys: Vec<KeyHash>,
    bytes: usize,
}

/// An engine that only executes.
#[derive(Debug)]
pub struct PlainEngine {
    rules: FrameRules,
    epoch: u32,
    records: HashMap<KeyHash, PlainRecord>,
    submitted: VecDeque<ClientRequest>,
    /// The first so many requests run in the next round.
    planned: usize,
    wanted: Vec<KeyHash>,
    /// Records whose values are dropped after the batch, if they are durable.
    with_long_value: Vec<KeyHash>,
    cut_is_wanted: bool,
    handed_over: Option<u32>,
    listed: Vec<KeyHash>,
    frozen: VecDeque<Generation>,
    packed: Option<Vec<u8>>,
    dirty_bytes: usize,
    frozen_bytes: usize,
    operations: u64,
    operations_before_epoch: u64,
}

impl PlainEngine {
    /// An engine with nothing in memory.
    pub fn new(rules: FrameRules, epoch: u32) -> Self {
        Self {
            rules,
            epoch,
            records: HashMap::new(),
            submitted: VecDeque::new(),
            planned: 0,
            wanted: Vec::new(),
            with_long_value: Vec::new(),
            cut_is_wanted: false,
            handed_over: None,
            listed: Vec::new(),
            frozen: VecDeque::new(),
            packed: None,
            dirty_bytes: 0,
            frozen_bytes: 0,
            operations: 0,
            operations_before_epoch: 0,
        }
    }

    /// Queue the body of a client's request frame.
    pub fn submit(&mut self, origin: u64, body: &[u8]) -> Result<(), Error> {
        self.submitted.push_back(parse_request(&self.rules, origin, body)?);
        Ok(())
    }

    /// There is no session to resume.
    pub fn submit_resume(&mut self) -> Result<(), Error> {
        Err(Error::Frame {
            code: FrameErrorCode::NotVerified,
            text: "an unverified server has no sessions".to_owned(),
        })
    }

    /// Store keys of the rows that the next requests need.
    pub fn reads(&mut self) -> Vec<Vec<u8>> {
        if self.planned == 0 {
            let at_once = records_at_once(READ_BYTES_MAX, self.rules.value_bytes_max);
            let mut operations = 0;
            for request in &self.submitted {
                if operations >= at_once {
                    break;
                }
                operations += request.count();
                self.planned += 1;
            }
            let planned = self
                .submitted
                .iter()
                .take(self.planned)
                .flat_map(ClientRequest::operations);
            let keys = planned.map(|operation| operation.operation.key);
            self.wanted.extend(keys.filter(|key| !self.records.contains_key(key)));
            self.wanted.sort_unstable();
            self.wanted.dedup();
        }
        self.wanted
            .iter()
            .map(|key| record_key(&Key::leaf(*key), true))
            .collect()
    }

    /// The rows for the last `reads`, in its order.
    pub fn supply<R: AsRef<[u8]>>(&mut self, rows: &[Option<R>]) -> Result<(), Error> {
        if rows.len() != self.wanted.len() {
            return Err(Error::Engine("as many rows must be supplied as were asked for"));
        }
        for (key, row) in self.wanted.drain(..).zip(rows) {
            let garbled = |_| Error::Store {
                text: "a row is garbled",
                key: record_key(&Key::leaf(key), true),
            };
            let value = match row {
                Some(row) => RecordRow::decode(row.as_ref()).map_err(garbled)?.value,
                None => None,
            };
            let record = PlainRecord {
                leaf: Leaf::read(value),
                frozen_in: 0,
                is_listed: false,
                was_used: false,
            };
            self.records.insert(key, record);
        }
        Ok(())
    }

    /// Run what is planned; returns the frames that are now due to clients.
    pub fn absorb(&mut self) -> Result<Vec<ClientFrame>, Error> {
        let mut frames = Vec::with_capacity(self.planned);
        if !self.wanted.is_empty() {
            return Err(NOT_LOADED);
        }
        for request in self
            .submitted
            .drain(..core::mem::take(&mut self.planned))
            .collect::<Vec<_>>()
        {
            frames.push((request.origin, self.run(&request)?));
        }
        self.drop_long_values();
        if self.records.len() > RECORDS_MAX {
            self.records
                .retain(|_, record| record.is_changed() || core::mem::take(&mut record.was_used));
        }
        if self.cut_is_wanted && self.packed.is_none() {
            self.cut_is_wanted = false;
            self.freeze()?;
        }
        Ok(frames)
    }

    /// Like the prover: long values stay in memory only while they are not durable.
    fn drop_long_values(&mut self) {
        for key in core::mem::take(&mut self.with_long_value) {
            if self.records.get(&key).is_some_and(|record| !record.is_changed()) {
                self.records.remove(&key);
            }
        }
    }

    fn run(&mut self, request: &ClientRequest) -> Result<Vec<u8>, Error> {
        let header = &request.header;
        let clock = Timestamp::new(self.epoch, 1).to_u64();
        let mut values = ResultValues::default();
        let receipt_header = ReceiptHeader {
            session: header.session,
            generation: header.generation,
            thread: header.thread,
            count: header.operations,
            sequence: header.sequence,
            ts: clock.max(header.after_ts.saturating_add(1)), // later than all its client has seen, as the monitor's would be
            error: 0,
        };
        let mut receipt = receipt_header.encode().to_vec();
        for operation in request.operations() {
            let record = self.records.get_mut(&operation.operation.key).ok_or(NOT_LOADED)?;
            record.was_used = true;
            let outcome = apply(operation, Role::Admin, &record.leaf)?;
            outcome.result.encode(&mut receipt);
            if outcome
                .returned
                .as_ref()
                .is_some_and(|bytes| bytes.len() > KEPT_VALUE_BYTES_MAX)
            {
                self.with_long_value.push(operation.operation.key);
            }
            if let Some(value) = outcome.returned {
                values.push(value, self.rules.response_bytes_max);
            }
            if let Some((commitment, bytes)) = outcome.written {
                self.dirty_bytes += operation.application_key.len() + bytes.as_ref().map_or(0, |bytes| bytes.len());
                record.leaf = Leaf {
                    commitment,
                    bytes,
                    application_key: Some(operation.application_key.into()),
                };
                if !record.is_listed {
                    record.is_listed = true;
                    self.listed.push(operation.operation.key);
                }
            }
        }
        self.operations += request.count() as u64;
        receipt.extend_from_slice(&[0; MAC_BYTES]);
        Ok(receipt_frame(&self.rules, &receipt, &values))
    }

    fn freeze(&mut self) -> Result<(), Error> {
        let mut packed = Vec::new();
        let mut row = Vec::new();
        let frozen = core::mem::take(&mut self.listed);
        for key in &frozen {
            let record = self.records.get_mut(key).ok_or(NOT_LOADED)?;
            row.clear();
            let application_key = record.leaf.application_key.as_deref().unwrap_or_default();
            RecordRow::new(application_key, record.leaf.value()?).encode(&mut row);
            pack_row(&record_key(&Key::leaf(*key), true), Some(&row), &mut packed);
            record.is_listed = false;
            record.frozen_in = self.epoch;
            record.leaf.application_key = None;
        }
        self.dirty_bytes = 0;
        self.frozen_bytes += packed.len();
        self.frozen.push_back(Generation {
            epoch: self.epoch,
            keys: frozen,
            bytes: packed.len(),
        });
        self.packed = Some(packed);
        self.handed_over = Some(self.epoch);
        self.epoch = self
            .epoch
            .checked_add(1)
            .ok_or(Error::Engine("there is no next epoch"))?;
        self.operations_before_epoch = self.operations;
        Ok(())
    }

    /// Close the epoch with the next round, once the rows of the last cut have been taken.
    pub fn start_cut(&mut self) {
        self.cut_is_wanted = true;
    }

    /// The epoch that was closed since the last call, once.
    pub fn handed_over(&mut self) -> Option<u32> {
        self.handed_over.take()
    }

    /// After a cut: the changed rows, packed.
    pub fn take_checkpoint(&mut self) -> Result<Vec<u8>, Error> {
        self.packed
            .take()
            .ok_or(Error::Engine("there is no checkpoint to take"))
    }

    /// The checkpoints up to that of `epoch` are applied: reads see their rows.
    pub fn release_checkpoint(&mut self, epoch: u32) -> Result<(), Error> {
        if self.packed.is_some() || self.frozen.front().is_none_or(|oldest| oldest.epoch > epoch) {
            return Err(Error::Engine("there is no checkpoint to release"));
        }
        let applied = self.frozen.partition_point(|generation| generation.epoch <= epoch);
        for generation in self.frozen.drain(..applied).collect::<Vec<_>>() {
            self.frozen_bytes -= generation.bytes;
            for key in generation.keys {
                self.thaw(key, generation.epoch);
            }
        }
        Ok(())
    }

    fn thaw(&mut self, key: KeyHash, epoch: u32) {
        if let Some(record) = self.records.get_mut(&key).filter(|record| record.frozen_in == epoch) {
            record.frozen_in = 0;
            let bytes = record.leaf.bytes.as_ref();
            if bytes.is_some_and(|bytes| bytes.len() > KEPT_VALUE_BYTES_MAX) {
                self.with_long_value.push(key);
            }
        }
    }

    /// Whether there is anything to do now.
    pub fn is_busy(&self) -> bool {
        !self.submitted.is_empty() || (self.cut_is_wanted && self.packed.is_none())
    }

    /// Whether an operation has run in the open epoch.
    pub const fn is_active(&self) -> bool {
        self.operations > self.operations_before_epoch
    }

    /// Bytes of rows that changed since the last cut.
    pub const fn changed_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Bytes of rows held in memory until they are applied.
    pub const fn dirty_bytes(&self) -> usize {
        self.dirty_bytes + self.frozen_bytes
    }

    /// Records in memory, those of them that the next checkpoint writes, and operations since the start.
    pub fn stats(&self) -> (usize, usize, u64) {
        (self.records.len(), self.listed.len(), self.operations)
    }
}
