//! One step of the search, done by the real verifier: its threads are set to a state, given one entry, and read out again.

use core::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::vec::Vec;

use super::moves::{Move, Operation, Rules};
use super::state::{EPOCHS, Pool, Registers, SLOTS, Sealed, Slots, State, Thread, encode_sealed};
use super::terms::{Atom, Terms, commitment_of, key_of};
use crate::aggregate::Aggregator;
use crate::clocks::Clocks;
use crate::codec::Reader;
use crate::entry::Entry;
use crate::epochs::Sums;
use crate::key::Key;
use crate::kv::KeyValue;
use crate::machine::OperationResult;
use crate::output::Output;
use crate::receipt::RECEIPT_HEADER_BYTES;
use crate::request::MAC_BYTES;
use crate::thread::{Progress, Snapshot, ThreadConfig, Verifier};
use crate::time::Timestamp;
use crate::value::{Commitment, Node};

/// Depth of the leaves.
pub const DEPTH: u16 = 3;
/// Epochs are counted from the certified one.
const CERTIFIED: u32 = 0;

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
            let sums = verifier.take_sums();
            assert!(sums.added.is_empty() && sums.evicted_next.is_empty());
            open.count_all(&sums.evicted, -1);
        }
        State {
            threads: verifiers.iter().map(read_thread).collect(),
            open,
            next: Pool::default(),
            drained: Pool::default(),
            root_handed: None,
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
                self.set(state, thread, no_sums());
                self.process(thread, entry)?;
                self.read_out(state, thread)
            }
            Move::Operation(thread, operation, ref entry) => self.operation(state, thread, operation, entry),
        }
    }

    fn set(&mut self, state: &State, thread: usize, sums: Sums<Vec<Atom>>) {
        for (number, of) in state.threads.iter().enumerate() {
            self.clocks.publish(number as u16, of.moment.clock);
        }
        let of = &state.threads[thread];
        self.verifiers[thread].set(&of.records, of.occupied, &of.moment, sums);
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
        let sums = verifier.take_sums();
        let mut state = before.clone();
        state.threads[thread] = read_thread(verifier);
        let clock = verifier.moment().clock;
        assert_eq!(
            self.clocks.published(thread as u16),
            Some(clock),
            "every move of a clock is published"
        );
        let has_handed_over = before.threads[thread].moment.last_verified > CERTIFIED;
        if has_handed_over && !sums.evicted_next.is_empty() {
            return Err(End::CutOff); // only without checks
        }
        let of_thread = if has_handed_over {
            &mut state.next
        } else {
            &mut state.open
        };
        of_thread.count_all(&sums.added, 1);
        of_thread.count_all(&sums.evicted, -1);
        state.next.count_all(&sums.evicted_next, -1);
        state.drained.count_all(&sums.evicted_next, -1);
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
        self.set(state, thread, no_sums());
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
        let sums = Sums {
            added: before.open.atoms(1),
            evicted: before.open.atoms(-1),
            evicted_next: before.drained.atoms(-1),
        };
        self.set(before, thread, sums);
        self.process(thread, &Entry::VerifyEpoch)?;
        let verifier = &mut self.verifiers[thread];
        let snapshot = verifier.take_snapshot().expect("what has been handed over");
        if snapshot.epoch != CERTIFIED + 1 {
            // only without checks: an aggregator that still waits for the epoch before refuses it, and one that does not takes it as well after
            // the certificate
            return Err(End::Refused);
        }
        let now = verifier.take_sums();
        let mut state = before.clone();
        state.threads[thread] = read_thread(verifier);
        state.open = difference(&snapshot);
        // what was evicted in the next epoch goes on as the thread keeps it, and into the sealed state as it hands it over
        state.next.count_all(&before.drained.atoms(-1), 1);
        state.next.count_all(&now.evicted, -1);
        state.drained = Pool::default();
        state.drained.count_all(&snapshot.evicted_next, -1);
        assert!(now.added.is_empty() && now.evicted_next.is_empty());
        if thread == 0 {
            state.root_handed = snapshot.root;
        }
        let handed = |of: &Thread| of.moment.last_verified > CERTIFIED;
        if state.threads.iter().all(handed) {
            return self.aggregate(state, snapshot);
        }
        self.judge(state)
    }

    fn aggregate(&self, mut state: State, last: Snapshot<Vec<Atom>>) -> Result<State, End> {
        let threads = self.rules.threads as u16;
        let crypto = terms(self.rules);
        let mut aggregator = Aggregator::new(threads, CERTIFIED + 1);
        for thread in (0..threads).filter(|thread| *thread != last.thread) {
            let snapshot = Snapshot {
                thread,
                epoch: CERTIFIED + 1,
                added: Vec::new(),
                evicted: Vec::new(),
                evicted_next: Vec::new(),
                root: state.root_handed.filter(|_| thread == 0),
                sessions: Vec::new(),
                tag: None,
            };
            let submitted = aggregator.submit(snapshot, &crypto);
            assert!(matches!(submitted, Ok(None)), "one is missing");
        }
        let Ok(Some(held)) = aggregator.submit(last, &crypto) else {
            return Err(End::Refused);
        };
        if state.wrong[CERTIFIED as usize + 1] {
            return Err(End::Attack);
        }
        let mut carried = held.evicted_next;
        carried.sort_unstable();
        let root = held.root;
        state.open = Pool::default();
        state.drained = Pool::default();
        state.root_handed = None;
        state.sealed = Some(Sealed { root, carried });
        Ok(state)
    }
}

/// Whether the epoch of the open pool can never hold, and so never be certified.
///
/// - An element in it was added more often than evicted, and its thread will never evict it again, because its evictions are strictly
///   increasing, and it has passed it; or because evictions of the epoch have timestamps of the epoch, and this one has not.
/// - Or an element was evicted more often, and will never be added, because it is not of the epoch, and all additions are.
///
/// The same for additions of the next epoch: they are by threads that have handed over the open one, and whatever these do no longer matters
/// to it.
///
/// What can be reached from here without this epoch, by a crash, can be reached from before, too.
fn is_doomed(rules: &Rules, state: &State) -> bool {
    let never_holds = |(atom, count): &(Atom, i8)| {
        let of_epoch = atom.ts.epoch == CERTIFIED + 1;
        if *count > 0 {
            is_past(state, atom) || (rules.evictions_fit && !of_epoch)
        } else {
            rules.additions_fit && !of_epoch
        }
    };
    let never_holds_next = |(atom, count): &(Atom, i8)| {
        *count > 0 && (is_past(state, atom) || (rules.evictions_fit && atom.ts.epoch != CERTIFIED + 2))
    };
    state.open.0.iter().any(never_holds)
        || state.next.0.iter().any(never_holds_next)
        || state.threads.iter().any(|of| rules.cache_is_emptied && has_lost(of))
}

/// Whether the cache has counted more records than it holds, so that it is never empty again, and the thread does not hand over its epoch.
fn has_lost(of: &Thread) -> bool {
    of.moment.last_verified == CERTIFIED && of.occupied > of.records.iter().flatten().count()
}

/// Whether a thread will never evict an element (again).
pub fn is_past(state: &State, atom: &Atom) -> bool {
    let Some(Thread { moment, .. }) = state.threads.get(usize::from(atom.thread)) else {
        return true;
    };
    let key = key_of(atom.key);
    let is_later = |last: &Key| last.cmp_post_order(&key).is_lt();
    let at_clock = atom.ts == moment.clock && moment.last_evict_key.as_ref().is_none_or(is_later);
    atom.ts < moment.clock || (atom.ts == moment.clock && !at_clock)
}

/// The certificate is out: epochs are counted from the next one. `None`: something is of an epoch long gone, as it can be only without checks.
fn certified(state: &State, sealed: &Sealed) -> Option<State> {
    let mut after = state.clone();
    for Thread { moment, .. } in &mut after.threads {
        // one that has stayed behind, only without checks, can do nothing any more
        moment.clock.epoch = moment.clock.epoch.saturating_sub(1);
        moment.last_verified = moment.last_verified.checked_sub(1)?;
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

const fn no_sums() -> Sums<Vec<Atom>> {
    Sums {
        added: Vec::new(),
        evicted: Vec::new(),
        evicted_next: Vec::new(),
    }
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

fn read_thread(verifier: &SearchedVerifier) -> Thread {
    let records: Slots = verifier.records().try_into().expect("so many slots");
    Thread {
        moment: verifier.moment(),
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
