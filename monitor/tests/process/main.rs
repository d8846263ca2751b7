//! The real binary on a real socket, with just enough of a host and a client in the test to speak the protocol.

mod client;
mod crashes;
mod failures;
mod host;
mod log_attacks;
mod model;
mod model_driver;
mod monitor_process;
mod offline;
mod service;
mod write_ahead;
