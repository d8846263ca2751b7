//! The control connection: starts an incarnation, and runs it until the connection ends.
//!
//! One thread owns all state of the incarnation and handles one event after the other: messages of the host, and reports of the verifier
//! threads. When the incarnation ends it waits until every thread that belonged to it has gone, so that incarnations never overlap.

use std::io;
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use zetakv_verifier::ReplayedSessions;
use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::standard_crypto::Sum;
use zetakv_verifier::thread::Snapshot;
use zetakv_verifier::violation::ViolationCode;

use crate::epochs::Fault;
use crate::error::Error;
use crate::handshake::Refusal;
use crate::incarnation::{Incarnation, Reply, Start, refused};
use crate::log::log;
use crate::monitor::Monitor;
use crate::register::TrustedRegister;
use crate::sealed::NotStarted;
use crate::stream::Stream;
use crate::wire::{CONTROL_BYTES_MAX, LOG_BYTES_MAX, kind, read_cut_message, read_message, write_message};

/// Events that may wait for the control thread; whoever has more waits.
const EVENTS_MAX: usize = 256;

/// What the control thread reacts to.
pub enum Event {
    /// A message of the host: type and body.
    Message(u8, Vec<u8>),
    /// The host sent what is no message.
    BadMessage,
    /// The control connection has ended.
    ControlEnded,
    /// A verifier thread has handed an epoch over.
    HandedOver(Box<Snapshot<Sum>>),
    /// A verifier thread has ended its replay: what it replayed.
    Replayed(ThreadId, ReplayedSessions),
    /// The log connection of this thread has ended.
    LogEnded(ThreadId),
    /// The monitor has failed.
    Failed,
}

/// Serve a control connection, with the register that nobody else uses meanwhile.
pub fn serve(monitor: &Monitor, register: &mut dyn TrustedRegister, stream: &mut Stream) -> Result<(), Error> {
    let mut body = Vec::new();
    let message = match read_message(stream, &mut body, LOG_BYTES_MAX) {
        Ok(None) => return Ok(()),
        Ok(Some(message)) => Some(message),
        Err(Error::MessageLength { .. }) => None,
        Err(error) => return Err(error),
    };
    if let Some(failure) = monitor.failure() {
        return refuse(stream, failure.violation.code as u16, &failure.text());
    }
    let Some(start) = Start::decode(&body).filter(|_| message == Some(kind::START)) else {
        let text = "expected start, with a power of two of at most 64 threads, at most 16777216 slots, and known flags";
        return refuse(stream, ViolationCode::BadHostMessage as u16, text);
    };

    let (sender, events) = sync_channel(EVENTS_MAX);
    let (incarnation, started) = match Incarnation::start(monitor, register, &start, &sender) {
        Ok(incarnation) => incarnation,
        Err(NotStarted::Refused(code, text)) => {
            log(format_args!("not started: {}: {text}", code.name()));
            return refuse(stream, code as u16, &text);
        }
        Err(NotStarted::Error(error)) => return Err(error),
    };
    drop(body);
    let over = incarnation.over.clone();
    let result = read_events(stream, sender)
        .and_then(|()| send(stream, Some(started)))
        .and_then(|()| run(incarnation, monitor, stream, &events));
    monitor.seats.close(&over);
    let _ = stream.shutdown(Shutdown::Both); // fails only if it has ended already
    // every thread of the incarnation holds a sender
    while events.recv().is_ok() {}
    result
}

/// Tell a host that its connection is of no use, and why.
pub fn refuse(stream: &mut Stream, code: u16, text: &str) -> Result<(), Error> {
    write_message(stream, kind::NOT_STARTED, &[&code.to_le_bytes(), text.as_bytes()])
}

/// Let a thread turn the host's messages into events.
fn read_events(stream: &Stream, sender: SyncSender<Event>) -> Result<(), Error> {
    let mut stream = stream.try_clone()?;
    let read = move || {
        loop {
            let mut body = Vec::new();
            let event = match read_cut_message(&mut stream, &mut body, CONTROL_BYTES_MAX) {
                Ok(Some(message)) => Event::Message(message, body),
                Ok(None) => break,
                Err(Error::MessageLength { .. }) => Event::BadMessage,
                Err(error) => {
                    log(format_args!("control: {error}"));
                    break;
                }
            };
            let readable = !matches!(event, Event::BadMessage);
            if sender.send(event).is_err() {
                return;
            }
            if !readable {
                let _ = io::copy(&mut stream, &mut io::sink()); // nothing that follows can be understood
                break;
            }
        }
        let _ = sender.send(Event::ControlEnded); // refused only when the incarnation is over
    };
    thread::Builder::new().name("control-reader".to_owned()).spawn(read)?;
    Ok(())
}

fn send(stream: &mut Stream, reply: Option<Reply>) -> Result<(), Error> {
    match reply {
        Some((message, body)) => write_message(stream, message, &[&body]),
        None => Ok(()),
    }
}

/// Handle events until the control connection ends, or a verifier thread loses its log; then the incarnation is over.
fn run(
    mut incarnation: Incarnation<'_>,
    monitor: &Monitor,
    stream: &mut Stream,
    events: &Receiver<Event>,
) -> Result<(), Error> {
    let mut failure_told = false;
    while let Ok(event) = events.recv() {
        let failed = monitor.failure().is_some();
        let outcome = match event {
            Event::ControlEnded => return Ok(()),
            Event::Message(message, body) if failed => Ok(answer_failed(message, &body)),
            Event::Message(message, body) => incarnation.answer(message, &body),
            Event::HandedOver(snapshot) if !failed => incarnation.handed_over(*snapshot),
            Event::Replayed(thread, replayed) if !failed => incarnation.replayed(thread, replayed).map(|()| None),
            Event::LogEnded(thread) if !failed => {
                log(format_args!(
                    "the log connection of thread {thread} has ended: the incarnation is over"
                ));
                return Ok(());
            }
            Event::BadMessage => Err(incarnation.bad_host_message()),
            Event::HandedOver(_) | Event::Replayed(..) | Event::LogEnded(_) | Event::Failed => Ok(None),
        };
        let reply = match outcome {
            Ok(reply) => reply,
            Err(Fault::Error(error)) => return Err(error),
            Err(Fault::Violation(violation)) => {
                monitor.fail(violation, &incarnation.run);
                None
            }
        };
        if let Some(failure) = monitor.failure()
            && !failure_told
        {
            write_message(stream, kind::FAILED, &[&failure.signed])?;
            failure_told = true;
            if !failed {
                continue; // what was prepared when the monitor was not known to have failed does not leave
            }
        }
        send(stream, reply)?;
    }
    Ok(())
}

/// A monitor that has failed still says so to whoever comes.
fn answer_failed(message: u8, body: &[u8]) -> Option<Reply> {
    let token = body.first_chunk().filter(|_| message == kind::HELLO)?;
    Some(refused(token, Refusal::MonitorFailed))
}
