//! The trusted register: the one thing that the host cannot put back. It commits to the latest sealed state, and to the latest start.
//!
//! A sealed state is only as fresh as this register. Kinds: a file in the monitor's own state directory protects against the
//! *store* being put back to an older copy, but not against whoever puts back the monitor's directory with it; an index of a TPM
//! protects against that, too.

pub mod file;

use std::path::Path;

use zetakv_verifier::value::Hash;

use crate::error::Error;
use crate::identity::{Identity, IncarnationId};

/// What is committed to.
///
/// The incarnation is what makes a start final: a state that an earlier incarnation sealed, and that the host kept back, is no longer
/// accepted once another incarnation has begun without it and has told clients what took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commitment {
    /// Hash of the latest sealed state.
    pub sealed: Hash,
    /// The latest incarnation: only what it seals may come next. Zeros before the first.
    pub incarnation: IncarnationId,
}

/// Holds the latest commitment.
pub trait TrustedRegister: Send {
    /// The commitment.
    fn read(&self) -> Result<Commitment, Error>;

    /// Hold this from now on, whatever it holds: at the very first start, or when an operator says that what it held is lost.
    fn initialize(&mut self, commitment: &Commitment) -> Result<(), Error>;

    /// Replace `expected` by `new`, durably. When this returns an error, the register holds one of the two. After an [`Error::File`] the
    /// same call may be made again.
    fn commit(&mut self, expected: &Commitment, new: &Commitment) -> Result<(), Error>;
}

/// Opens the register of the monitor with this state directory and identity.
pub type OpenRegister = Box<dyn Fn(&Path, &Identity) -> Box<dyn TrustedRegister> + Send + Sync>;
/// Understands the name that a command line has for a register.
pub type RegisterNamed = fn(&str) -> Result<OpenRegister, &'static str>;
