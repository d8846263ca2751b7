//! Tests of the verifier as a whole, on trees of three bits, with symbolic or real cryptography.

mod aggregation;
mod attacks;
mod checks;
mod checks_of_epochs;
mod checks_of_records;
mod checks_of_runs;
mod closing;
pub(crate) mod driver;
mod encodings;
mod honest;
#[cfg(loom)]
mod interleavings;
pub(crate) mod left_out;
mod random_logs;
mod requests;
mod search;
pub(crate) mod symbolic;
#[cfg(loom)]
pub(crate) mod watched_atomics;
pub(crate) mod world;
mod write_ahead;
