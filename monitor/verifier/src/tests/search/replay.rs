//! An attack that the search has found, replayed and printed: by threads that run through from the start, with requests that are
//! authenticated, sums that are multisets, epochs that are not counted anew, and a check of the whole history by itself.

use core::fmt::Write;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::moves::{Move, Operation};
use super::state::path;
use super::steps::encoded;
use super::terms::{commitment_number, value_of_hash};
use crate::aggregate::HeldEpoch;
use crate::crypto::Crypto;
use crate::entry::Entry;
use crate::machine::OperationResult;
use crate::tests::world::{Answer, Log, World};
use crate::thread::Progress;
use crate::time::Timestamp;
use crate::value::{Child, Commitment, NO_HASH, Node, Value};
use crate::violation::ViolationCode;

/// How a replay ends.
#[derive(Debug, PartialEq)]
pub enum End {
    /// Something was certified that is wrong.
    Wrong(String),
    /// An entry, or the epoch, was refused.
    Refused(ViolationCode),
    /// Neither.
    Harmless,
}

/// An operation that a client was answered to.
struct Done {
    epoch: u32,
    operation: Operation,
    result: OperationResult,
}

struct Replay<C: Crypto> {
    world: World<C>,
    /// The last certified epoch, and what the register holds.
    certified: u32,
    register: (Node, C::Sum),
    sealed: Option<HeldEpoch<C::Sum>>,
    sequences: Vec<u64>,
    /// In real time.
    history: Vec<Done>,
    lines: String,
}

/// Replay moves from an empty tree. What is printed, and how it ends.
pub fn replay<C: Crypto + Clone>(moves: &[Move], threads: usize, make: fn() -> C) -> (String, End) {
    let mut replay = Replay {
        world: World::new(threads as u16, shared(make)),
        certified: 0,
        register: (Node::default(), C::Sum::default()),
        sealed: None,
        sequences: std::vec![0; threads],
        history: Vec::new(),
        lines: String::new(),
    };
    for (number, step) in moves.iter().enumerate() {
        let _ = write!(replay.lines, "{:4}  ", number + 1);
        let refused = replay.step(step);
        replay.lines.push('\n');
        if let Err(code) = refused {
            return (replay.lines, End::Refused(code));
        }
    }
    let end = replay.wrong().map_or(End::Harmless, End::Wrong);
    (replay.lines, end)
}

/// All threads share what symbolic hashes there are.
fn shared<C: Clone>(make: fn() -> C) -> impl Fn() -> C {
    let crypto = make();
    move || crypto.clone()
}

impl<C: Crypto + Clone> Replay<C> {
    fn say(&mut self, text: &str) {
        self.lines.push_str(text);
    }

    fn step(&mut self, step: &Move) -> Result<(), ViolationCode> {
        match *step {
            Move::Certify => {
                let sealed = self.sealed.take().expect("something is sealed");
                self.world.clocks.certify(sealed.epoch);
                self.say(&format!("monitor   certifies epoch {}", sealed.epoch));
                self.commit(sealed);
                Ok(())
            }
            Move::Crash { from_sealed } => {
                if from_sealed {
                    let sealed = self.sealed.take().expect("something is sealed");
                    self.commit(sealed);
                }
                self.crash();
                Ok(())
            }
            Move::Entry(thread, entry) => {
                let entry = self.absolute(entry);
                self.say(&format!("thread {thread}  {}", described(&entry)));
                self.process(thread, &entry)?;
                if entry == Entry::VerifyEpoch {
                    self.submit(thread)
                } else {
                    Ok(())
                }
            }
            Move::Operation(thread, operation, ref entry) => self.operation(thread, operation, entry),
        }
    }

    fn admit(&mut self, thread: usize, operation: Operation) -> Result<(), ViolationCode> {
        self.sequences[thread] += 1;
        let sequence = self.sequences[thread];
        let request = self
            .world
            .make_request(thread as u16, sequence, |_| {}, &[encoded(operation)]);
        self.process(thread, &Entry::Request(&request)).map(drop)
    }

    fn commit(&mut self, sealed: HeldEpoch<C::Sum>) {
        self.certified = sealed.epoch;
        self.register = (sealed.root, sealed.carried);
    }

    /// Start again from what the register holds; what ran in later epochs is lost.
    fn crash(&mut self) {
        let (root, carried) = &self.register;
        let crypto = self.world.crypto.clone();
        let threads = self.world.threads.len();
        self.world = World::restarted(threads as u16, || crypto.clone(), self.certified, *root, carried);
        self.sealed = None;
        self.sequences.fill(0);
        self.history.retain(|done| done.epoch <= self.certified);
        self.say(&format!(
            "monitor   is killed, and starts from the sealed state of epoch {}",
            self.certified
        ));
    }

    /// Epochs of the search are counted from the certified one, and its hashes are values.
    fn absolute(&self, mut entry: Entry<'static>) -> Entry<'static> {
        match &mut entry {
            Entry::AddMerkle { value, .. } => *value = self.with_hashes(value),
            Entry::AddBlum { ts, value, .. } | Entry::CarryOver { ts, value, .. } => {
                *value = self.with_hashes(value);
                *ts = Timestamp::new(ts.epoch + self.certified, ts.counter);
            }
            Entry::EvictBlum { ts, .. } | Entry::EvictBlumMerkle { ts, .. } => {
                *ts = Timestamp::new(ts.epoch + self.certified, ts.counter);
            }
            _ => {}
        }
        entry
    }

    fn with_hashes(&self, value: &Value) -> Value {
        let Value::Node(node) = value else {
            return *value;
        };
        let with_hash = |child: Child| {
            let hash = child.hash.map(|hash| match value_of_hash(&hash) {
                None => NO_HASH,
                Some(below) => self.world.crypto.hash(&self.with_hashes(&below)),
            });
            Child { key: child.key, hash }
        };
        Value::Node(Node {
            sides: node.sides.map(|side| side.map(with_hash)),
        })
    }

    fn process(&mut self, thread: usize, entry: &Entry<'_>) -> Result<Vec<Answer>, ViolationCode> {
        let log = Log::new().entry(entry);
        match self.world.process(thread as u16, &log) {
            (Progress::Done, answers) => Ok(answers),
            (Progress::Failed(violation), _) => Err(self.refuse(violation.code)),
            (Progress::Waiting { .. }, _) => {
                let code = self.world.threads[thread].time_out().code;
                Err(self.refuse(code))
            }
        }
    }

    fn refuse(&mut self, code: ViolationCode) -> ViolationCode {
        self.say(&format!("  -> refused: {}", code.name()));
        code
    }

    fn submit(&mut self, thread: usize) -> Result<(), ViolationCode> {
        let snapshot = self.world.threads[thread].take_snapshot().expect("a snapshot");
        match self.world.aggregator.submit(snapshot, &self.world.crypto) {
            Err(violation) => Err(self.refuse(violation.code)),
            Ok(None) => Ok(()),
            Ok(Some(held)) => {
                self.say(&format!("  -> epoch {} holds, and is sealed", held.epoch));
                self.sealed = Some(held);
                Ok(())
            }
        }
    }

    fn operation(&mut self, thread: usize, operation: Operation, entry: &Entry<'static>) -> Result<(), ViolationCode> {
        let what = operation
            .write
            .map_or("get".into(), |value| format!("put {}", value_name(value)));
        self.say(&format!(
            "client    {what} {} on thread {thread}: {}",
            path(&operation.leaf),
            described(entry)
        ));
        self.admit(thread, operation)?;
        let answers = self.process(thread, entry)?;
        let Some(Answer::Receipt(header, results)) = answers.first() else {
            panic!("a receipt, not {answers:?}");
        };
        let epoch = Timestamp::from_u64(header.ts).epoch;
        self.say(&format!("  -> {} in epoch {epoch}", result_name(&results[0])));
        let result = results[0];
        self.history.push(Done {
            epoch,
            operation,
            result,
        });
        Ok(())
    }

    /// What is wrong if all epochs up to the one that was sealed last are certified: the first read that is not of the last write before it.
    fn wrong(&self) -> Option<String> {
        let last_epoch = self.sealed.as_ref().map_or(self.certified, |sealed| sealed.epoch);
        let certified: Vec<_> = self.history.iter().filter(|done| done.epoch <= last_epoch).collect();
        for (index, read) in certified.iter().enumerate() {
            if read.operation.write.is_some() {
                continue;
            }
            let of_key = |done: &&&Done| done.operation.leaf == read.operation.leaf;
            let written = certified[..index]
                .iter()
                .rev()
                .filter(of_key)
                .find_map(|done| done.operation.write);
            let expected = super::terms::commitment_of(written.unwrap_or(0));
            if read.result != OperationResult::Value(expected) {
                return Some(format!(
                    "certified with epoch {last_epoch}: a get of {} returned {}, but the last put before it wrote {}",
                    path(&read.operation.leaf),
                    result_name(&read.result),
                    value_name(written.unwrap_or(0)),
                ));
            }
        }
        None
    }
}

fn value_name(number: u8) -> &'static str {
    ["null", "a"][usize::from(number)]
}

fn result_name(result: &OperationResult) -> String {
    match result {
        OperationResult::Ok => "ok".into(),
        OperationResult::Value(value) => value_name(commitment_number(value)).into(),
        other => format!("{other:?}"),
    }
}

fn time(ts: Timestamp) -> String {
    format!("{}:{}", ts.epoch, ts.counter)
}

fn described_value(value: &Value) -> String {
    match value {
        Value::Leaf(commitment @ (Commitment::Null | Commitment::Inline(_))) => {
            value_name(commitment_number(commitment)).into()
        }
        Value::Leaf(Commitment::Digest(..)) => "a digest".into(),
        Value::Node(node) => {
            let side = |side: &Option<Child>| match side {
                None => "-".into(),
                Some(Child { key, hash: None }) => format!("{} in Blum", path(key)),
                Some(Child { key, .. }) => path(key),
            };
            format!("({}, {})", side(&node.sides[0]), side(&node.sides[1]))
        }
    }
}

fn described(entry: &Entry<'_>) -> String {
    match entry {
        Entry::AddMerkle {
            slot,
            parent,
            key,
            value,
        } => format!(
            "add_merkle {} = {} into slot {slot}, parent {parent}",
            path(key),
            described_value(value)
        ),
        Entry::EvictMerkle { slot, parent } => format!("evict_merkle slot {slot}, parent {parent}"),
        Entry::AddBlum {
            slot,
            ts,
            thread,
            key,
            value,
        } => {
            let (key, value, ts) = (path(key), described_value(value), time(*ts));
            format!("add_blum {key} = {value} into slot {slot}, evicted at {ts} by thread {thread}")
        }
        Entry::EvictBlum { slot, ts } => format!("evict_blum slot {slot} at {}", time(*ts)),
        Entry::EvictBlumMerkle { slot, parent, ts } => {
            format!("evict_blum_merkle slot {slot}, parent {parent}, at {}", time(*ts))
        }
        Entry::NextEpoch => "next_epoch".into(),
        Entry::CarryOver { ts, thread, key, value } => {
            let (key, value, ts) = (path(key), described_value(value), time(*ts));
            format!("carry_over {key} = {value}, evicted at {ts} by thread {thread}")
        }
        Entry::VerifyEpoch => "verify_epoch".into(),
        Entry::Tick => "tick".into(),
        Entry::Run(slots) => format!("run on slots {:?}", slots.as_slice()),
        Entry::RunAbsent { parent } => format!("run_absent, parent {parent}"),
        other => format!("{other:?}"),
    }
}
