//! What operations do to records: the state machine that the verifier is generic over, and its result format.
//!
//! Prover and verifier run the same code, so an honest prover's mirror of the records is exact.

use alloc::vec::Vec;

use crate::codec::{Malformed, Reader};
use crate::key::KeyHash;
use crate::value::Commitment;

/// The most keys that one operation may name; bounds the size of a `run` entry.
pub const KEYS_PER_OPERATION_MAX: usize = 8;

/// What a client may do; each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read records.
    Read = 1,
    /// Write records.
    Write = 2,
    /// Manage clients.
    Admin = 3,
}

impl Role {
    /// From its number.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Read),
            2 => Some(Self::Write),
            3 => Some(Self::Admin),
            _ => None,
        }
    }
}

/// The outcome of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationResult {
    /// Done.
    Ok,
    /// Done, and this is the value.
    Value(Commitment),
    /// Compare-and-set found this value instead.
    Mismatch(Commitment),
    /// Insert found a value.
    Exists,
    /// The client's role does not allow it.
    Forbidden,
    /// Increment found something that is not a 64-bit integer.
    NotANumber,
    /// The sum does not fit 64 bits.
    Overflow,
}

impl OperationResult {
    /// Bytes of the longest encoding.
    pub const ENCODED_BYTES_MAX: usize = 1 + Commitment::ENCODED_BYTES_MAX;

    /// Whether the operation may have changed records.
    pub const fn succeeded(&self) -> bool {
        matches!(self, Self::Ok | Self::Value(_))
    }

    /// Append the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (status, value) = match self {
            Self::Ok => (0, None),
            Self::Value(value) => (1, Some(value)),
            Self::Mismatch(value) => (2, Some(value)),
            Self::Exists => (3, None),
            Self::Forbidden => (4, None),
            Self::NotANumber => (5, None),
            Self::Overflow => (6, None),
        };
        out.push(status);
        if let Some(value) = value {
            value.encode(out);
        }
    }

    /// Read an encoded result.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            0 => Self::Ok,
            1 => Self::Value(Commitment::decode(reader)?),
            2 => Self::Mismatch(Commitment::decode(reader)?),
            3 => Self::Exists,
            4 => Self::Forbidden,
            5 => Self::NotANumber,
            6 => Self::Overflow,
            _ => return Err(Malformed),
        })
    }
}

/// Operations on leaves.
pub trait StateMachine {
    /// A decoded operation.
    type Operation;

    /// Read one operation of a request. What it accepts names 1 to [`KEYS_PER_OPERATION_MAX`] distinct keys.
    fn decode(reader: &mut Reader<'_>) -> Result<Self::Operation, Malformed>;

    /// The keys whose records it works on.
    fn keys(operation: &Self::Operation) -> &[KeyHash];

    /// The least role that may do it. [`Role::Read`] promises that it changes nothing.
    fn role(operation: &Self::Operation) -> Role;

    /// Compute the result; where it succeeds, `values` (one for each key) become the new ones. Otherwise they are left alone.
    fn apply(operation: &Self::Operation, values: &mut [Commitment]) -> OperationResult;
}

/// Run an operation for a client of a role.
pub fn execute<M: StateMachine>(operation: &M::Operation, role: Role, values: &mut [Commitment]) -> OperationResult {
    if role < M::role(operation) {
        OperationResult::Forbidden
    } else {
        M::apply(operation, values)
    }
}
