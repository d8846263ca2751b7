//! Tests of the verifier as a whole, on trees of three bits, with symbolic or real cryptography.

mod attacks;
mod checks;
mod checks_of_epochs;
mod checks_of_records;
mod checks_of_runs;
mod honest;
pub(crate) mod left_out;
mod random_logs;
mod requests;
pub(crate) mod symbolic;
pub(crate) mod world;
mod write_ahead;
