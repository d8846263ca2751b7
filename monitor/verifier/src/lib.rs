//! The trusted state machine of ZetaKV: verifier threads and the aggregation of epochs.
//!
//! Bytes in, bytes out: no clock, randomness, socket or file. The process around it is `zetakv-monitor`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod cache;
mod chain;
mod check;
mod epochs;
mod queue;
mod sessions;
#[cfg(test)]
mod tests;

pub mod aggregate;
pub mod clocks;
pub mod codec;
pub mod crypto;
pub mod entry;
pub mod key;
pub mod kv;
pub mod machine;
pub mod output;
pub mod receipt;
pub mod request;
pub mod standard_crypto;
pub mod thread;
pub mod time;
pub mod value;
pub mod violation;

pub use aggregate::{Aggregator, HeldEpoch};
pub use chain::{Incarnation, LogConfig, Replayed, ReplayedSessions};
pub use queue::QUEUED_MAX;
pub use sessions::SessionKeys;
pub use standard_crypto::StandardCrypto;
pub use thread::{EpochEnd, Progress, Snapshot, ThreadConfig, Verifier};
