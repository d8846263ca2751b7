//! The prover of ZetaKV.
