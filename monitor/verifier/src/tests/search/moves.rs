//! What the host can do next.
//!
//! Left out is what changes nothing, and what cannot succeed:
//! - *Slots.* One free slot is like another, so the first one is taken.
//! - *Time.* An eviction later than the clock's next moment is that many ticks and an eviction at the next moment: so records are evicted at
//!   that one only.
//! - *Values.* The verifier compares values, and asks whether they are initial; nothing else. So if a log is accepted, it is also accepted
//!   with all values mapped by a function that keeps null; and if it reads a value that is wrong, there is such a function to two values,
//!   one of them null, that keeps it wrong. So two values, null and one other, are enough for any attack.
//! - *Forged records by Merkle.* Hashes being symbolic, exactly one value has the hash that a parent names: all others are refused.
//! - *Forged records from Blum.* See [`super::steps::is_doomed`]: an addition that was not evicted before is never balanced, but for that of a
//!   record which its thread carries over later.
//!
//! The last two, and earlier times, and other slots, are refused because of a check. They are left out only while that check is there: a
//! search that leaves out the check tries them all, and so does one with [`Rules::everything`].

use std::vec::Vec;

use super::state::{SLOTS, State, Thread};
use super::steps::{OPEN, is_past, may_be_carried, may_carry_over};
use super::terms::{Atom, commitment_of, key_number, key_of, value_of_hash};
use crate::cache::Record;
use crate::check::left_out;
use crate::entry::{Entry, Slots};
use crate::key::Key;
use crate::time::Timestamp;
use crate::value::{Child, NO_HASH, Node, Value};

/// What a configuration allows.
#[derive(Clone)]
pub struct Rules {
    pub threads: usize,
    /// The keys of all records that there may be, but for the root; for each leaf its number among the leaves.
    pub keys: Vec<(Key, Option<u8>)>,
    /// Slots that a thread may use, beside slot 0.
    pub slots: usize,
    /// The last moment of an epoch.
    pub counter_max: u32,
    pub crashes: bool,
    /// Whether to try what checks that are there are known to refuse.
    pub everything: bool,
    /// Whether states whose epoch can never hold are given up.
    pub doom: bool,
    /// Whether an epoch's evictions, and its additions, have timestamps of that epoch; whether a thread closes an epoch with an empty cache
    /// only; and whether it carries nothing over that another may still evict: for `doom`.
    pub evictions_fit: bool,
    pub additions_fit: bool,
    pub cache_is_emptied: bool,
    pub carried_is_settled: bool,
    pub sums_hold: bool,
}

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    pub leaf: Key,
    pub number: u8,
    /// The number of the value to write; `None` to read.
    pub write: Option<u8>,
}

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// The host writes an entry into a thread's log.
    Entry(usize, Entry<'static>),
    /// A client's request is admitted, and the host lets it run by this entry.
    Operation(usize, Operation, Entry<'static>),
    /// The host says that the sealed state is on disk: the register commits to it, and the certificate leaves.
    Certify,
    /// The monitor is killed, and starts again: from what was sealed last, or from what the register holds.
    Crash { from_sealed: bool },
}

/// Collects the moves of a state.
pub struct Moves<'a> {
    rules: &'a Rules,
    pub found: Vec<Move>,
}

impl<'a> Moves<'a> {
    pub fn new(rules: &'a Rules) -> Self {
        Self {
            rules,
            found: Vec::new(),
        }
    }

    /// Whether to try what this check refuses.
    fn tries(&self, check: &str) -> bool {
        self.rules.everything || left_out(check)
    }

    /// The moves of a state, always in the same order.
    pub fn of(&mut self, state: &State) {
        self.found.clear();
        if state.sealed.is_some() {
            self.found.push(Move::Certify);
        }
        for (number, thread) in state.threads.iter().enumerate() {
            self.additions_by_merkle(number, state, thread);
            self.evictions(number, thread);
            self.additions_by_blum(number, state, thread);
            self.carry_overs(number, state);
            self.operations(number, state, thread);
            let clock = thread.moment.clock;
            if clock.counter <= self.rules.counter_max {
                self.found.push(Move::Entry(number, Entry::Tick));
            }
            self.found.push(Move::Entry(number, Entry::NextEpoch));
            self.found.push(Move::Entry(number, Entry::VerifyEpoch));
        }
        if self.rules.crashes {
            self.found.push(Move::Crash { from_sealed: false });
            if state.sealed.is_some() {
                self.found.push(Move::Crash { from_sealed: true });
            }
        }
    }

    /// Slots to add into: the first that is free, and if a check is tried, one that is not.
    fn slots_to_add(&self, thread: &Thread, key: &Key) -> impl Iterator<Item = u32> + use<> {
        let places = &thread.records[1..=self.rules.slots];
        let free = places.iter().position(Option::is_none);
        let taken = if self.tries("add_to_empty_slot") {
            self.rules.slots
        } else {
            0
        };
        let taken: Vec<_> = (0..taken).filter(|index| places[*index].is_some()).collect();
        let root = (key.is_root() && thread.records[0].is_none()).then_some(0);
        let others = free.into_iter().chain(taken).map(|index| index as u32 + 1);
        root.into_iter().chain(others)
    }

    fn nodes(thread: &Thread) -> impl Iterator<Item = (u32, &Record, &Node)> {
        occupied(thread).filter_map(|(slot, record)| match &record.value {
            Value::Node(node) => Some((slot, record, node)),
            Value::Leaf(_) => None,
        })
    }

    fn additions_by_merkle(&mut self, number: usize, state: &State, thread: &Thread) {
        for (parent, above, node) in Self::nodes(thread) {
            for (key, leaf) in &self.rules.keys {
                let Some(direction) = above.key.direction_to(key) else {
                    continue;
                };
                let mut values = std::vec![Value::initial(leaf.is_some())];
                let side = node.side(direction);
                let check = match side {
                    None => "first_value_initial",
                    Some(child) if child.key == *key => {
                        values = child.hash.as_ref().and_then(value_of_hash).into_iter().collect();
                        "again_hash"
                    }
                    Some(_) => "split_value_initial",
                };
                if self.tries(check) {
                    values.extend(self.forged_values(state, key, *leaf));
                }
                if self.tries("add_value_fits_key") {
                    values.push(Value::initial(leaf.is_none()));
                }
                for slot in self.slots_to_add(thread, key) {
                    for (index, value) in values.iter().enumerate() {
                        if values[..index].contains(value) {
                            continue;
                        }
                        let entry = Entry::AddMerkle {
                            slot,
                            parent,
                            key: *key,
                            value: *value,
                        };
                        self.found.push(Move::Entry(number, entry));
                    }
                }
            }
        }
    }

    /// Values that a record might be given: of a leaf all; of a node none, its children as if never evicted, or any that there has been.
    fn forged_values(&self, state: &State, key: &Key, leaf: Option<u8>) -> Vec<Value> {
        if leaf.is_some() {
            return [0, 1].map(|number| Value::Leaf(commitment_of(number))).into();
        }
        let mut values = std::vec![Value::initial(false)];
        for (below, _) in &self.rules.keys {
            if let Some(direction) = key.direction_to(below) {
                for hash in [Some(NO_HASH), None] {
                    let mut node = Node::default();
                    node.set_side(direction, Child { key: *below, hash });
                    values.push(Value::Node(node));
                }
            }
        }
        let cached = state.threads.iter().flat_map(occupied);
        values.extend(
            cached
                .filter(|(_, record)| record.key == *key)
                .map(|(_, record)| record.value),
        );
        values
    }

    fn evictions(&mut self, number: usize, thread: &Thread) {
        let times = self.eviction_times(thread);
        for (slot, record) in occupied(thread) {
            if record.key.is_root() && !self.tries("evict_not_root") {
                continue;
            }
            for (parent, above, _) in Self::nodes(thread) {
                if !above.key.is_proper_ancestor_of(&record.key) {
                    continue;
                }
                self.found
                    .push(Move::Entry(number, Entry::EvictMerkle { slot, parent }));
                for ts in &times {
                    let entry = Entry::EvictBlumMerkle { slot, parent, ts: *ts };
                    self.found.push(Move::Entry(number, entry));
                }
            }
            for ts in &times {
                self.found.push(Move::Entry(number, Entry::EvictBlum { slot, ts: *ts }));
            }
        }
    }

    fn eviction_times(&self, thread: &Thread) -> Vec<Timestamp> {
        let clock = thread.moment.clock;
        let mut times = Vec::new();
        let until = (clock.counter + 1).min(self.rules.counter_max);
        let from = if self.tries("evict_later_than_before") {
            0
        } else {
            clock.counter + 1
        };
        times.extend((from..=until).map(|counter| Timestamp::new(clock.epoch, counter)));
        if self.tries("evict_in_epoch_of_clock") {
            for epoch in [clock.epoch.checked_sub(1), Some(clock.epoch + 1)]
                .into_iter()
                .flatten()
            {
                times.extend((0..=self.rules.counter_max).map(|counter| Timestamp::new(epoch, counter)));
            }
        }
        times
    }

    fn additions_by_blum(&mut self, number: usize, state: &State, thread: &Thread) {
        // this thread passes it at once, so another must evict it later, or its thread carry it over
        let epoch = if thread.is_before_cut() { OPEN } else { OPEN + 1 };
        let may_come = |atom: &Atom| {
            let from_other = usize::from(atom.thread) != number && !is_past(self.rules, state, atom);
            let fits = !self.rules.evictions_fit || atom.ts.epoch == epoch;
            fits && (from_other || may_be_carried(state, atom))
        };
        let mut atoms = outstanding(state);
        atoms.extend(self.to_be_carried(state));
        self.forge(state, may_come, &mut atoms);
        for atom in atoms {
            let (key, value) = (key_of(atom.key), value_of_hash(&atom.value).expect("of a value"));
            for slot in self.slots_to_add(thread, &key) {
                let entry = Entry::AddBlum {
                    slot,
                    ts: atom.ts,
                    thread: atom.thread,
                    key,
                    value,
                };
                self.found.push(Move::Entry(number, entry));
            }
        }
    }

    /// What threads can still carry over, as others add it then: it may be added before.
    fn to_be_carried(&self, state: &State) -> impl Iterator<Item = Atom> {
        let closing = state.threads.iter().enumerate().filter(|(_, of)| of.moment.is_closing);
        closing.flat_map(move |(number, of)| {
            let from = state
                .open
                .outstanding()
                .filter(move |atom| may_carry_over(self.rules, number, atom));
            from.map(move |atom| Atom {
                ts: Timestamp::new(of.moment.clock.epoch, 0),
                thread: number as u16,
                ..*atom
            })
        })
    }

    fn carry_overs(&mut self, number: usize, state: &State) {
        // this thread evicts nothing more in the closing epoch, so another must
        let may_come = |atom: &Atom| {
            let fits = !self.rules.evictions_fit || atom.ts.epoch == OPEN;
            fits && usize::from(atom.thread) != number && !is_past(self.rules, state, atom)
        };
        let mut atoms = outstanding(state);
        self.forge(state, may_come, &mut atoms);
        for atom in atoms {
            let entry = Entry::CarryOver {
                ts: atom.ts,
                thread: atom.thread,
                key: key_of(atom.key),
                value: value_of_hash(&atom.value).expect("of a value"),
            };
            self.found.push(Move::Entry(number, entry));
        }
    }

    /// If a check is tried that refuses them, elements that are forged, too; where states are given up, only those that may come later.
    fn forge(&self, state: &State, may_come: impl Fn(&Atom) -> bool, atoms: &mut Vec<Atom>) {
        let forging = [
            "add_blum_epoch_not_over",
            "add_blum_epoch_reached",
            "add_blum_clock_passed",
            "add_blum_not_root",
            "carry_over_from_closing_epoch",
            "carry_over_settled",
            "evict_later_than_before",
            "evict_in_epoch_of_clock",
            super::configurations::THE_SUMS,
        ];
        if forging.iter().any(|check| self.tries(check)) {
            let forged = self.forged_atoms(state).into_iter();
            atoms.extend(forged.filter(|atom| !self.rules.doom || may_come(atom)));
        }
        atoms.sort_unstable();
        atoms.dedup();
    }

    /// Elements that nobody may have evicted: any record, at any moment, by any thread.
    fn forged_atoms(&self, state: &State) -> Vec<Atom> {
        let mut atoms = Vec::new();
        let root = (Key::ROOT, None);
        let root = self.tries("add_blum_not_root").then_some(&root);
        for (key, leaf) in self.rules.keys.iter().chain(root) {
            for value in self.forged_values(state, key, *leaf) {
                for thread in 0..self.rules.threads as u16 {
                    for epoch in 0..=2 {
                        for counter in 0..=self.rules.counter_max {
                            atoms.push(Atom {
                                ts: Timestamp::new(epoch, counter),
                                thread,
                                key: key_number(key),
                                value: super::terms::hash_of_value(&value),
                            });
                        }
                    }
                }
            }
        }
        atoms
    }

    fn operations(&mut self, number: usize, state: &State, thread: &Thread) {
        let epoch = thread.moment.clock.epoch as usize;
        for (leaf, index) in &self.rules.keys {
            let Some(index) = index else {
                continue;
            };
            let operation = |write| Operation {
                leaf: *leaf,
                number: *index,
                write,
            };
            // a read that is right in all cases changes nothing
            let is_right = |value| {
                state.registers[epoch..]
                    .iter()
                    .all(|of| of[usize::from(*index)] == value)
            };
            for (slot, record) in occupied(thread) {
                let Value::Leaf(value) = &record.value else {
                    continue;
                };
                if record.key != *leaf && !self.tries("run_slot_holds_key") {
                    continue;
                }
                let is_right = is_right(super::terms::commitment_number(value));
                for slots in self.slots_to_run(thread, slot) {
                    let run = Entry::Run(slots);
                    if !is_right {
                        self.found.push(Move::Operation(number, operation(None), run));
                    }
                    for write in [0, 1] {
                        self.found.push(Move::Operation(number, operation(Some(write)), run));
                    }
                }
            }
            for (parent, above, _) in Self::nodes(thread) {
                if !above.key.is_proper_ancestor_of(leaf) {
                    continue;
                }
                let absent = Entry::RunAbsent { parent };
                if !is_right(0) {
                    self.found.push(Move::Operation(number, operation(None), absent));
                    self.found.push(Move::Operation(number, operation(Some(0)), absent));
                }
                if self.tries("run_absent_changes_nothing") {
                    self.found.push(Move::Operation(number, operation(Some(1)), absent));
                }
            }
        }
    }

    fn slots_to_run(&self, thread: &Thread, slot: u32) -> Vec<Slots> {
        let mut named = std::vec![Slots::new(&[slot])];
        if self.tries("run_slot_for_each_key") {
            named.extend(occupied(thread).map(|(other, _)| Slots::new(&[slot, other])));
        }
        named.into_iter().flatten().collect()
    }
}

/// What was evicted and not added, in both epochs.
fn outstanding(state: &State) -> Vec<Atom> {
    let both = state.open.outstanding().chain(state.next.outstanding());
    both.copied().collect()
}

fn occupied(thread: &Thread) -> impl Iterator<Item = (u32, &Record)> {
    let records = thread.records.iter().enumerate().take(SLOTS);
    records.filter_map(|(slot, record)| Some((slot as u32, record.as_ref()?)))
}
