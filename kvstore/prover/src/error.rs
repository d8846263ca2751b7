//! What can go wrong in the prover, by whose fault it is.

use core::fmt;

/// An error of the prover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A client's frame is malformed, or does not match its commitments. Nobody else is concerned.
    Frame {
        /// Why, for the client.
        code: FrameErrorCode,
        /// What is wrong.
        text: String,
    },
    /// The store lacks or garbles a row that a proof needs: nothing more can be proved.
    Store {
        /// What is wrong.
        text: &'static str,
        /// The row's store key.
        key: Vec<u8>,
    },
    /// The monitor answered out of order, or has failed.
    Monitor(&'static str),
    /// The caller used the engine out of order, or its limits are too small for the work.
    Engine(&'static str),
}

/// Error codes of client frames (protocol section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameErrorCode {
    /// It cannot be parsed, or is meant for somebody else.
    Malformed = 1,
    /// A key or value is too long, or is not what the request commits to.
    Payload = 5,
    /// An unverified server has no sessions.
    NotVerified = 7,
}

impl Error {
    pub(crate) fn in_row(text: &'static str, store_key: impl Into<Vec<u8>>) -> Self {
        Self::Store {
            text,
            key: store_key.into(),
        }
    }

    pub(crate) fn malformed(text: impl Into<String>) -> Self {
        Self::Frame {
            code: FrameErrorCode::Malformed,
            text: text.into(),
        }
    }

    pub(crate) fn payload(text: impl Into<String>) -> Self {
        Self::Frame {
            code: FrameErrorCode::Payload,
            text: text.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame { code, text } => write!(f, "client frame: {text} (code {})", *code as u16),
            Self::Store { text, key } => write!(f, "store: {text} (row {key:02x?})"),
            Self::Monitor(text) => write!(f, "monitor: {text}"),
            Self::Engine(text) => write!(f, "prover: {text}"),
        }
    }
}

impl core::error::Error for Error {}
