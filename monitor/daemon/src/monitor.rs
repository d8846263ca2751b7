//! The monitor: what lives as long as its process, and what each new connection is for.

use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use zetakv_verifier::clocks::THREADS_MAX;
use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::violation::{Violation, ViolationCode};

use crate::control;
use crate::error::Error;
use crate::failure::{Failure, FailureLatch};
use crate::identity::{Identity, IncarnationId, Run};
use crate::log::log;
use crate::register::TrustedRegister;
use crate::seats::Seats;
use crate::state_dir::StateDirectory;
use crate::stream::{Listener, Stream};
use crate::wire::{OCCUPIED, VERSION, kind, read_message};

/// Connections at the most: a control connection, one per verifier thread, and some that are about to be refused.
const CONNECTIONS_MAX: usize = THREADS_MAX + 1 + 16;
/// How long a connection may take to say what it is for.
const GREETING_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of the body of the first message at the most: a version, a thread and an incarnation.
const GREETING_BYTES_MAX: usize = 20;
/// How long a new control connection waits for the one before it, whose threads may be finishing their last piece of log.
const TAKEOVER_WAIT_MAX: Duration = Duration::from_secs(3);
/// Pause between two looks at whether it is gone.
const TAKEOVER_PAUSE: Duration = Duration::from_millis(5);
/// Pause after a connection could not be accepted, which happens when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The monitor.
pub struct Monitor {
    /// Keys and files.
    pub state: StateDirectory,
    /// Whether clients without a key may read and write.
    pub open: bool,
    /// The verifier threads that wait for their logs.
    pub seats: Seats,
    /// Who holds this is the control connection.
    register: Mutex<Box<dyn TrustedRegister>>,
    latch: FailureLatch,
}

impl Monitor {
    /// A monitor without an incarnation.
    pub fn new(state: StateDirectory, open: bool) -> Self {
        Self {
            register: Mutex::new(state.register()),
            state,
            open,
            seats: Seats::default(),
            latch: FailureLatch::default(),
        }
    }

    /// Its keys.
    pub const fn identity(&self) -> &Identity {
        &self.state.identity
    }

    /// How it failed, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        self.latch.failure()
    }

    /// Fail, for as long as the process runs. Only the first violation counts.
    pub fn fail(&self, violation: Violation, run: &Run) {
        self.latch.latch(violation, self.identity(), run);
    }

    /// Accept connections, for ever.
    pub fn serve(self: &Arc<Self>, listener: &Listener) -> ! {
        loop {
            let result = listener
                .accept()
                .map_err(Error::from)
                .and_then(|stream| self.spawn(stream));
            if let Err(error) = result {
                log(format_args!("cannot accept a connection: {error}"));
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }

    fn spawn(self: &Arc<Self>, mut stream: Stream) -> Result<(), Error> {
        // each connection has a handle of the monitor, as has who accepts them
        if Arc::strong_count(self) > CONNECTIONS_MAX {
            log(format_args!("a connection is refused: there are {CONNECTIONS_MAX}"));
            return Ok(());
        }
        let monitor = Arc::clone(self);
        let serve = move || {
            if let Err(error) = monitor.serve_connection(&mut stream) {
                log(error);
            }
            let _ = stream.shutdown(Shutdown::Both); // other handles of it may be open still
        };
        thread::Builder::new().name("connection".to_owned()).spawn(serve)?;
        Ok(())
    }

    /// Find out what a connection is for, and serve it until it ends.
    fn serve_connection(&self, stream: &mut Stream) -> Result<(), Error> {
        stream.set_read_timeout(Some(GREETING_WAIT_MAX))?;
        let mut body = Vec::new();
        let greeting = read_message(stream, &mut body, GREETING_BYTES_MAX)?;
        stream.set_read_timeout(None)?;

        let mut reader = Reader::new(&body);
        let version = reader.u16().ok();
        let seat_named = read_seat(&mut reader);
        let (code, refusal) = match (greeting, version, seat_named) {
            (None, ..) => return Ok(()),
            (Some(kind::CONTROL), Some(VERSION), Err(Malformed)) => match self.take_register() {
                Some(mut register) => return control::serve(self, &mut **register, stream),
                None => (OCCUPIED, "there is a control connection already"),
            },
            (Some(kind::LOG_CONNECTION), Some(VERSION), Ok((thread, incarnation))) => {
                match self.seats.take(thread, &incarnation, stream)? {
                    Some(seat) => {
                        seat.serve(stream, self);
                        return Ok(());
                    }
                    None => (
                        ViolationCode::BadHostMessage as u16,
                        "no such verifier thread runs in this incarnation, or it has its log connection already",
                    ),
                }
            }
            _ => (
                ViolationCode::BadHostMessage as u16,
                "the first message must be control or log, of version 2",
            ),
        };
        log(format_args!("a connection is refused: {refusal}"));
        control::refuse(stream, code, refusal)
    }

    /// Become the control connection; `None` if there is one, and it does not end.
    fn take_register(&self) -> Option<MutexGuard<'_, Box<dyn TrustedRegister>>> {
        let since = Instant::now();
        loop {
            if let Ok(register) = self.register.try_lock() {
                return Some(register);
            }
            if since.elapsed() > TAKEOVER_WAIT_MAX {
                return None;
            }
            thread::sleep(TAKEOVER_PAUSE);
        }
    }
}

/// What the first message of a log connection names.
fn read_seat(reader: &mut Reader<'_>) -> Result<(ThreadId, IncarnationId), Malformed> {
    Ok((reader.u16()?, *reader.array()?))
}
