//! What a thread answers to clients: receipts, and answers to resumes. Their MACs follow them.

use crate::codec::{Malformed, Reader};
use crate::entry::ThreadId;

/// Bytes of a receipt before its results.
pub const RECEIPT_HEADER_BYTES: usize = 33;
/// Bytes of the answer to a resume, without its MAC.
pub const RESUMED_BYTES: usize = 32;

/// The header of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptHeader {
    /// Session of the request.
    pub session: u64,
    /// Generation of the request.
    pub generation: u32,
    /// The thread that ran it.
    pub thread: ThreadId,
    /// Number of results.
    pub count: u16,
    /// Sequence of the request.
    pub sequence: u64,
    /// The thread's clock when the last operation had run.
    pub ts: u64,
    /// 0, or a [`crate::request::RequestError`].
    pub error: u8,
}

impl ReceiptHeader {
    /// Read an encoded header.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            session: reader.u64()?,
            generation: reader.u32()?,
            thread: reader.u16()?,
            count: reader.u16()?,
            sequence: reader.u64()?,
            ts: reader.u64()?,
            error: reader.u8()?,
        })
    }

    /// The encoding.
    pub fn encode(&self) -> [u8; RECEIPT_HEADER_BYTES] {
        let mut out = [0; RECEIPT_HEADER_BYTES];
        out[..8].copy_from_slice(&self.session.to_le_bytes());
        out[8..12].copy_from_slice(&self.generation.to_le_bytes());
        out[12..14].copy_from_slice(&self.thread.to_le_bytes());
        out[14..16].copy_from_slice(&self.count.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.ts.to_le_bytes());
        out[32] = self.error;
        out
    }
}

/// The answer to a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Session of the resume.
    pub session: u64,
    /// The generation that has begun.
    pub generation: u32,
    /// The thread.
    pub thread: ThreadId,
    /// Requests of older generations up to this one ran; later ones never will.
    pub last_sequence: u64,
    /// The thread's clock when they had run.
    pub ts: u64,
}

impl Resumed {
    /// Read an encoded answer.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let session = reader.u64()?;
        let generation = reader.u32()?;
        let thread = reader.u16()?;
        if reader.u16()? != 0 {
            return Err(Malformed);
        }
        Ok(Self {
            session,
            generation,
            thread,
            last_sequence: reader.u64()?,
            ts: reader.u64()?,
        })
    }

    /// The encoding.
    pub fn encode(&self) -> [u8; RESUMED_BYTES] {
        let mut out = [0; RESUMED_BYTES];
        out[..8].copy_from_slice(&self.session.to_le_bytes());
        out[8..12].copy_from_slice(&self.generation.to_le_bytes());
        out[12..14].copy_from_slice(&self.thread.to_le_bytes());
        out[16..24].copy_from_slice(&self.last_sequence.to_le_bytes());
        out[24..].copy_from_slice(&self.ts.to_le_bytes());
        out
    }
}
