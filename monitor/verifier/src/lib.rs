//! The trusted state machine of ZetaKV: verifier threads and the aggregation of epochs.
//!
//! Bytes in, bytes out: no clock, randomness, socket or file. The process around it is `zetakv-monitor`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod clocks;
pub mod codec;
pub mod crypto;
pub mod entry;
pub mod key;
pub mod kv;
pub mod machine;
pub mod output;
pub mod request;
pub mod time;
pub mod value;
pub mod violation;
