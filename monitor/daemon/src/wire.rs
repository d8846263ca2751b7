//! Messages between host and monitor: `length: u32` of what follows, `type: u8`, body.
//!
//! Every message is copied once into private memory, and only the copy is looked at. Lengths are bounded before anything is allocated.

use std::io::{self, Read, Write};

use crate::error::Error;

/// Version of the protocol.
pub const VERSION: u16 = 2;
/// Bytes of a verifier log, and of the sealed state in `start`, at the most.
pub const LOG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of any other message's body that are looked at: an admin request or a hello with room to spare.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// Code of `not started` for a second host: no violation, and no reason not to try again.
pub const OCCUPIED: u16 = 0;

/// Types of messages.
#[allow(missing_docs)] // the names are those of the protocol's table
pub mod kind {
    pub const CONTROL: u8 = 0x01;
    pub const LOG_CONNECTION: u8 = 0x02;
    pub const START: u8 = 0x10;
    pub const HELLO: u8 = 0x11;
    pub const ADMIN: u8 = 0x12;
    pub const DURABLE: u8 = 0x13;
    pub const CLOSE_SESSION: u8 = 0x14;
    pub const TICKET: u8 = 0x15;
    pub const LIVE: u8 = 0x16;
    pub const LOG: u8 = 0x20;
    pub const STARTED: u8 = 0x90;
    pub const NOT_STARTED: u8 = 0x91;
    pub const HELLO_OK: u8 = 0x92;
    pub const HELLO_REFUSED: u8 = 0x93;
    pub const ADMIN_ANSWER: u8 = 0x94;
    pub const ADMIN_REJECTED: u8 = 0x95;
    pub const SEALED: u8 = 0x96;
    pub const CERTIFICATE: u8 = 0x97;
    pub const FAILED: u8 = 0x98;
    pub const HELLO_OK_WITH_TICKET: u8 = 0x99;
    pub const IS_LIVE: u8 = 0x9a;
    pub const NOT_COMMITTED: u8 = 0x9b;
    pub const OUTPUTS: u8 = 0xa0;
}

/// Read a message: its type, and its body into `body`, whose memory is used again. `None`: the connection ended between messages.
pub fn read_message(stream: &mut impl Read, body: &mut Vec<u8>, body_bytes_max: usize) -> Result<Option<u8>, Error> {
    body.clear();
    let Some(length) = read_length(stream)? else {
        return Ok(None);
    };
    if length == 0 || length > body_bytes_max + 1 {
        return Err(Error::MessageLength {
            bytes: length,
            bytes_max: body_bytes_max + 1,
        });
    }
    read_rest(stream, body, length - 1).map(Some)
}

/// The same, but a longer body is no error: what is beyond the limit is thrown away.
///
/// For messages that hold what a client made, which must not be able to end anything but its own request. Nothing that is valid is so long.
pub fn read_cut_message(
    stream: &mut impl Read,
    body: &mut Vec<u8>,
    body_bytes_max: usize,
) -> Result<Option<u8>, Error> {
    body.clear();
    let Some(length) = read_length(stream)? else {
        return Ok(None);
    };
    let body_bytes = length.checked_sub(1).ok_or(Error::MessageLength {
        bytes: length,
        bytes_max: body_bytes_max + 1,
    })?;
    let kept = body_bytes.min(body_bytes_max);
    let kind = read_rest(stream, body, kept)?;
    let beyond = (body_bytes - kept) as u64;
    if io::copy(&mut stream.take(beyond), &mut io::sink())? < beyond {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(kind))
}

/// The length of the next message; `None`: the connection ended before it.
fn read_length(stream: &mut impl Read) -> Result<Option<usize>, Error> {
    let mut length = [0; 4];
    loop {
        match stream.read(&mut length[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    stream.read_exact(&mut length[1..])?;
    Ok(Some(u32::from_le_bytes(length) as usize))
}

/// Read the type, and so many bytes of the body.
fn read_rest(stream: &mut impl Read, body: &mut Vec<u8>, body_bytes: usize) -> Result<u8, Error> {
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    // grows with what arrives, so a length alone costs no memory
    if stream.take(body_bytes as u64).read_to_end(body)? < body_bytes {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(kind[0])
}

/// A message that is put together in place, so that it is written by one call.
#[derive(Debug, Default)]
pub struct MessageBuffer {
    bytes: Vec<u8>,
}

impl MessageBuffer {
    const HEADER_BYTES: usize = 5;

    /// Start a message of this type, and return the buffer to append its body to; nothing before it may be changed.
    pub fn start(&mut self, kind: u8) -> &mut Vec<u8> {
        self.bytes.clear();
        self.bytes.extend_from_slice(&[0, 0, 0, 0, kind]);
        &mut self.bytes
    }

    /// Write the message.
    pub fn write_to(&mut self, stream: &mut impl Write) -> Result<(), Error> {
        let length = self.bytes.len() - (Self::HEADER_BYTES - 1);
        let length = u32::try_from(length).map_err(|_| Error::MessageLength {
            bytes: length,
            bytes_max: u32::MAX as usize,
        })?;
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        stream.write_all(&self.bytes)?;
        Ok(())
    }
}

/// Write a message whose body has these parts.
pub fn write_message(stream: &mut impl Write, kind: u8, parts: &[&[u8]]) -> Result<(), Error> {
    let mut message = MessageBuffer::default();
    let body = message.start(kind);
    for part in parts {
        body.extend_from_slice(part);
    }
    message.write_to(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roundtrip_and_end() -> Result<(), Error> {
        let mut bytes = Vec::new();
        write_message(&mut bytes, 7, &[b"ab", b"c"])?;
        write_message(&mut bytes, 8, &[])?;
        assert_eq!(bytes, b"\x04\0\0\0\x07abc\x01\0\0\0\x08");
        let mut stream = bytes.as_slice();
        let mut body = vec![1, 2];
        assert_eq!(read_message(&mut stream, &mut body, 3)?, Some(7));
        assert_eq!(body, b"abc");
        assert_eq!(read_message(&mut stream, &mut body, 3)?, Some(8));
        assert!(body.is_empty());
        assert_eq!(read_message(&mut stream, &mut body, 3)?, None);
        Ok(())
    }

    #[test]
    fn what_is_beyond_the_limit_is_thrown_away() -> Result<(), Error> {
        let mut bytes = Vec::new();
        write_message(&mut bytes, 7, &[b"abcdef"])?;
        write_message(&mut bytes, 8, &[b"gh"])?;
        let (mut stream, mut body) = (bytes.as_slice(), Vec::new());
        assert_eq!(read_cut_message(&mut stream, &mut body, 3)?, Some(7));
        assert_eq!(body, b"abc");
        assert_eq!(read_cut_message(&mut stream, &mut body, 3)?, Some(8));
        assert_eq!(body, b"gh");
        assert_eq!(read_cut_message(&mut stream, &mut body, 3)?, None);
        assert!(read_cut_message(&mut &bytes[..9], &mut body, 3).is_err(), "incomplete");
        assert!(read_cut_message(&mut &[0; 5][..], &mut body, 3).is_err(), "empty");
        Ok(())
    }

    #[test]
    fn lengths_are_bounded_and_cut_messages_are_errors() {
        let mut body = Vec::new();
        let mut read = |bytes: &[u8]| read_message(&mut &*bytes, &mut body, 3);
        assert!(matches!(
            read(b"\0\0\0\0\x07"),
            Err(Error::MessageLength { bytes: 0, .. })
        ));
        assert!(matches!(
            read(b"\x05\0\0\0\x07abcd"),
            Err(Error::MessageLength { bytes: 5, .. })
        ));
        assert!(matches!(
            read(b"\xff\xff\xff\xff\x07"),
            Err(Error::MessageLength { .. })
        ));
        for cut in 1..8 {
            assert!(read(&b"\x04\0\0\0\x07abc"[..cut]).is_err(), "{cut} bytes");
        }
    }
}
