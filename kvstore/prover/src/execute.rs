//! Running one operation: its leaf is brought into the cache, or its absence is shown, and the mirror gets the result.

use std::sync::Arc;

use zetakv_verifier::entry::Slot;
use zetakv_verifier::key::Key;
use zetakv_verifier::kv::KeyValue;
use zetakv_verifier::machine::{OperationResult, Role, execute};
use zetakv_verifier::time::Timestamp;
use zetakv_verifier::value::Commitment;

use crate::cache::NO_SLOT;
use crate::error::Error;
use crate::frames::{ClientOperation, ResultBytes};
use crate::mirror::Mirror;
use crate::records::{Content, Leaf, Place, RecordId};
use crate::walk::End;

/// Where an operation finds its record.
enum Found {
    /// In a slot.
    Cached(Slot, RecordId),
    /// It is not in the tree, as the node in this slot proves.
    Absent(Slot),
}

impl Mirror {
    /// Write the entries that run an operation; returns the bytes of the value in its result, if that holds a digest.
    ///
    /// `after_ts`: where it is the first of its request. `found`: when it was planned, its record, or the last node on the way there.
    pub fn run_operation(
        &mut self,
        operation: ClientOperation<'_>,
        role: Role,
        after_ts: Option<Timestamp>,
        found: Option<RecordId>,
        path: &mut Vec<RecordId>,
    ) -> Result<Option<ResultBytes>, Error> {
        match self.bring_leaf(operation, role, found, path)? {
            Found::Absent(parent) => {
                self.run_absent(parent, after_ts)?;
                self.let_derived_go(parent)?;
                Ok(None)
            }
            Found::Cached(slot, id) => {
                self.run(slot, after_ts)?;
                let Content::Leaf(leaf) = &self.records.get(id).content else {
                    return Err(Error::Engine("the value of a record is not in memory"));
                };
                let outcome = apply(operation, role, leaf)?;
                if let Some((commitment, bytes)) = outcome.written {
                    self.records
                        .write_leaf(id, commitment, bytes, operation.application_key);
                }
                self.let_cold_go(slot)?;
                Ok(outcome.returned)
            }
        }
    }

    fn bring_leaf(
        &mut self,
        operation: ClientOperation<'_>,
        role: Role,
        found: Option<RecordId>,
        path: &mut Vec<RecordId>,
    ) -> Result<Found, Error> {
        let key = Key::leaf(operation.operation.key);
        // what was planned with it may have made its record
        let is_record = |id: &RecordId| self.records.get(*id).key == key;
        let record = found.filter(is_record).or_else(|| self.records.find(&key));
        if let Some(id) = record {
            match self.records.get(id).place {
                Place::Cached(slot) => {
                    self.count_use(id);
                    return Ok(Found::Cached(slot, id));
                }
                Place::Blum { .. } => {
                    self.count_use(id);
                    let slot = self.make_room(NO_SLOT)?;
                    self.add_blum(id, slot)?;
                    return Ok(Found::Cached(slot, id));
                }
                Place::Merkle => {}
            }
        }
        let end = self.walk(&key, record.or(found), path)?;
        let parent = self.bring_path(path, &mut Vec::new())?;
        match end {
            End::Missing(_) => Err(Error::Engine("the rows that an operation needs have not been supplied")),
            End::Record(id) => {
                self.count_use(id);
                let slot = self.make_room(parent)?;
                self.add_again(id, slot, parent)?;
                Ok(Found::Cached(slot, id))
            }
            End::Nothing | End::Other(_) if leaves_null(operation, role) => Ok(Found::Absent(parent)),
            End::Nothing => self.add_leaf(key, operation, parent),
            End::Other(other) => {
                // a new node where the paths to the two part
                let slot = self.make_room(parent)?;
                self.add_new(key.common_prefix(&other.key), None, slot, parent)?;
                self.add_leaf(key, operation, slot)
            }
        }
    }

    fn add_leaf(&mut self, key: Key, operation: ClientOperation<'_>, parent: Slot) -> Result<Found, Error> {
        let slot = self.make_room(parent)?;
        let id = self.add_new(key, Some(operation.application_key), slot, parent)?;
        self.count_use(id);
        Ok(Found::Cached(slot, id))
    }
}

/// Whether an operation on an absent key needs no record: it reads, fails, or writes null.
fn leaves_null(operation: ClientOperation<'_>, role: Role) -> bool {
    let mut value = Commitment::Null;
    execute::<KeyValue>(operation.operation, role, core::slice::from_mut(&mut value));
    value.is_null()
}

/// What an operation does to a leaf.
pub struct Outcome {
    /// What the verifier answers.
    pub result: OperationResult,
    /// The bytes of the value in the result, if that holds a digest.
    pub returned: Option<ResultBytes>,
    /// The leaf's new value, if it changes.
    pub written: Option<(Commitment, Option<Arc<[u8]>>)>,
}

/// Apply an operation to a leaf, as the verifier does.
pub fn apply(operation: ClientOperation<'_>, role: Role, leaf: &Leaf) -> Result<Outcome, Error> {
    let mut commitment = leaf.commitment;
    let result = execute::<KeyValue>(operation.operation, role, core::slice::from_mut(&mut commitment));
    let returned = match result {
        OperationResult::Value(Commitment::Digest(..)) | OperationResult::Mismatch(Commitment::Digest(..)) => {
            // digests that are returned are those that were there: an operation that computes its result makes an inline value
            let bytes = leaf.bytes.clone();
            Some(bytes.ok_or(Error::Engine("the bytes of a value are not in memory"))?)
        }
        _ => None,
    };
    let is_written = result.succeeded() && commitment != leaf.commitment;
    Ok(Outcome {
        result,
        returned,
        written: is_written.then(|| (commitment, operation.bytes.map(Arc::from))),
    })
}
