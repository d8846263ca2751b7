//! Frames between client and server (section 6 of docs/protocol.md).

use std::io::Read;

use zetakv_verifier::codec::Reader;

use crate::failure::Failure;

/// Bytes of a frame at the most, as the protocol allows.
const FRAME_BYTES_MAX: usize = (16 << 20) + (64 << 10);
const VERSION: u16 = 1;

/// Client to server: a hello.
pub const HELLO: u8 = 0x01;
/// A request.
pub const REQUEST: u8 = 0x02;
/// Ask for certificates.
pub const CERTIFICATES: u8 = 0x04;
/// Server to client: the greeting.
pub const GREETING: u8 = 0x80;
/// The answer to a hello.
pub const HELLO_OK: u8 = 0x81;
/// A receipt.
pub const RECEIPT: u8 = 0x82;
/// A request that was not taken.
pub const REJECTED: u8 = 0x83;
/// A certificate.
pub const CERTIFICATE: u8 = 0x85;
/// The monitor has failed.
pub const VIOLATION: u8 = 0x86;
/// An unverified server's checkpoint.
pub const CHECKPOINT: u8 = 0x8a;
/// The server does not do what was asked.
pub const ERROR: u8 = 0x8f;

/// Begin a frame; its length is filled in by [`end_frame`], which takes what this returns.
pub fn begin_frame(kind: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    start
}

/// End the frame that began there.
pub fn end_frame(start: usize, out: &mut [u8]) {
    let length = (out.len() - start - 4) as u32; // far below FRAME_BYTES_MAX
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// A frame that has come.
pub struct Frame<'a> {
    /// Its type.
    pub kind: u8,
    /// Its body.
    pub body: &'a [u8],
    /// Bytes of all of it.
    pub length: usize,
}

/// The first frame of the input; `None` if it has not come whole.
pub fn split_frame(input: &[u8]) -> Result<Option<Frame<'_>>, Failure> {
    let Some(length) = input.first_chunk() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if !(1..=FRAME_BYTES_MAX).contains(&length) {
        return Err(Failure::check(format!("the server sent a frame of {length} bytes")));
    }
    Ok(input.get(4..4 + length).map(|frame| Frame {
        kind: frame[0],
        body: &frame[1..],
        length: 4 + length,
    }))
}

/// Wait for a frame, on a socket that blocks.
pub fn read_frame(stream: &mut impl Read) -> Result<(u8, Vec<u8>), Failure> {
    let gone = |error| Failure::Io("no answer of the server", error);
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(gone)?;
    let length = u32::from_le_bytes(length) as usize;
    if !(1..=FRAME_BYTES_MAX).contains(&length) {
        return Err(Failure::check(format!("the server sent a frame of {length} bytes")));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).map_err(gone)?;
    Ok((frame[0], frame.split_off(1)))
}

/// How a server introduces itself.
#[derive(Clone, Copy, Debug)]
pub struct Greeting {
    /// Without a monitor.
    pub unverified: bool,
    /// With a write-ahead log.
    pub write_ahead_log: bool,
    /// Number of workers.
    pub workers: u16,
}

impl Greeting {
    /// Read a greeting.
    pub fn decode(body: &[u8]) -> Result<Self, Failure> {
        let mut reader = Reader::new(body);
        let (version, flags, _worker, workers) = (reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?);
        reader.take(12)?; // its limits are larger than what a benchmark sends
        reader.end()?;
        if version != VERSION || !workers.is_power_of_two() || workers > 64 {
            return Err(Failure::check("the server greets in another protocol"));
        }
        Ok(Self {
            unverified: flags & 1 != 0,
            write_ahead_log: flags & 4 != 0,
            workers,
        })
    }
}

/// What frames that end a run say.
pub fn failure_of(kind: u8, body: &[u8]) -> Failure {
    match kind {
        ERROR if body.len() >= 2 => {
            let code = u16::from_le_bytes([body[0], body[1]]);
            Failure::Refused(format!("error {code}: {}", String::from_utf8_lossy(&body[2..])))
        }
        REJECTED => Failure::check(format!("the monitor rejected a request: reason {:?}", body.last())),
        VIOLATION => Failure::check("the monitor reports a violation, and has stopped"),
        _ => Failure::check(format!(
            "the server sent a frame of type {kind:#x}, which nobody asked for"
        )),
    }
}
