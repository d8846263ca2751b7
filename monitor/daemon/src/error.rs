//! What can go wrong in the monitor process itself, as opposed to what a host does (a violation) or a client asks (a refusal).
//!
//! Messages hold no key material, and are safe to log.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::register::tpm_wire::response::explain;

/// An error of the monitor process.
#[derive(Debug)]
pub enum Error {
    /// A file of the state directory could not be read or written.
    File {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The state directory is not as it must be.
    State {
        /// Which file or directory.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// An operator asked for what cannot be done; says why, and what to do.
    Refused(&'static str),
    /// The trusted register holds something else than this process committed last.
    RegisterChanged,
    /// What the monitor's directory says of the register is not what the register holds.
    RegisterPutBack,
    /// The TPM refused.
    Tpm {
        /// What was tried.
        doing: &'static str,
        /// Its response code, without the number of what it is about.
        code: u32,
    },
    /// An answer in the name of the TPM is not its own.
    TpmForged {
        /// What was tried.
        doing: &'static str,
    },
    /// The connection to the TPM failed.
    TpmConnection(io::Error),
    /// The operating system gave no random bytes.
    Random(getrandom::Error),
    /// A connection or listener failed.
    Connection(io::Error),
    /// A message is longer than the protocol allows here, or empty.
    MessageLength {
        /// Bytes that the peer announced.
        bytes: usize,
        /// Bytes allowed.
        bytes_max: usize,
    },
    /// The epochs are used up.
    NoMoreEpochs,
}

impl Error {
    /// For `map_err` on operations on files.
    pub fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }

    /// A file or directory is not as it must be.
    pub fn state(path: &Path, problem: &'static str) -> Self {
        let path = path.to_owned();
        Self::State { path, problem }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { doing, path, source } => write!(f, "cannot {doing} {}: {source}", path.display()),
            Self::State { path, problem } => write!(f, "{}: {problem}", path.display()),
            Self::Refused(why) => f.write_str(why),
            Self::RegisterChanged => write!(
                f,
                "the trusted register was changed by somebody else: is another monitor running on this state?"
            ),
            Self::RegisterPutBack => write!(
                f,
                "the monitor's directory was put back to an older copy, or is another's: its file register.tpm does not fit what the TPM \
                 holds. Restore the latest copy; if it is lost, an admin may decide to go on: zetakv-monitor-operator override --register-lost"
            ),
            Self::Tpm { doing, code } => {
                write!(f, "TPM: cannot {doing}: code {code:#05x}: {}", explain(*code))
            }
            Self::TpmForged { doing } => write!(
                f,
                "TPM: cannot {doing}: the answer is malformed or not authentic: something between the monitor and the TPM changes it"
            ),
            Self::TpmConnection(source) => write!(f, "the connection to the TPM: {source}"),
            Self::Random(source) => write!(f, "no random bytes: {source}"),
            Self::Connection(source) => write!(f, "connection: {source}"),
            Self::MessageLength { bytes, bytes_max } => {
                write!(f, "a message of {bytes} bytes, where 1 to {bytes_max} are allowed")
            }
            Self::NoMoreEpochs => write!(f, "the epochs of this instance are used up"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::Connection(source)
    }
}

impl From<getrandom::Error> for Error {
    fn from(source: getrandom::Error) -> Self {
        Self::Random(source)
    }
}
