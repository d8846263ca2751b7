//! Tests of the verifier as a whole.

pub(crate) mod left_out;
