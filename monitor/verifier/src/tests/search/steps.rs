//! One step of the search, done by the real verifier: its threads are set to a state, given one entry, and read out again.

use core::cell::RefCell;
use core::ops::Range;
use std::collections::HashMap;
use std::sync::Arc;
use std::vec::Vec;

use super::moves::{Move, Operation, Rules};
use super::state::{EPOCHS, Pool, Registers, SLOTS, Sealed, Slots, State, Thread, encode_sealed};
use super::terms::{Atom, Terms, commitment_of};
use crate::aggregate::Aggregator;
use crate::clocks::Clocks;
use crate::codec::Reader;
use crate::entry::Entry;
use crate::epochs::{Closing, Sums};
use crate::kv::KeyValue;
use crate::machine::OperationResult;
use crate::output::Output;
use crate::receipt::RECEIPT_HEADER_BYTES;
use crate::request::MAC_BYTES;
use crate::thread::{EpochEnd, Progress, Snapshot, ThreadConfig, Verifier};
use crate::time::Timestamp;
use crate::value::{Commitment, Hash, Node};

/// Depth of the leaves.
pub const DEPTH: u16 = 3;
/// Epochs are counted from the certified one.
const CERTIFIED: u32 = 0;
/// The one that is certified next.
pub const OPEN: u32 = CERTIFIED + 1;

/// What a step comes to, if not to another state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The verifier refuses the entry, or the epoch.
    Refused,
    /// Nothing happens yet.
    Waits,
    /// The epoch of this state can never hold; `Rules::doom`.
    Doomed,
    /// Beyond the bounds of the search.
    CutOff,
    /// An epoch is sealed although something was read in it, or before, that is wrong.
    Attack,
}

type SearchedVerifier = Verifier<Terms, KeyValue, DEPTH>;

/// The threads of a monitor, which are set to one state after the other.
pub struct Steps<'a> {
    rules: &'a Rules,
    clocks: Arc<Clocks>,
    verifiers: Vec<SearchedVerifier>,
    log: Vec<u8>,
    outputs: Vec<u8>,
    /// The states that threads start in, by what they start from: starting them is slow, and often the same.
    starts: RefCell<HashMap<Vec<u8>, State>>,
}

impl<'a> Steps<'a> {
    pub fn new(rules: &'a Rules) -> Self {
        let clocks = Arc::new(Clocks::new(CERTIFIED).expect("there is an epoch 1"));
        let verifiers = start(rules, &Node::default(), &[], &clocks);
        Self {
            rules,
            clocks,
            verifiers,
            log: Vec::new(),
            outputs: Vec::new(),
            starts: RefCell::default(),
        }
    }

    /// An empty tree, before the first epoch.
    pub fn first_state(&self) -> State {
        let empty = Sealed {
            root: Node::default(),
            carried: Vec::new(),
        };
        self.restarted(empty, Default::default())
    }

    /// All threads, as they start from a sealed state.
    fn restarted(&self, certified: Sealed, registers: Registers) -> State {
        let mut from = Vec::from(registers);
        encode_sealed(&certified, &mut from);
        let mut starts = self.starts.borrow_mut();
        starts
            .entry(from)
            .or_insert_with(|| self.started(certified, registers))
            .clone()
    }

    fn started(&self, certified: Sealed, registers: Registers) -> State {
        let clocks = Arc::new(Clocks::new(CERTIFIED).expect("there is an epoch 1"));
        let mut verifiers = start(self.rules, &certified.root, &certified.carried, &clocks);
        let mut open = Pool::default();
        for verifier in &mut verifiers {
            let (sums, closing) = verifier.take_sums();
            assert!(sums.added.is_empty() && is_empty(&closing));
            open.count_all(&sums.evicted, -1);
        }
        State {
            threads: verifiers.iter().map(|verifier| read_thread(verifier, false)).collect(),
            open,
            next: Pool::default(),
            carried: Vec::new(),
            root_at_cut: None,
            certified,
            sealed: None,
            registers: [registers; EPOCHS],
            wrong: [false; EPOCHS],
        }
    }

    pub fn step(&mut self, state: &State, step: &Move) -> Result<State, End> {
        match *step {
            Move::Certify => match &state.sealed {
                Some(sealed) => certified(state, sealed).ok_or(End::CutOff),
                None => Err(End::Refused),
            },
            Move::Crash { from_sealed: false } => Ok(self.restarted(state.certified.clone(), state.registers[0])),
            // the register commits to it first
            Move::Crash { from_sealed: true } => match state.sealed.as_ref().and_then(shifted_sealed) {
                Some(sealed) => Ok(self.restarted(sealed, state.registers[1])),
                None => Err(End::CutOff),
            },
            Move::Entry(thread, Entry::VerifyEpoch) => self.verify_epoch(state, thread),
            Move::Entry(thread, ref entry) => {
                self.set(state, thread, nothing_closing());
                self.process(thread, entry)?;
                self.read_out(state, thread)
            }
            Move::Operation(thread, operation, ref entry) => self.operation(state, thread, operation, entry),
        }
    }

    /// With this of the closing epoch, if the thread is closing it.
    fn set(&mut self, state: &State, thread: usize, closing: Closing<Vec<Atom>>) {
        for (number, of) in state.threads.iter().enumerate() {
            self.clocks.publish(number as u16, of.moment.clock);
        }
        let of = &state.threads[thread];
        let root_at_cut = state.root_at_cut.filter(|_| thread == 0);
        let sums = (Sums::default(), closing);
        self.verifiers[thread].set(&of.records, of.occupied, &of.moment, sums, root_at_cut);
    }

    /// Let a thread process an entry.
    fn process(&mut self, thread: usize, entry: &Entry<'_>) -> Result<(), End> {
        self.log.clear();
        self.outputs.clear();
        entry.encode(&mut self.log);
        match self.verifiers[thread].process(&self.log, &mut self.outputs) {
            Progress::Done => Ok(()),
            Progress::Waiting { .. } => Err(End::Waits),
            Progress::Failed(_) => Err(End::Refused),
        }
    }

    /// The state after an entry, with what it has added and evicted.
    fn read_out(&mut self, before: &State, thread: usize) -> Result<State, End> {
        let verifier = &mut self.verifiers[thread];
        let (sums, closing) = verifier.take_sums();
        let mut state = before.clone();
        let handed_over = before.threads[thread].handed_over;
        state.threads[thread] = read_thread(verifier, handed_over);
        let clock = verifier.moment().clock;
        assert_eq!(
            self.clocks.published(thread as u16),
            Some(clock),
            "every move of a clock is published"
        );
        let of_thread = if state.threads[thread].is_before_cut() {
            &mut state.open
        } else {
            &mut state.next
        };
        of_thread.count_all(&sums.added, 1);
        of_thread.count_all(&sums.evicted, -1);
        state.open.count_all(&closing.sums.added, 1);
        state.open.count_all(&closing.sums.evicted, -1);
        state.next.count_all(&closing.carried, -1);
        state.carried.extend(closing.carried);
        state.carried.sort_unstable();
        if thread == 0 && verifier.moment().is_closing {
            state.root_at_cut = verifier.closing_root();
        }
        self.judge(state)
    }

    fn judge(&self, state: State) -> Result<State, End> {
        if state.threads.iter().any(|of| of.moment.clock.epoch as usize >= EPOCHS) {
            Err(End::CutOff)
        } else if self.rules.doom && is_doomed(self.rules, &state) {
            Err(End::Doomed)
        } else {
            Ok(state)
        }
    }

    fn operation(
        &mut self,
        state: &State,
        thread: usize,
        operation: Operation,
        entry: &Entry<'_>,
    ) -> Result<State, End> {
        self.set(state, thread, nothing_closing());
        self.verifiers[thread].wait_for(&encoded(operation));
        self.process(thread, entry)?;
        let result = read_receipt(&self.outputs);
        let mut after = self.read_out(state, thread)?;
        let epoch = after.threads[thread].moment.clock.epoch as usize;
        let leaf = usize::from(operation.number);
        for (registers, wrong) in after.registers[epoch..].iter_mut().zip(&mut after.wrong[epoch..]) {
            match operation.write {
                Some(value) => registers[leaf] = value,
                None => *wrong |= result != OperationResult::Value(commitment_of(registers[leaf])),
            }
        }
        Ok(after)
    }

    /// The thread hands over all that is in the pools, for all threads: the aggregator adds them up in any case. What the other threads
    /// have handed over is then nothing.
    fn verify_epoch(&mut self, before: &State, thread: usize) -> Result<State, End> {
        let closing = Closing {
            sums: Sums {
                added: before.open.atoms(1),
                evicted: before.open.atoms(-1),
            },
            carried: before.carried.clone(),
        };
        self.set(before, thread, closing);
        self.process(thread, &Entry::VerifyEpoch)?;
        let verifier = &mut self.verifiers[thread];
        let snapshot = verifier.take_snapshot().expect("what has been handed over");
        if snapshot.epoch != OPEN {
            // only without checks: an aggregator that still waits for the epoch before refuses it, and one that does not takes it as well after
            // the certificate
            return Err(End::Refused);
        }
        let (now, closing) = verifier.take_sums();
        assert!(now.added.is_empty() && is_empty(&closing));
        let mut state = before.clone();
        state.threads[thread] = read_thread(verifier, true);
        state.open = difference(&snapshot);
        // what was carried over goes on as the thread keeps it, and into the sealed state as it hands it over
        state.next.count_all(&before.carried, 1);
        state.next.count_all(&now.evicted, -1);
        state.carried.clone_from(&snapshot.carried);
        state.carried.sort_unstable();
        if thread == 0 {
            state.root_at_cut = snapshot.end.root;
        }
        if state.threads.iter().all(|of| of.handed_over) {
            return self.aggregate(state, snapshot);
        }
        self.judge(state)
    }

    fn aggregate(&self, mut state: State, last: Snapshot<Vec<Atom>>) -> Result<State, End> {
        let threads = self.rules.threads as u16;
        let crypto = terms(self.rules);
        let mut aggregator = Aggregator::new(threads, OPEN);
        for thread in (0..threads).filter(|thread| *thread != last.thread) {
            let snapshot = Snapshot {
                thread,
                epoch: OPEN,
                added: Vec::new(),
                evicted: Vec::new(),
                carried: Vec::new(),
                end: EpochEnd {
                    root: state.root_at_cut.filter(|_| thread == 0),
                    sessions: Vec::new(),
                    tag: None,
                },
            };
            let submitted = aggregator.submit(snapshot, &crypto);
            assert!(matches!(submitted, Ok(None)), "one is missing");
        }
        let Ok(Some(held)) = aggregator.submit(last, &crypto) else {
            return Err(End::Refused);
        };
        if state.wrong[OPEN as usize] {
            return Err(End::Attack);
        }
        let mut carried = held.carried;
        carried.sort_unstable();
        let root = held.root;
        state.open = Pool::default();
        state.carried = Vec::new();
        state.root_at_cut = None;
        state.sealed = Some(Sealed { root, carried });
        self.judge(state)
    }
}

/// Whether the epoch that is certified next can never hold, and so never be certified, or the one after it.
///
/// - An element was added more often than evicted, and its thread will never evict it (again): because it has come to its `next_epoch`, or its
///   evictions are strictly increasing and it has passed that moment, or because evictions have timestamps of their epoch, and this one has not.
///   What has counter 0 in the next epoch is there as soon as its thread carries it over; so that must still be possible.
/// - Or an element was evicted more often, and will never be added: because it is not of the epoch, and all additions are; or because all
///   threads have come to their `next_epoch`, and none of them will carry it over.
/// - Or a thread will never close the epoch, because it will never have an empty cache again.
///
/// What can be reached from here without this epoch, by a crash, can be reached from before, too. And what is done in the next epoch does not
/// matter to this one: so all that comes of this one is also found where what makes the next one fail was not done.
fn is_doomed(rules: &Rules, state: &State) -> bool {
    let never_holds = |(atom, count): &(Atom, i8)| {
        if *count > 0 {
            let of = state.threads.get(usize::from(atom.thread));
            let is_over = of.is_none_or(|of| !of.is_before_cut()) || is_past(rules, state, atom);
            is_over || (rules.evictions_fit && atom.ts.epoch != OPEN)
        } else {
            let mut threads = state.threads.iter().enumerate();
            let may_add = |(number, of): (usize, &Thread)| {
                of.is_before_cut() || (of.moment.is_closing && may_carry_over(rules, number, atom))
            };
            !threads.any(may_add) || (rules.additions_fit && atom.ts.epoch != OPEN)
        }
    };
    let never_holds_next = |(atom, count): &(Atom, i8)| {
        let is_over = !may_be_carried(state, atom) && is_past(rules, state, atom);
        *count > 0 && (is_over || (rules.evictions_fit && atom.ts.epoch != OPEN + 1))
    };
    state.open.0.iter().any(never_holds)
        || state.next.0.iter().any(never_holds_next)
        || [&state.open, &state.next].into_iter().any(takes_a_moment_twice)
        || !is_enough_to_carry(rules, state)
        || state.threads.iter().any(|of| rules.cache_is_emptied && has_lost(of))
}

/// Whether the cache has counted more records than it holds, so that it is never empty again, and the thread does not close its epoch.
fn has_lost(of: &Thread) -> bool {
    of.is_before_cut() && of.occupied > of.records.iter().flatten().count()
}

/// Whether a thread will never evict an element (again).
pub fn is_past(rules: &Rules, state: &State, atom: &Atom) -> bool {
    let is_past = |of: &Thread| {
        // the first eviction of an epoch is after the moment to which `next_epoch` moves the clock
        let is_before_first = rules.evictions_fit && atom.ts.counter <= 1;
        atom.ts <= of.moment.clock || is_before_first
    };
    state.threads.get(usize::from(atom.thread)).is_none_or(is_past)
}

/// Whether what is still to be evicted would have to be at one moment of one thread.
fn takes_a_moment_twice(pool: &Pool) -> bool {
    let early = pool.0.iter().filter(|(atom, count)| *count > 0 && atom.ts.counter > 0);
    let mut moments: Vec<_> = early.clone().map(|(atom, _)| (atom.ts, atom.thread)).collect();
    moments.dedup(); // atoms are sorted by these first
    moments.len() < early.map(|(_, count)| usize::from(count.unsigned_abs())).sum()
}

/// Whether an element is one that its thread carries over, if anything, and it may still do so.
pub fn may_be_carried(state: &State, atom: &Atom) -> bool {
    let of = state.threads.get(usize::from(atom.thread));
    atom.ts.counter == 0 && of.is_some_and(|of| !of.handed_over)
}

/// Whether a closing thread may carry an element over.
pub fn may_carry_over(rules: &Rules, thread: usize, atom: &Atom) -> bool {
    !rules.carried_is_settled || usize::from(atom.thread) == thread || atom.ts.counter == 0
}

/// Whether what was added as carried over, and was not yet, can be: by each of the threads that may still do so, and by all of them.
fn is_enough_to_carry(rules: &Rules, state: &State) -> bool {
    let all = 0..rules.threads;
    let sets = all.clone().map(|number| number..number + 1).chain([all.clone()]);
    let is_enough = |threads: Range<usize>| {
        let missing = missing(rules, state, &threads);
        let evicting = if rules.carried_is_settled { threads } else { all.clone() };
        missing == 0 || missing <= evictions_left(rules, state, evicting)
    };
    sets.into_iter().all(is_enough)
}

/// How many elements these threads have to carry over, that were added in the next epoch, and are not there to be carried over.
fn missing(rules: &Rules, state: &State, threads: &Range<usize>) -> i32 {
    let to_carry = |(atom, count): &&(Atom, i8)| {
        *count > 0 && may_be_carried(state, atom) && threads.contains(&usize::from(atom.thread))
    };
    let to_carry: Vec<_> = state.next.0.iter().filter(to_carry).collect();
    let mut kinds: Vec<_> = to_carry.iter().map(|(atom, _)| (atom.key, atom.value)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let missing_of = |kind: (u8, Hash)| {
        let is_same = |atom: &Atom| (atom.key, atom.value) == kind;
        let of_kind = to_carry.iter().filter(|(atom, _)| is_same(atom));
        let is_there = |(atom, count): &&(Atom, i8)| {
            *count < 0 && is_same(atom) && threads.clone().any(|number| may_carry_over(rules, number, atom))
        };
        let there = state.open.0.iter().filter(is_there);
        of_kind.map(|(_, count)| i32::from(*count)).sum::<i32>()
            + there.map(|(_, count)| i32::from(*count)).sum::<i32>()
    };
    kinds.into_iter().map(|kind| missing_of(kind).max(0)).sum()
}

/// How many more evictions by these threads there may be in the open epoch, beside those of what was added before.
fn evictions_left(rules: &Rules, state: &State, threads: Range<usize>) -> i32 {
    let before_cut = state.threads[threads.clone()].iter().filter(|of| of.is_before_cut());
    let left = before_cut.map(|of| rules.counter_max.saturating_sub(of.moment.clock.counter));
    let early = state
        .open
        .0
        .iter()
        .filter(|(atom, count)| *count > 0 && threads.contains(&usize::from(atom.thread)));
    left.sum::<u32>() as i32 - early.map(|(_, count)| i32::from(*count)).sum::<i32>()
}

/// The certificate is out: epochs are counted from the next one. `None`: something is of an epoch long gone, as it can be only without checks.
fn certified(state: &State, sealed: &Sealed) -> Option<State> {
    let mut after = state.clone();
    for thread in &mut after.threads {
        thread.moment.clock.epoch -= 1;
        thread.handed_over = false;
    }
    let next = state.next.0.iter().map(|(atom, count)| Some((shifted(atom)?, *count)));
    after.open = Pool(next.collect::<Option<_>>()?);
    after.next = Pool::default();
    after.certified = shifted_sealed(sealed)?;
    after.sealed = None;
    after.registers.rotate_left(1);
    after.registers[EPOCHS - 1] = state.registers[EPOCHS - 1];
    after.wrong.rotate_left(1);
    after.wrong[EPOCHS - 1] = state.wrong[EPOCHS - 1];
    after.wrong[0] = false;
    Some(after)
}

fn shifted(atom: &Atom) -> Option<Atom> {
    let ts = Timestamp::new(atom.ts.epoch.checked_sub(1)?, atom.ts.counter);
    Some(Atom { ts, ..*atom })
}

fn shifted_sealed(sealed: &Sealed) -> Option<Sealed> {
    Some(Sealed {
        root: sealed.root,
        carried: sealed.carried.iter().map(shifted).collect::<Option<_>>()?,
    })
}

fn terms(rules: &Rules) -> Terms {
    Terms {
        sums_hold: rules.sums_hold,
    }
}

const fn nothing_closing() -> Closing<Vec<Atom>> {
    Closing {
        sums: Sums {
            added: Vec::new(),
            evicted: Vec::new(),
        },
        carried: Vec::new(),
    }
}

fn is_empty(closing: &Closing<Vec<Atom>>) -> bool {
    closing.sums.added.is_empty() && closing.sums.evicted.is_empty() && closing.carried.is_empty()
}

/// Start all threads of a monitor from a sealed state.
fn start(rules: &Rules, root: &Node, carried: &[Atom], clocks: &Arc<Clocks>) -> Vec<SearchedVerifier> {
    let start = |thread| {
        let config = ThreadConfig {
            thread,
            slots: SLOTS as u32,
            certified_epoch: CERTIFIED,
            root: (thread == 0).then_some(*root),
            queue_bytes: 0,
        };
        let carried = if thread == 0 { carried.to_vec() } else { Vec::new() };
        Verifier::new(config, terms(rules), carried, Arc::clone(clocks)).expect("there is a slot for the root")
    };
    (0..rules.threads as u16).map(start).collect()
}

fn read_thread(verifier: &SearchedVerifier, handed_over: bool) -> Thread {
    let records: Slots = verifier.records().try_into().expect("so many slots");
    Thread {
        moment: verifier.moment(),
        handed_over,
        records,
        // how many more than there are does not matter: it never becomes less
        occupied: verifier.occupied().min(records.iter().flatten().count() + 1),
    }
}

fn difference(snapshot: &Snapshot<Vec<Atom>>) -> Pool {
    let mut pool = Pool::default();
    pool.count_all(&snapshot.added, 1);
    pool.count_all(&snapshot.evicted, -1);
    pool
}

/// The operation, as a client encodes it.
pub fn encoded(operation: Operation) -> Vec<u8> {
    let hash = *operation.leaf.bits();
    match operation.write.map(commitment_of) {
        None => [&[1][..], &hash].concat(),
        Some(Commitment::Null) => [&[3][..], &hash].concat(),
        Some(value) => {
            let mut encoded = [&[2][..], &hash].concat();
            value.encode(&mut encoded);
            encoded
        }
    }
}

fn read_receipt(outputs: &[u8]) -> OperationResult {
    match Output::decode(&mut Reader::new(outputs)) {
        Ok(Output::Receipt(receipt)) => {
            let results = &receipt[RECEIPT_HEADER_BYTES..receipt.len() - MAC_BYTES];
            OperationResult::decode(&mut Reader::new(results)).expect("a result")
        }
        other => panic!("a receipt, not {other:?}"),
    }
}
