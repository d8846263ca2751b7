//! What the driver needs of a protocol: connections that make frames, and check answers. Bytes in, bytes out.

use std::net::TcpStream;

use crate::failure::Failure;
use crate::measurement::Measurement;
use crate::workload::Source;

/// Nanoseconds since the start of the run.
pub type Nanos = u64;

/// A kind of server, and what all connections to it share.
pub trait Target {
    /// Its connections.
    type Connection: Connection + Send;

    /// Connect, and do all that comes before the first operation.
    fn open(&mut self) -> Result<(TcpStream, Self::Connection), Failure>;

    /// What the server says of itself.
    fn server(&self) -> ServerFacts;
}

/// One connection's protocol.
pub trait Connection {
    /// Append a frame with the next operations, due at this moment. Returns how many; 0 at the end of the source.
    fn send(&mut self, source: &mut Source, due: Nanos, out: &mut Vec<u8>) -> u32;

    /// Check all whole answers in `input`, and record them. What must be said in turn goes to `out`. Returns the bytes done with.
    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>, measurement: &mut Measurement) -> Result<usize, Failure>;

    /// Frames that are not answered yet.
    fn in_flight(&self) -> usize;

    /// The first epoch whose certificate is waited for.
    fn uncertified(&self) -> Option<u32>;
}

/// What a server says of itself, for the report.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    /// Workers of a ZetaKV server: as many verifier threads.
    pub workers: Option<u16>,
    /// Whether it keeps a write-ahead log.
    pub write_ahead_log: Option<bool>,
}
