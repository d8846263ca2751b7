//! The trusted process of ZetaKV: a thin shell around the state machine of `zetakv-verifier`.
//!
//! It keeps the keys, opens sessions with clients through the host, feeds each verifier thread its log, and seals and certifies epochs. It
//! stores no records, and it believes nothing that the host says: everything that comes over a connection is copied, bounded, and checked.
//!
//! The library exists for the two programs of the monitor and for the tests; it is no interface for others.

#![forbid(unsafe_code)]

pub mod arguments;
pub mod certificate;
pub mod clients;
pub mod control;
pub mod domain;
pub mod envelope;
pub mod epochs;
pub mod error;
mod failpoints;
pub mod failure;
pub mod files;
pub mod handshake;
pub mod identity;
pub mod incarnation;
pub mod log;
pub mod monitor;
pub mod overrides;
pub mod program;
pub mod register;
pub mod replay;
pub mod sealed;
pub mod seats;
pub mod sessions;
pub mod state_dir;
pub mod stream;
pub mod ticket;
pub mod verifier_thread;
pub mod wire;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod scratch;
