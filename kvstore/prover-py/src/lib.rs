//! Python bindings of the prover.
