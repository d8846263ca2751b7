//! A thread's state, for the model.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Verifier;
use crate::crypto::Crypto;
use crate::machine::StateMachine;
use crate::receipt::RECEIPT_HEADER_BYTES;
use crate::tests::driver::{DriverSum, text};

impl<C: Crypto<Sum = DriverSum>, M: StateMachine, const DEPTH: u16> Verifier<C, M, DEPTH> {
    /// All of it; what threads share, of so many threads.
    pub(crate) fn observe(&self, lines: &mut Vec<String>, threads: usize) {
        lines.push(format!("thread {} offset {}", self.thread, self.offset));
        self.epochs.observe(lines);
        self.cache.observe(lines);
        self.sessions.observe(lines);
        self.queue.observe(lines);
        let results = if self.queue.in_progress() {
            &self.receipt[RECEIPT_HEADER_BYTES..]
        } else {
            &[]
        };
        lines.push(format!("results {}", text::data(results)));
        match &self.chain {
            Some(chain) => chain.observe(lines),
            None => lines.push(String::from("no chain")),
        }
        match &self.end {
            Some(end) => text::end(end, lines),
            None => lines.push(String::from("not closing")),
        }
        self.epochs.observe_clocks(lines, threads);
    }
}
