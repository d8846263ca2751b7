//! Headers of requests, receipts and resumes. What has been parsed here is not yet authentic: the MAC is checked by the session.

use alloc::vec::Vec;

use crate::codec::{Malformed, Reader};
use crate::entry::ThreadId;

/// Bytes of a MAC.
pub const MAC_BYTES: usize = 16;
/// Bytes of a request before its operations.
pub const REQUEST_HEADER_BYTES: usize = 32;
/// Bytes of a request at the most: 512 operations of the largest kind fit.
pub const REQUEST_BYTES_MAX: usize = 65_536;
/// Operations of a request at the most: bounds the work between two looks at the socket.
pub const OPERATIONS_PER_REQUEST_MAX: u16 = 512;
/// Bytes of a resume.
pub const RESUME_BYTES: usize = 48;

/// Last byte of what a MAC is computed over: says what is authenticated. Not the first: what is long then begins where BLAKE3's chunks do,
/// of which it hashes several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacDomain {
    /// A request.
    Request = b'Q' as isize,
    /// A resume.
    Resume = b'S' as isize,
    /// A receipt.
    Receipt = b'R' as isize,
    /// The answer to a resume.
    Resumed = b'T' as isize,
    /// An admin request.
    Admin = b'A' as isize,
    /// The answer to an admin request.
    AdminAnswer = b'B' as isize,
    /// Proof of knowing a former session.
    Former = b'F' as isize,
    /// A step of the chain over what a thread admits.
    Log = b'L' as isize,
}

/// The header of a request, as its sender claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Session.
    pub session: u64,
    /// Generation of the session on this thread.
    pub generation: u32,
    /// Thread that it is meant for.
    pub thread: ThreadId,
    /// Number of operations.
    pub operations: u16,
    /// One more than that of the request before.
    pub sequence: u64,
    /// The clock must pass this before the first operation runs.
    pub after_ts: u64,
}

/// A request, split but not authenticated.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedRequest<'a> {
    /// The header.
    pub header: RequestHeader,
    /// All that the MAC covers.
    pub covered: &'a [u8],
    /// The operations, encoded.
    pub operations: &'a [u8],
    /// The MAC.
    pub mac: &'a [u8; MAC_BYTES],
}

impl<'a> UnverifiedRequest<'a> {
    /// Split a request into its parts; the operations are not parsed.
    pub fn split(request: &'a [u8]) -> Result<Self, Malformed> {
        if request.len() > REQUEST_BYTES_MAX {
            return Err(Malformed);
        }
        let (covered, mac) = request.split_last_chunk().ok_or(Malformed)?;
        let mut reader = Reader::new(covered);
        let header = RequestHeader {
            session: reader.u64()?,
            generation: reader.u32()?,
            thread: reader.u16()?,
            operations: reader.u16()?,
            sequence: reader.u64()?,
            after_ts: reader.u64()?,
        };
        Ok(Self {
            header,
            covered,
            operations: reader.rest(),
            mac,
        })
    }
}

impl RequestHeader {
    /// Append the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.thread.to_le_bytes());
        out.extend_from_slice(&self.operations.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.after_ts.to_le_bytes());
    }
}

/// A resume, split but not authenticated.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedResume<'a> {
    /// Session.
    pub session: u64,
    /// The new generation.
    pub generation: u32,
    /// Thread that it is meant for.
    pub thread: ThreadId,
    /// Makes the answer fresh.
    pub nonce: &'a [u8; 16],
    /// All that the MAC covers.
    pub covered: &'a [u8],
    /// The MAC.
    pub mac: &'a [u8; MAC_BYTES],
}

impl<'a> UnverifiedResume<'a> {
    /// Split a resume into its parts.
    pub fn split(resume: &'a [u8; RESUME_BYTES]) -> Result<Self, Malformed> {
        let (covered, mac) = resume.split_last_chunk().ok_or(Malformed)?;
        let mut reader = Reader::new(covered);
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
            nonce: reader.array()?,
            covered,
            mac,
        })
    }
}

/// Why a request or resume was rejected, with no change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No such session on this thread.
    UnknownSession = 1,
    /// Not made by the session's client.
    BadMac = 2,
    /// Not the next sequence.
    BadSequence = 3,
    /// Not the current generation, or no newer one.
    BadGeneration = 4,
    /// Meant for another thread.
    WrongThread = 5,
}

/// Why an authentic request could not be run at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Its operations are not what the protocol allows.
    Malformed = 1,
    /// `after_ts` is later than any clock.
    AfterTsAhead = 2,
}
