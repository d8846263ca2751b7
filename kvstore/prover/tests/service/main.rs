//! Whole services in one thread: provers, with the real verifier as their judge.

mod bounds;
mod client;
mod crashes;
mod honest;
mod tampered;
mod world;
