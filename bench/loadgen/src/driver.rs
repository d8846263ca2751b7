//! One thread of the generator: its connections, driven by epoll until the run is over and all is answered and certified.

use std::net::TcpStream;
use std::time::Instant;

use rustix::event::{Timespec, epoll};

use crate::failure::Failure;
use crate::line::Line;
use crate::measurement::Measurement;
use crate::pace::Pace;
use crate::target::{Connection, Nanos};
use crate::workload::Source;

/// Events of one turn.
const EVENTS_MAX: usize = 256;
/// Looks at the clock at the least, so that nothing is waited for in vain for long.
const TURN_MAX: Nanos = 100_000_000;

/// When a run begins and ends, in nanoseconds since its start.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The start.
    pub start: Instant,
    /// Measured from here ...
    pub from: Nanos,
    /// ... to here; nothing becomes due after it.
    pub to: Nanos,
    /// How long the server may answer nothing while something is waited for, and how long the last certificate may take.
    pub silence_max: Nanos,
}

/// One thread.
pub struct Driver<C> {
    lines: Vec<Line<C>>,
    epoll: rustix::fd::OwnedFd,
    source: Source,
    pace: Pace,
    times: Times,
    measurement: Measurement,
    /// The connection whose turn it is in an open loop.
    turn: usize,
}

impl<C: Connection> Driver<C> {
    /// Of these connections, whose sockets have nothing unread.
    pub fn new(connections: Vec<(TcpStream, C)>, source: Source, pace: Pace, times: Times) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(of_epoll)?;
        let mut lines = Vec::new();
        for (index, (stream, connection)) in connections.into_iter().enumerate() {
            stream
                .set_nonblocking(true)
                .map_err(|error| Failure::Io("socket", error))?;
            epoll::add(
                &epoll,
                &stream,
                epoll::EventData::new_u64(index as u64),
                epoll::EventFlags::IN,
            )
            .map_err(of_epoll)?;
            lines.push(Line::new(stream, connection));
        }
        Ok(Self {
            lines,
            epoll,
            source,
            pace,
            times,
            measurement: Measurement::new(times.from, times.to),
            turn: 0,
        })
    }

    /// Run to the end.
    pub fn run(mut self) -> Result<Measurement, Failure> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut ready: Vec<usize> = (0..self.lines.len()).collect();
        loop {
            self.measurement.now = self.times.start.elapsed().as_nanos() as Nanos;
            self.fill(&mut ready);
            for index in ready.drain(..) {
                self.flush(index)?;
            }
            if self.is_done() {
                return Ok(self.measurement);
            }
            self.check_silence()?;

            events.clear();
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(of_epoll(error)),
            }
            self.measurement.now = self.times.start.elapsed().as_nanos() as Nanos;
            for event in &events {
                let index = event.data.u64() as usize;
                let flags = event.flags;
                if flags.intersects(!epoll::EventFlags::OUT) {
                    self.lines[index].read(&mut self.measurement)?;
                }
                ready.push(index);
            }
        }
    }

    /// Make the frames that are due. Adds the connections that have something to send.
    fn fill(&mut self, ready: &mut Vec<usize>) {
        let (now, in_flight_max) = (self.measurement.now, self.pace.in_flight_max());
        if self.pace.next_due().is_none() {
            if now < self.times.to {
                for &index in ready.iter() {
                    self.lines[index].fill(&mut self.source, now, in_flight_max);
                }
            }
            return;
        }
        while let Some(due) = self.pace.next_due().filter(|due| *due <= now && *due < self.times.to) {
            let Some(index) = self.next_free(in_flight_max) else {
                return;
            };
            self.lines[index].send(&mut self.source, due);
            self.measurement.sent(due);
            self.pace.advance(&mut self.source);
            if ready.last() != Some(&index) {
                ready.push(index);
            }
        }
    }

    /// The next connection that may send, all in turn.
    fn next_free(&mut self, in_flight_max: usize) -> Option<usize> {
        for _ in 0..self.lines.len() {
            self.turn = (self.turn + 1) % self.lines.len();
            if self.lines[self.turn].connection.in_flight() < in_flight_max {
                return Some(self.turn);
            }
        }
        None
    }

    fn flush(&mut self, index: usize) -> Result<(), Failure> {
        let line = &mut self.lines[index];
        if line.flush()? {
            let waits_to_write = if line.wants_to_write() {
                epoll::EventFlags::IN | epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &line.stream, data, waits_to_write).map_err(of_epoll)?;
        }
        Ok(())
    }

    /// Whether nothing becomes due any more, and all that was sent is answered and certified.
    fn is_done(&self) -> bool {
        let over = match self.pace.next_due() {
            None => self.measurement.now >= self.times.to || self.lines.iter().all(Line::is_exhausted),
            Some(due) => due >= self.times.to,
        };
        let settled = |line: &Line<C>| line.connection.in_flight() == 0 && line.connection.uncertified().is_none();
        over && self.lines.iter().all(settled)
    }

    fn check_silence(&self) -> Result<(), Failure> {
        if self.measurement.now - self.measurement.last_answer < self.times.silence_max {
            return Ok(());
        }
        let unanswered: usize = self.lines.iter().map(|line| line.connection.in_flight()).sum();
        if unanswered > 0 {
            return Err(Failure::TimedOut(format!("{unanswered} requests are not answered")));
        }
        match self.lines.iter().filter_map(|line| line.connection.uncertified()).min() {
            Some(epoch) => Err(Failure::TimedOut(format!("no certificate of epoch {epoch} came"))),
            None => Ok(()),
        }
    }

    fn timeout(&self) -> Timespec {
        let free = |line: &Line<C>| line.connection.in_flight() < self.pace.in_flight_max();
        let due = self
            .pace
            .next_due()
            .filter(|due| *due < self.times.to && self.lines.iter().any(free));
        let next = self.measurement.now + TURN_MAX;
        let nanos = due
            .map_or(next, |due| due.min(next))
            .saturating_sub(self.measurement.now);
        Timespec {
            tv_sec: (nanos / 1_000_000_000) as i64,
            tv_nsec: (nanos % 1_000_000_000) as i64,
        }
    }
}

fn of_epoll(error: rustix::io::Errno) -> Failure {
    Failure::Io("epoll", error.into())
}
