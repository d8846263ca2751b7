//! A model of what clients and the monitor say to each other through a hostile host, and an exhaustive search of it.
//!
//! It covers sessions, sequences, generations, receipts, incarnations, sealed states, the trusted register, certificates, and replays of the
//! write-ahead log; and of a client, what it concludes for each of its operations. It does not cover records: that a certified epoch holds is
//! the verifier's business, so here an epoch is simply the operations that ran in it. Cryptography is ideal: a frame, a tag, a ticket or a
//! sealed state exists only if the one who has the key made it. All of those stay with the host, which may use each at any time.
//!
//! `docs/proof.md` argues for the same rules; the monitor's process tests replay traces of this model against the real monitor.

pub mod action;
pub mod canaries;
pub mod client;
pub mod host;
pub mod monitor;
pub mod properties;
pub mod rules;
pub mod search;
pub mod situations;
pub mod state;
