//! The way to a TPM: a character device, or a TCP connection that carries plain TPM commands, as `swtpm` offers.
//!
//! Nothing here is trusted: commands and responses that matter are authenticated by [`Session`](crate::wire::Session).

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use zetakv_monitor::error as monitor;

use crate::error::Error;

/// Where a TPM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TpmAddress {
    /// A device: `/dev/tpmrm0`.
    Device(PathBuf),
    /// Host and port.
    Tcp(String),
}

/// Carries one command after the other.
pub trait Transport {
    /// Send a command, and return its response: header and body.
    fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, Error>;
}

/// Bytes of a response at the most: TPMs have buffers of 4 KiB.
const RESPONSE_BYTES_MAX: usize = 4096;
/// Bytes of the header of a response: tag, size, code.
pub const HEADER_BYTES: usize = 10;
/// How long a command may take. Those used here take less than a second on slow hardware.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

impl TpmAddress {
    /// Connect. One connection is used for one operation of the register, so that others can use the TPM, too.
    pub fn connect(&self) -> Result<Box<dyn Transport>, Error> {
        match self {
            Self::Device(path) => {
                let device = File::options().read(true).write(true).open(path);
                Ok(Box::new(device.map_err(monitor::Error::file("open the TPM", path))?))
            }
            Self::Tcp(address) => {
                let connected = TcpStream::connect(address.as_str()).and_then(|stream| {
                    stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
                    stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
                    stream.set_nodelay(true)?;
                    Ok(stream)
                });
                Ok(Box::new(connected.map_err(monitor::Error::file(
                    "connect to the TPM",
                    address.as_ref(),
                ))?))
            }
        }
    }
}

impl<S: Read + Write> Transport for S {
    fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        exchange(self, command).map_err(Error::Connection)
    }
}

fn exchange(stream: &mut (impl Read + Write), command: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(command)?; // in one piece, as a device wants it
    let mut response = vec![0; RESPONSE_BYTES_MAX]; // a device gives a response in one piece, to who has room for it
    let mut length = 0;
    let mut expected = HEADER_BYTES;
    while length < expected {
        match stream.read(&mut response[length..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length >= HEADER_BYTES {
            let size = [response[2], response[3], response[4], response[5]];
            expected = u32::from_be_bytes(size) as usize;
            if !(HEADER_BYTES..=RESPONSE_BYTES_MAX).contains(&expected) {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
    if length > expected {
        return Err(io::ErrorKind::InvalidData.into());
    }
    response.truncate(length);
    Ok(response)
}
