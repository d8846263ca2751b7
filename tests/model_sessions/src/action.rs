//! What can happen: each action is one message, or one step of one party.

use std::fmt;

use crate::state::{Former, Id, Inc, Sequence, Tag};

/// An action of the host, the monitor or the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The incarnation that runs, if any, has crashed; the host starts one from a sealed state.
    Start {
        /// Which.
        sealed: Id,
        /// With a write-ahead log: what it replays.
        replay: Option<Replay>,
    },
    /// With a write-ahead log: from now on clients are answered. The host offers the tickets of all sessions, or none.
    Live {
        /// Whether it offers them.
        tickets: Tickets,
    },
    /// The monitor gets a client hello.
    Welcome(Id),
    /// The monitor gets a request.
    Admit(Id),
    /// The monitor gets a resume.
    Resume(Id),
    /// The next request runs.
    Run,
    /// The epoch is closed, and sealed.
    Cut,
    /// An honest host has stored the sealed state.
    Store,
    /// The host says that the sealed state is durable: the register commits to it.
    Commit,
    /// The certificate leaves.
    Sign,
    /// The host closes a session.
    Close(Id),
    /// The monitor forgets an ended session, because there are too many: the host can make them.
    Forget(u8),
    /// The client sends a hello, asking about this session.
    SendHello,
    /// The client resumes. True: since the host has refused changes.
    SendResume(bool),
    /// Somebody else opens a session, and sends a request.
    Stranger,
    /// The host says that the session is not known, or the connection is lost in a hello: the client sends a hello.
    GiveUp,
    /// The client sends a request with its next operation.
    Send,
    /// The client gets a receipt.
    GetReceipt(Id),
    /// The client gets the answer to a resume.
    GetResumed(Id),
    /// The client gets a server hello, and the certificates up to its head.
    GetWelcome(Id),
    /// The client gets a certificate.
    GetCertificate(Id),
}

/// What is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The steps.
    pub steps: Tag,
    /// The tag that the host shows.
    pub told: Tag,
}

/// Which tickets a host offers, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tickets {
    /// None.
    None,
    /// All, the oldest first.
    OldestFirst,
    /// All, the newest first: of two for one number the first counts.
    NewestFirst,
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Done,
    /// It cannot happen here.
    Impossible,
    /// The host is refused; no state has changed.
    Refused(Refusal),
    /// A new incarnation.
    Started(Inc),
    /// A session: its number, and what is said of the former one.
    Welcomed {
        /// Its number.
        number: u8,
        /// The epoch of the head.
        epoch: u8,
        /// Of the former.
        former: Former,
    },
    /// A request is in the queue.
    Admitted,
    /// A request or resume is rejected.
    Rejected(Rejection),
    /// A request has run: of this sequence, and the resumes behind it are answered with these last sequences.
    Ran(Sequence, Vec<Sequence>),
    /// A resume waits, or is answered at once.
    Resumed(Option<Sequence>),
    /// A sealed state.
    Sealed(Id),
    /// A certificate.
    Certified(Id),
}

/// Why the host is refused, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The sealed state is not the latest.
    Rollback,
    /// What was replayed is not what was logged.
    LogChanged,
    /// An epoch was closed in the middle.
    RequestInProgress,
    /// A message out of place.
    BadHostMessage,
}

/// Why a frame is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No such session.
    UnknownSession,
    /// Not the next sequence.
    BadSequence,
    /// Not the generation.
    BadGeneration,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { sealed, replay: None } => write!(f, "host: start from sealed state {sealed}"),
            Self::Start {
                sealed,
                replay: Some(replay),
            } => write!(
                f,
                "host: start from sealed state {sealed}, replay {:?}, and show the tag of {:?}",
                replay.steps, replay.told
            ),
            Self::Live { tickets } => write!(f, "host: live, with tickets: {tickets:?}"),
            Self::Welcome(hello) => write!(f, "monitor: gets hello {hello}"),
            Self::Admit(request) => write!(f, "monitor: gets request {request}"),
            Self::Resume(resume) => write!(f, "monitor: gets resume {resume}"),
            Self::Run => write!(f, "monitor: runs the next request"),
            Self::Cut => write!(f, "monitor: closes and seals the epoch"),
            Self::Store => write!(f, "host: the sealed state is on disk"),
            Self::Commit => write!(f, "monitor: told that it is durable, commits to the sealed state"),
            Self::Sign => write!(f, "monitor: signs and releases the certificate"),
            Self::Close(session) => write!(f, "host: closes session {session}"),
            Self::Forget(number) => write!(f, "monitor: forgets the ended session of number {number}"),
            Self::SendHello => write!(f, "client: sends a hello"),
            Self::SendResume(false) => write!(f, "client: reconnects, sends a resume"),
            Self::SendResume(true) => write!(f, "client: is told that changes are refused, sends a resume"),
            Self::Stranger => write!(f, "another client: opens a session, sends a request, which is admitted"),
            Self::GiveUp => write!(f, "client: is told that its session is unknown, sends a hello"),
            Self::Send => write!(f, "client: sends its next operation"),
            Self::GetReceipt(receipt) => write!(f, "client: gets receipt {receipt}"),
            Self::GetResumed(resumed) => write!(f, "client: gets answer {resumed} to a resume"),
            Self::GetWelcome(welcome) => write!(f, "client: gets server hello {welcome}"),
            Self::GetCertificate(sealed) => write!(f, "client: gets the certificate of sealed state {sealed}"),
        }
    }
}
