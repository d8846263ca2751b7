//! What can go wrong in the monitor process itself, as opposed to what a host does (a violation) or a client asks (a refusal).
//!
//! Messages hold no key material, and are safe to log.

use std::path::{Path, PathBuf};
use std::{fmt, io};

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
    /// The trusted register holds something else than this process committed last.
    RegisterChanged,
    /// What the monitor's directory says of the register is not what the register holds; says what to do.
    RegisterPutBack(&'static str),
    /// A register of another kind than a file failed.
    Register(Box<dyn std::error::Error + Send + Sync>),
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
            Self::RegisterChanged => write!(
                f,
                "the trusted register was changed by somebody else: is another monitor running on this state?"
            ),
            Self::RegisterPutBack(problem) => f.write_str(problem),
            Self::Register(source) => source.fmt(f),
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
