//! A state of the search: all that matters of a monitor, its sealed states, and what clients were told, in a canonical form.
//!
//! What is the same for all that can still happen is the same state:
//! - *Slots.* Which slots records are in does not matter, but for slot 0, where `Cache::root` looks for the root. So the root alone is kept
//!   in slot 0, and the others are sorted.
//! - *Epochs.* A verifier only compares epochs and adds one; so they are counted from the certified one, which is 0. (It ends at 2^32; a
//!   scenario of `checks_of_epochs` is about that.)
//! - *Sums.* The aggregator compares the sums of all threads, added up. So what matters of an epoch is the difference between what was added
//!   and what was evicted, by all threads together. What is carried over is evicted in the next epoch, as soon as it is carried over.
//! - *Published clocks* are the threads' clocks; `steps` asserts it.

use std::vec::Vec;

use super::terms::{Atom, hash_of_value, key_number, key_of, next, packed, read_hash, read_value, write_value};
use crate::cache::Record;
use crate::epochs::Moment;
use crate::key::Key;
use crate::time::Timestamp;
use crate::value::{Hash, Node, Value};

/// Slots of each thread, slot 0 for the root only.
pub const SLOTS: usize = 6;
/// Leaves at the most.
pub const LEAVES_MAX: usize = 4;
/// Epochs whose registers are kept: the certified one, the one that is certified next, the one after it, and one that no thread can reach.
pub const EPOCHS: usize = 4;

pub type Slots = [Option<Record>; SLOTS];

/// For each leaf the number of the value that the last write in real time wrote.
pub type Registers = [u8; LEAVES_MAX];

/// Elements, and how much more often each was added than evicted; sorted, none 0 times.
#[derive(Clone, Default, PartialEq)]
pub struct Pool(pub Vec<(Atom, i8)>);

impl Pool {
    pub fn count(&mut self, atom: &Atom, difference: i8) {
        match self.0.binary_search_by(|(other, _)| other.cmp(atom)) {
            Ok(index) => {
                self.0[index].1 += difference;
                if self.0[index].1 == 0 {
                    self.0.remove(index);
                }
            }
            Err(index) => self.0.insert(index, (*atom, difference)),
        }
    }

    pub fn count_all(&mut self, atoms: &[Atom], difference: i8) {
        for atom in atoms {
            self.count(atom, difference);
        }
    }

    /// Those that were added more often (sign 1) or evicted more often (sign -1), each as often.
    pub fn atoms(&self, sign: i8) -> Vec<Atom> {
        let of_sign = self.0.iter().filter(|(_, count)| count.signum() == sign);
        of_sign
            .flat_map(|(atom, count)| core::iter::repeat_n(*atom, usize::from(count.unsigned_abs())))
            .collect()
    }

    /// What was evicted and not added.
    pub fn outstanding(&self) -> impl Iterator<Item = &Atom> {
        self.0.iter().filter(|(_, count)| *count < 0).map(|(atom, _)| atom)
    }
}

/// A sealed state.
#[derive(Clone, PartialEq)]
pub struct Sealed {
    pub root: Node,
    /// What is in Blum.
    pub carried: Vec<Atom>,
}

#[derive(Clone)]
pub struct Thread {
    pub moment: Moment,
    /// Whether it has handed over the epoch that is certified next.
    pub handed_over: bool,
    pub records: Slots,
    /// As the cache has counted; with all checks the number of records.
    pub occupied: usize,
}

impl Thread {
    /// Whether it has not come to its `next_epoch`: so what it evicts is of the epoch that is certified next.
    pub const fn is_before_cut(&self) -> bool {
        !self.moment.is_closing && !self.handed_over
    }
}

#[derive(Clone)]
pub struct State {
    pub threads: Vec<Thread>,
    /// Of the epoch that is certified next.
    pub open: Pool,
    /// Of the epoch after it.
    pub next: Pool,
    /// What was carried over from the one to the other, sorted.
    pub carried: Vec<Atom>,
    /// The root as it was at thread 0's `next_epoch`, until the epoch is sealed.
    pub root_at_cut: Option<Node>,
    /// What the register holds.
    pub certified: Sealed,
    /// What has been sealed since, and is not certified.
    pub sealed: Option<Sealed>,
    /// What reads must return if the operations of all epochs up to this one are certified, and those after it lost.
    pub registers: [Registers; EPOCHS],
    /// Whether something was read that is wrong if all epochs up to this one are certified.
    pub wrong: [bool; EPOCHS],
}

impl State {
    /// Sort the records, and say for each thread and new slot which slot it was.
    pub fn sort(&mut self) -> Vec<[u8; SLOTS]> {
        self.threads
            .iter_mut()
            .map(|thread| sort_slots(&mut thread.records))
            .collect()
    }

    /// Without crashes nobody starts from a sealed state, so they need not be told apart.
    pub fn forget_sealed(&mut self) {
        let nothing = Sealed {
            root: Node::default(),
            carried: Vec::new(),
        };
        if self.sealed.is_some() {
            self.sealed = Some(nothing.clone());
        }
        self.root_at_cut = self.root_at_cut.map(|_| Node::default());
        self.certified = nothing;
        self.registers[0] = self.registers[1];
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        let wrong = self.wrong.iter().fold(0, |bits, wrong| bits << 1 | u8::from(*wrong));
        let root_at_cut = u8::from(self.root_at_cut.is_some());
        let sealed = u8::from(self.sealed.is_some());
        out.push(wrong | root_at_cut << 6 | sealed << 7);
        for registers in &self.registers {
            out.push(registers.iter().fold(0, |bits, value| bits << 2 | value));
        }
        for thread in &self.threads {
            encode_thread(thread, out);
        }
        for pool in [&self.open, &self.next] {
            out.push(pool.0.len() as u8);
            for (atom, count) in &pool.0 {
                encode_atom(atom, out);
                out.push(count.cast_unsigned());
            }
        }
        encode_atoms(&self.carried, out);
        if let Some(root) = self.root_at_cut {
            write_value(&Value::Node(root), out);
        }
        encode_sealed(&self.certified, out);
        if let Some(sealed) = &self.sealed {
            encode_sealed(sealed, out);
        }
    }

    pub fn decode(mut bytes: &[u8], threads: usize) -> Self {
        let bytes = &mut bytes;
        let flags = next(bytes);
        let wrong = core::array::from_fn(|epoch| flags >> (EPOCHS - 1 - epoch) & 1 == 1);
        let registers = core::array::from_fn(|_| {
            let bits = next(bytes);
            core::array::from_fn(|leaf| bits >> (2 * (LEAVES_MAX - 1 - leaf)) & 3)
        });
        let threads = (0..threads).map(|_| decode_thread(bytes)).collect();
        let [open, next_pool] = core::array::from_fn(|_| {
            let count = next(bytes);
            Pool(
                (0..count)
                    .map(|_| (decode_atom(bytes), next(bytes).cast_signed()))
                    .collect(),
            )
        });
        Self {
            threads,
            open,
            next: next_pool,
            carried: decode_atoms(bytes),
            root_at_cut: (flags >> 6 & 1 == 1).then(|| decode_node(bytes)),
            certified: decode_sealed(bytes),
            sealed: (flags >> 7 == 1).then(|| decode_sealed(bytes)),
            registers,
            wrong,
        }
    }
}

fn sort_slots(records: &mut Slots) -> [u8; SLOTS] {
    let mut order: [(u8, Hash, bool, u8); SLOTS] = core::array::from_fn(|slot| match &records[slot] {
        Some(record) if slot > 0 => {
            let from_merkle = record.parent.is_some();
            (
                key_number(&record.key),
                hash_of_value(&record.value),
                from_merkle,
                slot as u8,
            )
        }
        _ => (u8::MAX, [0; 32], false, slot as u8),
    });
    order[1..].sort_unstable();
    let before = order.map(|(.., slot)| slot);
    if before.is_sorted() {
        return before;
    }
    let mut after = [0; SLOTS];
    for (slot, before) in before.iter().enumerate() {
        after[usize::from(*before)] = slot as u32;
    }
    let moved = |slot: Option<u32>| slot.map(|slot| after[slot as usize]);
    *records = before.map(|slot| {
        records[usize::from(slot)].map(|record| {
            Record::frozen(
                record.key,
                record.value,
                moved(record.parent),
                record.linked().map(moved),
                record.hash_is_current(),
            )
        })
    });
    before
}

/// 0 for none.
fn encode_slot(slot: Option<u32>) -> u8 {
    slot.map_or(0, |slot| slot as u8 + 1)
}

fn decode_slot(byte: u8) -> Option<u32> {
    byte.checked_sub(1).map(u32::from)
}

fn encode_time(ts: Timestamp, out: &mut Vec<u8>) {
    out.push(u8::try_from(ts.epoch << 5 | ts.counter).expect("small epochs and counters"));
}

fn decode_time(byte: u8) -> Timestamp {
    Timestamp::new(u32::from(byte >> 5), u32::from(byte & 31))
}

fn encode_thread(thread: &Thread, out: &mut Vec<u8>) {
    let moment = &thread.moment;
    encode_time(moment.clock, out);
    let occupied = thread.records.iter().flatten().count();
    let flags = [moment.is_closing, thread.handed_over, thread.records[0].is_some()];
    let flags = flags.into_iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(flag));
    out.push(flags | (occupied as u8) << 5);
    out.push(thread.occupied as u8);
    for record in thread.records.iter().flatten() {
        out.push(key_number(&record.key));
        let links = record.linked().map(encode_slot);
        out.push(encode_slot(record.parent) | links[0] << 4);
        out.push(links[1] | u8::from(record.hash_is_current()) << 7);
        write_value(&record.value, out);
    }
}

fn decode_thread(bytes: &mut &[u8]) -> Thread {
    let clock = decode_time(next(bytes));
    let flags = next(bytes);
    let occupied_as_counted = usize::from(next(bytes));
    let first = usize::from(flags >> 2 & 1 == 0);
    let mut records = [None; SLOTS];
    for record in records.iter_mut().skip(first).take(usize::from(flags >> 5)) {
        let key = key_of(next(bytes));
        let links = [next(bytes), next(bytes)];
        let linked = [decode_slot(links[0] >> 4), decode_slot(links[1] & 127)];
        *record = Some(Record::frozen(
            key,
            read_value(bytes),
            decode_slot(links[0] & 15),
            linked,
            links[1] >> 7 == 1,
        ));
    }
    Thread {
        moment: Moment {
            clock,
            is_closing: flags & 1 == 1,
        },
        handed_over: flags >> 1 & 1 == 1,
        records,
        occupied: occupied_as_counted,
    }
}

fn encode_atom(atom: &Atom, out: &mut Vec<u8>) {
    encode_time(atom.ts, out);
    out.push(atom.key);
    out.push(atom.thread as u8);
    out.extend_from_slice(packed(&atom.value));
}

fn decode_atom(bytes: &mut &[u8]) -> Atom {
    Atom {
        ts: decode_time(next(bytes)),
        key: next(bytes),
        thread: u16::from(next(bytes)),
        value: read_hash(bytes),
    }
}

fn encode_atoms(atoms: &[Atom], out: &mut Vec<u8>) {
    out.push(atoms.len() as u8);
    for atom in atoms {
        encode_atom(atom, out);
    }
}

fn decode_atoms(bytes: &mut &[u8]) -> Vec<Atom> {
    let count = next(bytes);
    (0..count).map(|_| decode_atom(bytes)).collect()
}

pub fn encode_sealed(sealed: &Sealed, out: &mut Vec<u8>) {
    write_value(&Value::Node(sealed.root), out);
    encode_atoms(&sealed.carried, out);
}

fn decode_sealed(bytes: &mut &[u8]) -> Sealed {
    Sealed {
        root: decode_node(bytes),
        carried: decode_atoms(bytes),
    }
}

fn decode_node(bytes: &mut &[u8]) -> Node {
    match read_value(bytes) {
        Value::Node(node) => node,
        Value::Leaf(_) => unreachable!("a root is a node"),
    }
}

/// What a record's key is called in a printed log.
pub fn path(key: &Key) -> std::string::String {
    if key.is_root() {
        return "root".into();
    }
    let bit = |index: u16| {
        if key.bits()[usize::from(index / 8)] >> (7 - index % 8) & 1 == 0 {
            '0'
        } else {
            '1'
        }
    };
    (0..key.depth()).map(bit).collect()
}
