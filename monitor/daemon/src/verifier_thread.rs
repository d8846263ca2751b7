//! One verifier thread at work: takes pieces of its log from a connection, and returns the state machine's answers.
//!
//! Invariants: a piece is complete in private memory before any of it is looked at. The session changes that were made before the piece
//! arrived are taken over before it is processed. No answer leaves when the monitor has failed, except that it has.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use zetakv_verifier::thread::Progress;
use zetakv_verifier::violation::{Violation, ViolationCode};

use crate::control::Event;
use crate::error::Error;
use crate::failpoints::failpoint;
use crate::failure::violation;
use crate::log::log;
use crate::monitor::Monitor;
use crate::seats::{Seat, SessionChange};
use crate::stream::Stream;
use crate::wire::{LOG_BYTES_MAX, MessageBuffer, kind, read_message};

/// How long a record may stay on its way from another thread. An honest host sends the eviction before, or at once; this leaves time for
/// a machine that is overloaded, and still ends a wait for an eviction that never comes.
const CLOCK_WAIT_MAX: Duration = Duration::from_secs(10);
/// Rounds of waiting in which the processor is kept: handovers between running threads take less than a microsecond.
const SPIN_ROUNDS: u32 = 200;
/// Rounds after those in which the processor is offered to other threads.
const YIELD_ROUNDS: u32 = 200;
/// Pause between later rounds.
const WAIT_PAUSE: Duration = Duration::from_micros(50);

/// What came of a piece of the log.
enum Outcome {
    Answered,
    Violated(Violation),
    IncarnationOver,
}

impl Seat {
    /// Serve a log connection until it or the incarnation ends, or the monitor has failed.
    pub fn serve(mut self, stream: &mut Stream, monitor: &Monitor) {
        if let Err(error) = self.answer_all(stream, monitor)
            && !self.over.load(Ordering::Acquire)
        {
            log(format_args!("log of thread {}: {error}", self.thread));
        }
        // refused only when the incarnation is over
        let _ = self.events.send(Event::LogEnded(self.thread));
    }

    fn answer_all(&mut self, stream: &mut Stream, monitor: &Monitor) -> Result<(), Error> {
        let mut log = Vec::new();
        let mut message = MessageBuffer::default();
        let mut replay_told = false;
        loop {
            let received = read_message(stream, &mut log, LOG_BYTES_MAX);
            self.take_over_session_changes();
            let answers = message.start(kind::OUTPUTS);
            let outcome = match received {
                Ok(None) => return Ok(()),
                Ok(Some(kind::LOG)) => self.process(&log, answers, monitor),
                Ok(Some(_)) | Err(Error::MessageLength { .. }) => Outcome::Violated(violation(
                    ViolationCode::BadHostMessage,
                    self.thread,
                    self.verifier.clock().epoch,
                )),
                Err(error) => return Err(error),
            };
            match outcome {
                Outcome::Answered => {
                    if let Some(snapshot) = self.verifier.take_snapshot() {
                        let _ = failpoint!("monitor.before_hand_over");
                        if self.events.send(Event::HandedOver(Box::new(snapshot))).is_err() {
                            return Ok(());
                        }
                    }
                    if !replay_told && let Some(replayed) = self.verifier.replayed_sessions() {
                        let event = Event::Replayed(self.thread, replayed.clone());
                        replay_told = true;
                        if self.events.send(event).is_err() {
                            return Ok(());
                        }
                    }
                }
                Outcome::IncarnationOver => return Ok(()),
                Outcome::Violated(violation) => {
                    monitor.fail(violation, &self.run);
                    let _ = self.events.send(Event::Failed); // refused only when the incarnation is over
                }
            }
            // the last look, because a report above may have had to wait
            if let Some(failure) = monitor.failure() {
                failure.output(message.start(kind::OUTPUTS));
                return message.write_to(stream);
            }
            message.write_to(stream)?;
        }
    }

    fn take_over_session_changes(&mut self) {
        for change in self.changes.take() {
            match change {
                SessionChange::Open(keys) => self.verifier.open_session(keys),
                SessionChange::Close(session) => self.verifier.close_session(session),
                SessionChange::SetRole(session, role) => self.verifier.set_role(session, role),
            }
        }
    }

    /// Process a piece of the log, and wait for other threads' clocks where it must.
    fn process(&mut self, mut log: &[u8], answers: &mut Vec<u8>, monitor: &Monitor) -> Outcome {
        let mut wait = Wait::default();
        loop {
            match self.verifier.process(log, answers) {
                Progress::Done => return Outcome::Answered,
                Progress::Failed(violation) => return Outcome::Violated(violation),
                Progress::Waiting { consumed } => {
                    if consumed > 0 {
                        log = &log[consumed..];
                        wait = Wait::default();
                    }
                    if self.over.load(Ordering::Acquire) {
                        return Outcome::IncarnationOver;
                    }
                    if monitor.failure().is_some() {
                        return Outcome::Answered; // by what the caller finds in the latch
                    }
                    if !wait.goes_on() {
                        return Outcome::Violated(self.verifier.time_out());
                    }
                }
            }
        }
    }
}

/// A wait that starts busy, gets lazy, and ends.
#[derive(Default)]
struct Wait {
    rounds: u32,
    since: Option<Instant>,
}

impl Wait {
    /// Wait for one round. False when it has lasted [`CLOCK_WAIT_MAX`].
    fn goes_on(&mut self) -> bool {
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds <= SPIN_ROUNDS {
            std::hint::spin_loop();
        } else if self.rounds <= SPIN_ROUNDS + YIELD_ROUNDS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(WAIT_PAUSE);
        }
        self.since.get_or_insert_with(Instant::now).elapsed() < CLOCK_WAIT_MAX
    }
}
