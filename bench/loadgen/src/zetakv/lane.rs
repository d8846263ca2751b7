//! The requests of one session to one verifier thread, and the check of its receipts (section 3 of docs/protocol.md).

use std::collections::VecDeque;

use zetakv_verifier::codec::Reader;
use zetakv_verifier::machine::OperationResult;
use zetakv_verifier::receipt::{RECEIPT_HEADER_BYTES, ReceiptHeader};
use zetakv_verifier::request::{MAC_BYTES, MacDomain, RequestHeader};
use zetakv_verifier::standard_crypto::mac;
use zetakv_verifier::value::{Commitment, INLINE_BYTES_MAX};

use crate::failure::Failure;
use crate::records::{KEY_BYTES, Records, key};
use crate::target::Nanos;
use crate::workload::{Action, Operation};
use crate::zetakv::frames::{REQUEST, begin_frame, end_frame};
use crate::zetakv::handshake::ThreadKeys;

const GENERATION: u32 = 1;

/// What an answer must fit.
struct Sent {
    due: Nanos,
    sequence: u64,
    after_ts: u64,
    epoch_min: u32,
    operations: u16,
    mac: [u8; MAC_BYTES],
}

/// An answer that passed all checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// When the request was due.
    pub due: Nanos,
    /// Its number of operations.
    pub operations: u16,
    /// When it ran, on the verifier thread's clock.
    pub ts: u64,
}

/// One session's requests to one thread. Without keys: to an unverified server, whose MACs are zeros.
pub struct Lane {
    session: u64,
    thread: u16,
    keys: Option<ThreadKeys>,
    sequence: u64,
    /// Operations that are drawn, and not sent yet.
    pub waiting: Vec<Operation>,
    running: VecDeque<Operation>,
    in_flight: VecDeque<Sent>,
}

impl Lane {
    /// Nothing is sent yet.
    pub fn new(session: u64, thread: u16, keys: Option<ThreadKeys>) -> Self {
        Self {
            session,
            thread,
            keys,
            sequence: 0,
            waiting: Vec::new(),
            running: VecDeque::new(),
            in_flight: VecDeque::new(),
        }
    }

    /// Append a request frame of what waits, which is not empty. It runs after `after_ts`, and in no epoch before `epoch_min`.
    pub fn send(&mut self, records: &Records, due: Nanos, after_ts: u64, epoch_min: u32, out: &mut Vec<u8>) {
        self.sequence += 1;
        let operations = self.waiting.len() as u16; // at most 512
        let frame = begin_frame(REQUEST, out);
        out.extend_from_slice(&[0; 4]);
        let request = out.len();
        RequestHeader {
            session: self.session,
            generation: GENERATION,
            thread: self.thread,
            operations,
            sequence: self.sequence,
            after_ts,
        }
        .encode(out);
        for operation in &self.waiting {
            encode_operation(operation, records, out);
        }
        let mac = match &self.keys {
            Some(keys) => mac(&keys.request, MacDomain::Request, &[&out[request..]]),
            None => [0; MAC_BYTES],
        };
        out.extend_from_slice(&mac);
        let length = (out.len() - request) as u32; // at most 64 KiB
        out[request - 4..request].copy_from_slice(&length.to_le_bytes());
        for operation in &self.waiting {
            if operation.action == Action::Get {
                continue; // its key's hash is enough
            }
            out.extend_from_slice(&(KEY_BYTES as u16).to_le_bytes());
            out.extend_from_slice(&key(operation.record));
            if let Action::Put(variant) = operation.action {
                let value = records.value(operation.record, variant);
                if value.bytes.len() > INLINE_BYTES_MAX {
                    out.extend_from_slice(&value.bytes);
                }
            }
        }
        end_frame(frame, out);
        self.running.extend(self.waiting.drain(..));
        self.in_flight.push_back(Sent {
            due,
            sequence: self.sequence,
            after_ts,
            epoch_min,
            operations,
            mac,
        });
    }

    /// Check a receipt and its payload: it must answer the first request in flight.
    pub fn receive(&mut self, receipt: &[u8], payload: &[u8], records: &Records) -> Result<Answered, Failure> {
        let thread = self.thread;
        let sent = self
            .in_flight
            .pop_front()
            .ok_or_else(|| Failure::check(format!("a receipt of thread {thread} answers no request")))?;
        let (covered, receipt_mac) = receipt
            .split_last_chunk::<MAC_BYTES>()
            .filter(|(covered, _)| covered.len() >= RECEIPT_HEADER_BYTES)
            .ok_or_else(|| Failure::check("a receipt is cut short"))?;
        if let Some(keys) = &self.keys
            && mac(&keys.receipt, MacDomain::Receipt, &[covered, &sent.mac]) != *receipt_mac
        {
            return Err(Failure::check(format!(
                "thread {thread}: the MAC of the receipt of request {} is not the monitor's",
                sent.sequence
            )));
        }
        let mut results = Reader::new(covered);
        let header = ReceiptHeader::decode(&mut results)?;
        let expected = ReceiptHeader {
            session: self.session,
            generation: GENERATION,
            thread,
            count: sent.operations,
            sequence: sent.sequence,
            ts: header.ts,
            error: 0,
        };
        if header != expected {
            return Err(Failure::check(format!(
                "thread {thread}: {header:?} came where {expected:?} is due"
            )));
        }
        if self.keys.is_some() && (header.ts <= sent.after_ts || (header.ts >> 32) < u64::from(sent.epoch_min)) {
            return Err(Failure::check(format!(
                "thread {thread}: the receipt of request {} names a time before the request",
                sent.sequence
            )));
        }
        let mut values = Reader::new(payload);
        for operation in self.running.drain(..usize::from(sent.operations)) {
            check_result(
                &operation,
                &OperationResult::decode(&mut results)?,
                &mut values,
                records,
            )?;
        }
        results.end()?;
        values.end()?;
        Ok(Answered {
            due: sent.due,
            operations: sent.operations,
            ts: header.ts,
        })
    }
}

fn encode_operation(operation: &Operation, records: &Records, out: &mut Vec<u8>) {
    let key_hash = records.key_hash(operation.record);
    match operation.action {
        Action::Get => {
            out.push(1);
            out.extend_from_slice(key_hash);
        }
        Action::Put(variant) => {
            out.push(2);
            out.extend_from_slice(key_hash);
            out.extend_from_slice(&records.value(operation.record, variant).encoded_commitment);
        }
        Action::Increment => {
            out.push(6);
            out.extend_from_slice(key_hash);
            out.extend_from_slice(&1i64.to_le_bytes());
        }
    }
}

fn check_result(
    operation: &Operation,
    result: &OperationResult,
    values: &mut Reader<'_>,
    records: &Records,
) -> Result<(), Failure> {
    let record = operation.record;
    match (operation.action, result) {
        (Action::Put(_), OperationResult::Ok) => Ok(()),
        (Action::Get, OperationResult::Value(commitment @ Commitment::Inline(inline))) => {
            records.check(record, inline.as_slice(), Some(commitment))
        }
        (Action::Get, OperationResult::Value(commitment @ Commitment::Digest(length, _))) => {
            if values.u8()? != 1 {
                return Err(Failure::check(format!("the value of record {record} is left out")));
            }
            records.check(record, values.take(*length as usize)?, Some(commitment))
        }
        (Action::Get, OperationResult::Value(Commitment::Null)) => Err(Failure::check(format!(
            "record {record}, which was loaded, has no value"
        ))),
        (Action::Increment, OperationResult::Value(Commitment::Inline(inline))) if inline.as_slice().len() == 8 => {
            Ok(())
        }
        (action, result) => Err(Failure::check(format!("{action:?} of record {record} gave {result:?}"))),
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
