//! Outputs of a verifier thread: what it answers to its log.

use alloc::vec::Vec;

use crate::codec::{Malformed, Reader};
use crate::crypto::Mac;
use crate::machine::Role;

/// One output, as the host reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<'a> {
    /// The request is in the queue, and will run in this role.
    Admitted(Role),
    /// The request or resume was rejected; a [`crate::request::Rejection`].
    Rejected(u8),
    /// The host should admit the request again later.
    NotYet,
    /// An error receipt: the request is done with.
    Refused(&'a [u8]),
    /// A receipt.
    Receipt(&'a [u8]),
    /// The answer to a resume.
    Resumed(&'a [u8]),
    /// The epoch has been handed over.
    HandedOver(u32),
    /// `next_epoch` came before the certificate of the epoch before.
    EpochNotYet,
    /// The monitor has failed: a violation.
    Failed(&'a [u8]),
    /// The tag of the chain over all that was admitted or refused so far.
    Logged(&'a Mac),
}

impl<'a> Output<'a> {
    /// Read one output.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            1 => Self::Admitted(Role::from_u8(reader.u8()?).ok_or(Malformed)?),
            2 => Self::Rejected(reader.u8()?),
            3 => Self::NotYet,
            4 => Self::Refused(counted(reader)?),
            5 => Self::Receipt(counted(reader)?),
            6 => Self::Resumed(counted(reader)?),
            7 => Self::HandedOver(reader.u32()?),
            8 => Self::EpochNotYet,
            9 => Self::Failed(reader.take(crate::violation::VIOLATION_BYTES)?),
            10 => Self::Logged(reader.array()?),
            _ => return Err(Malformed),
        })
    }

    /// Append the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Admitted(role) => out.extend_from_slice(&[1, *role as u8]),
            Self::Rejected(reason) => out.extend_from_slice(&[2, *reason]),
            Self::NotYet => out.push(3),
            Self::Refused(bytes) => put_counted(out, 4, bytes),
            Self::Receipt(bytes) => put_counted(out, 5, bytes),
            Self::Resumed(bytes) => put_counted(out, 6, bytes),
            Self::HandedOver(epoch) => {
                out.push(7);
                out.extend_from_slice(&epoch.to_le_bytes());
            }
            Self::EpochNotYet => out.push(8),
            Self::Failed(violation) => {
                out.push(9);
                out.extend_from_slice(violation);
            }
            Self::Logged(tag) => {
                out.push(10);
                out.extend_from_slice(*tag);
            }
        }
    }
}

fn counted<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let length = reader.u32()? as usize;
    reader.take(length)
}

fn put_counted(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes()); // receipts are far below 4 GiB
    out.extend_from_slice(bytes);
}
