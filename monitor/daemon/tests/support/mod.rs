//! A monitor process, the host that drives it, and the client that trusts it: just enough of each to speak the protocol.

pub mod client;
pub mod host;
pub mod process;
