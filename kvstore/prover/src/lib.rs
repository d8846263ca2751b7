//! The prover of ZetaKV: decides which entries of the verifier log prove what clients ask for. Bytes in, bytes out: no clock, randomness,
//! socket or file. (But for the seed of a hash table, which shows in no byte.)
//!
//! Nothing here is trusted. But it mirrors the verifier exactly, since a monitor cannot tell a mistake from an attack.

mod aging;
mod audit;
mod cache;
mod carry_over;
mod checkpoint;
mod clearing;
mod derive;
mod error;
mod execute;
mod findings;
mod frames;
mod genesis;
mod hash;
mod hot;
mod known_nodes;
mod mirror;
mod partitions;
mod plain;
mod prover;
mod reading;
mod records;
mod room;
mod rounds;
pub mod rows;
mod suspects;
mod walk;
mod work;
mod write_ahead;

pub use audit::Audit;
pub use error::{Error, FrameErrorCode};
pub use findings::{FINDING_KEYS_MAX, FINDINGS_MAX, Finding, Kind, Totals};
pub use frames::FrameRules;
pub use mirror::Counters;
pub use plain::PlainEngine;
pub use prover::{Config, Prover, SLOTS_MIN, Stats};
pub use reading::{RANGE_ROWS_MAX, Reads};
pub use suspects::{SUSPECTS_MAX, Suspect};
pub use work::ClientFrame;
