//! A connection with its socket and buffers.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::failure::Failure;
use crate::measurement::Measurement;
use crate::target::{Connection, Nanos};
use crate::workload::Source;

/// Of the input buffer at first; it grows with the frames.
const INPUT_BYTES: usize = 256 << 10;

/// A connection with its socket, which does not block.
pub struct Line<C> {
    /// The socket.
    pub stream: TcpStream,
    /// Its protocol.
    pub connection: C,
    output: Vec<u8>,
    written: usize,
    wants_to_write: bool,
    input: Vec<u8>,
    filled: usize,
    exhausted: bool,
}

impl<C: Connection> Line<C> {
    /// Nothing is sent or read yet.
    pub fn new(stream: TcpStream, connection: C) -> Self {
        Self {
            stream,
            connection,
            output: Vec::new(),
            written: 0,
            wants_to_write: false,
            input: vec![0; INPUT_BYTES],
            filled: 0,
            exhausted: false,
        }
    }

    /// Whether the socket has not taken all.
    pub const fn wants_to_write(&self) -> bool {
        self.wants_to_write
    }

    /// Make a frame; returns its number of operations.
    pub fn send(&mut self, source: &mut Source, due: Nanos) -> u32 {
        self.connection.send(source, due, &mut self.output)
    }

    /// Make frames, due now, until so many are in flight or there are no more operations.
    pub fn fill(&mut self, source: &mut Source, now: Nanos, in_flight_max: usize) {
        while !self.exhausted && self.connection.in_flight() < in_flight_max {
            self.exhausted = self.send(source, now) == 0;
        }
    }

    /// Whether the source had no more operations for this connection.
    pub const fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// Write what the socket takes. Returns whether [`Self::wants_to_write`] has changed.
    pub fn flush(&mut self) -> Result<bool, Failure> {
        let mut blocked = false;
        while self.written < self.output.len() && !blocked {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Io("the server ended the connection", error)),
            }
        }
        if !blocked {
            self.output.clear();
            self.written = 0;
        }
        Ok(std::mem::replace(&mut self.wants_to_write, blocked) != blocked)
    }

    /// Read what has come, once, and check it.
    pub fn read(&mut self, measurement: &mut Measurement) -> Result<(), Failure> {
        if self.filled == self.input.len() {
            self.input.resize(2 * self.filled, 0);
        }
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err(Failure::Refused("the server closed the connection".into())),
            Ok(count) => self.filled += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return Err(Failure::Io("the server ended the connection", error)),
        }
        let input = &self.input[..self.filled];
        let done = self.connection.receive(input, &mut self.output, measurement)?;
        self.input.copy_within(done..self.filled, 0);
        self.filled -= done;
        Ok(())
    }
}
