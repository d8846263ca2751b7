//! Why a run ends without figures.

use std::fmt;
use std::io;

/// The reason, for people.
#[derive(Debug)]
pub enum Failure {
    /// An option cannot be used.
    Options(String),
    /// A file or the network.
    Io(&'static str, io::Error),
    /// The server says that it does not serve this client, or this request.
    Refused(String),
    /// What the server sent is not what it must be: a check failed.
    Check(String),
    /// An answer or a certificate did not come.
    TimedOut(String),
}

impl Failure {
    /// A failed check.
    pub fn check(what: impl Into<String>) -> Self {
        Self::Check(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(what) => write!(f, "{what}"),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Refused(what) => write!(f, "refused by the server: {what}"),
            Self::Check(what) => write!(f, "CHECK FAILED: {what}"),
            Self::TimedOut(what) => write!(f, "timed out: {what}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<zetakv_verifier::codec::Malformed> for Failure {
    fn from(_: zetakv_verifier::codec::Malformed) -> Self {
        Self::check("the server sent a malformed frame")
    }
}
