//! The threads and the aggregator of a monitor, driven by a script. The steps are those of `tests/model/steps.py`.

use alloc::sync::Arc;
use std::fmt::Debug;
use std::format;
use std::str::FromStr;
use std::string::String;
use std::vec;
use std::vec::Vec;

use zeroize::Zeroizing;

use super::crypto::{DriverCrypto, DriverSum};
use super::text;
use crate::aggregate::{Aggregator, HeldEpoch};
use crate::chain::LogConfig;
use crate::clocks::Clocks;
use crate::entry::ThreadId;
use crate::machine::{Role, StateMachine};
use crate::sessions::SessionKeys;
use crate::thread::{Progress, Snapshot, ThreadConfig, Verifier};
use crate::value::Node;

pub struct Monitor<M: StateMachine, const DEPTH: u16> {
    clocks: Arc<Clocks>,
    threads: Vec<Verifier<DriverCrypto, M, DEPTH>>,
    aggregator: Aggregator<DriverSum>,
    has_failed: bool,
    held: Option<HeldEpoch<DriverSum>>,
}

impl<M: StateMachine, const DEPTH: u16> Default for Monitor<M, DEPTH> {
    fn default() -> Self {
        Self {
            clocks: Arc::new(Clocks::new(0).expect("a first epoch")),
            threads: Vec::new(),
            aggregator: Aggregator::new(0, 1),
            has_failed: false,
            held: None,
        }
    }
}

/// The words of a step.
struct Words<'a>(core::str::Split<'a, char>);

impl<'a> Words<'a> {
    fn word(&mut self) -> &'a str {
        self.0.next().expect("another word")
    }

    fn number<T: FromStr<Err: Debug>>(&mut self) -> T {
        self.word().parse().expect("a number")
    }

    fn bytes(&mut self) -> Vec<u8> {
        let digits = self.word();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.bytes().try_into().expect("as many bytes")
    }
}

impl<M: StateMachine, const DEPTH: u16> Monitor<M, DEPTH> {
    /// What can be seen of each step: some lines, and one with a dot.
    pub fn follow(&mut self, script: &[String]) -> String {
        let mut answer = String::new();
        for step in script {
            for line in self.step(step) {
                answer += &line;
                answer.push('\n');
            }
            answer += ".\n";
        }
        answer
    }

    fn step(&mut self, step: &str) -> Vec<String> {
        let mut words = Words(step.split(' '));
        match words.word() {
            "start" => self.start(words.number(), words.number(), words.number()),
            "log" => self.keep_log(&mut words),
            "open" => self.open(&mut words),
            "close" => {
                let session = words.number();
                self.threads.iter_mut().for_each(|thread| thread.close_session(session));
            }
            "role" => {
                let (session, role) = (words.number(), Role::from_u8(words.number()));
                self.threads
                    .iter_mut()
                    .for_each(|thread| thread.set_role(session, role));
            }
            "certify" => {
                if let Some(held) = &self.held {
                    self.clocks.certify(held.epoch);
                }
            }
            "process" => {
                let mut outputs = Vec::new();
                let progress = self.thread(&mut words).process(&words.bytes(), &mut outputs);
                return vec![text::progress(progress), text::data(&outputs)];
            }
            "timeout" => return vec![text::progress(Progress::Failed(self.thread(&mut words).time_out()))],
            "observe" => {
                let mut lines = Vec::new();
                let threads = self.threads.len();
                self.thread(&mut words).observe(&mut lines, threads);
                return lines;
            }
            "submit" => return self.submit(&mut words),
            other => panic!("no such step: {other}"),
        }
        Vec::new()
    }

    fn thread(&mut self, words: &mut Words<'_>) -> &mut Verifier<DriverCrypto, M, DEPTH> {
        &mut self.threads[words.number::<usize>()]
    }

    fn start(&mut self, threads: u16, slots: u32, queue_bytes: usize) {
        let certified_epoch = self.held.as_ref().map_or(0, |held| held.epoch);
        let root = self.held.as_ref().map_or_else(Node::default, |held| held.root);
        self.clocks = Arc::new(Clocks::new(certified_epoch).expect("another epoch"));
        self.aggregator = Aggregator::new(threads, certified_epoch + 1);
        self.has_failed = false;
        let start = |thread: ThreadId| {
            let config = ThreadConfig {
                thread,
                slots,
                certified_epoch,
                root: (thread == 0).then_some(root),
                queue_bytes,
            };
            let held = self.held.as_ref().filter(|_| thread == 0);
            let carried = held.map(|held| held.carried.clone()).unwrap_or_default();
            let thread = Verifier::new(config, DriverCrypto::new(), carried, Arc::clone(&self.clocks));
            thread.expect("a slot for the root")
        };
        self.threads = (0..threads).map(start).collect();
    }

    fn keep_log(&mut self, words: &mut Words<'_>) {
        let (key, instance, incarnation, sealed_by) = (words.array(), words.array(), words.array(), words.array());
        let latest = if words.0.clone().next() == Some("-") {
            None
        } else {
            Some(words.array())
        };
        let threads = self.threads.len();
        let tags = self
            .held
            .as_ref()
            .map(|held| &held.tags)
            .filter(|tags| tags.len() == threads);
        for (number, thread) in self.threads.iter_mut().enumerate() {
            thread.keep_log(LogConfig {
                key: Zeroizing::new(key),
                threads: threads as u16,
                instance,
                incarnation,
                sealed_by,
                tag: tags.map(|tags| tags[number]),
                latest,
            });
        }
    }

    fn open(&mut self, words: &mut Words<'_>) {
        let (session, role) = (words.number(), Role::from_u8(words.number()).expect("a role"));
        let (request_key, receipt_key) = (words.array(), words.array());
        for thread in &mut self.threads {
            thread.open_session(SessionKeys {
                session,
                role,
                request_key: Zeroizing::new(request_key),
                receipt_key: Zeroizing::new(receipt_key),
            });
        }
    }

    fn submit(&mut self, words: &mut Words<'_>) -> Vec<String> {
        let Some(snapshot) = self.thread(words).take_snapshot() else {
            return vec![String::from("no snapshot")];
        };
        let mut lines = Vec::new();
        observe_snapshot(&snapshot, &mut lines);
        if self.has_failed {
            lines.push(String::from("epoch_mismatch before"));
            return lines;
        }
        match self.aggregator.submit(snapshot, &DriverCrypto::new()) {
            Ok(None) => lines.push(String::from("others are missing")),
            Ok(Some(held)) => {
                observe_held(&held, &mut lines);
                self.held = Some(held);
            }
            Err(violation) => {
                self.has_failed = true;
                lines.push(format!("{} epoch {}", violation.code.name(), violation.epoch));
            }
        }
        lines
    }
}

fn observe_snapshot(snapshot: &Snapshot<DriverSum>, lines: &mut Vec<String>) {
    lines.push(format!(
        "snapshot of thread {} epoch {}",
        snapshot.thread, snapshot.epoch
    ));
    text::multiset("added", &snapshot.added, lines);
    text::multiset("evicted", &snapshot.evicted, lines);
    text::multiset("carried", &snapshot.carried, lines);
    text::end(&snapshot.end, lines);
}

fn observe_held(held: &HeldEpoch<DriverSum>, lines: &mut Vec<String>) {
    lines.push(format!("held epoch {}", held.epoch));
    text::multiset("carried", &held.carried, lines);
    lines.push(format!("root {}", text::root(Some(&held.root))));
    for (session, last) in &held.sessions {
        let last: Vec<_> = last.iter().map(|sequence| format!("{sequence}")).collect();
        lines.push(format!("session {session} {}", last.join(" ")));
    }
    for tag in &held.tags {
        lines.push(format!("tag {}", text::data(tag)));
    }
}
