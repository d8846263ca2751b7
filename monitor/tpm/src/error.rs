//! What can go wrong with a TPM. Messages hold no key material, and are safe to log.

use std::{fmt, io};

use zetakv_monitor::error as monitor;

use crate::wire::response::explain;

/// An error of a register in a TPM.
#[derive(Debug)]
pub enum Error {
    /// The TPM refused.
    Refused {
        /// What was tried.
        doing: &'static str,
        /// Its response code, without the number of what it is about.
        code: u32,
    },
    /// An answer in the name of the TPM is not its own.
    Forged {
        /// What was tried.
        doing: &'static str,
    },
    /// The index is not what this monitor defines.
    OfAnotherKind,
    /// The connection to the TPM failed.
    Connection(io::Error),
    /// What can go wrong with any register.
    Any(monitor::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { doing, code } => {
                write!(f, "TPM: cannot {doing}: code {code:#05x}: {}", explain(*code))
            }
            Self::Forged { doing } => write!(
                f,
                "TPM: cannot {doing}: the answer is malformed or not authentic: something between the monitor and the TPM changes it"
            ),
            Self::OfAnotherKind => write!(
                f,
                "the TPM's NV index is of another kind than this monitor defines: name an index that is free, or delete this one"
            ),
            Self::Connection(source) => write!(f, "the connection to the TPM: {source}"),
            Self::Any(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<monitor::Error> for Error {
    fn from(error: monitor::Error) -> Self {
        Self::Any(error)
    }
}

impl From<Error> for monitor::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Any(error) => error,
            own => Self::Register(Box::new(own)),
        }
    }
}
