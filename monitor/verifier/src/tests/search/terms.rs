//! Ideal cryptography without state: a hash is the value itself, packed into 32 bytes, and a sum is the list of its elements.
//!
//! So equal hashes are equal values, a hash can be turned back into the only value that has it, and states can be stored and compared.

use std::vec::Vec;

use crate::codec::Sink;
use crate::crypto::{Crypto, Element, Mac, MacKey};
use crate::key::Key;
use crate::request::MacDomain;
use crate::time::Timestamp;
use crate::value::{Child, Commitment, Hash, NO_HASH, Node, Value};

/// First byte of a packed node; a leaf's is the number of its value.
const NODE: u8 = 16;
const SIDE_EMPTY: u8 = 0;
const SIDE_IN_BLUM: u8 = 1;
const SIDE_HASHED: u8 = 2;

/// A key as one number: a one, then its path.
pub fn key_number(key: &Key) -> u8 {
    assert!(key.depth() < 8, "small trees only");
    let path = u16::from(key.bits()[0]) >> (8 - key.depth());
    1 << key.depth() | path as u8
}

pub fn key_of(number: u8) -> Key {
    let depth = 7 - number.leading_zeros() as u16;
    let mut bits = [0; 32];
    bits[0] = (u16::from(number) << (8 - depth)) as u8;
    Key::prefix(bits, depth)
}

/// The value of a leaf, by its number: 0 is null.
pub fn commitment_of(number: u8) -> Commitment {
    if number == 0 {
        Commitment::Null
    } else {
        Commitment::of(&[number])
    }
}

pub fn commitment_number(commitment: &Commitment) -> u8 {
    match commitment {
        Commitment::Null => 0,
        Commitment::Inline(inline) => inline.as_slice()[0],
        Commitment::Digest(..) => panic!("small values only"),
    }
}

/// Append a value; no value's encoding is the beginning of another's.
pub fn write_value(value: &Value, out: &mut impl Sink) {
    match value {
        Value::Leaf(commitment) => out.put(&[commitment_number(commitment)]),
        Value::Node(node) => {
            out.put(&[NODE]);
            for side in &node.sides {
                match side {
                    None => out.put(&[SIDE_EMPTY]),
                    Some(Child { key, hash: None }) => out.put(&[SIDE_IN_BLUM, key_number(key)]),
                    Some(Child { key, hash: Some(hash) }) => {
                        out.put(&[SIDE_HASHED, key_number(key)]);
                        out.put(packed(hash));
                    }
                }
            }
        }
    }
}

/// The bytes of a hash that matter: their number, and the value.
pub fn packed(hash: &Hash) -> &[u8] {
    &hash[..=usize::from(hash[0])]
}

/// Read a value.
pub fn read_value(bytes: &mut &[u8]) -> Value {
    match next(bytes) {
        NODE => {
            let mut side = || match next(bytes) {
                SIDE_EMPTY => None,
                state => {
                    let key = key_of(next(bytes));
                    let hash = (state == SIDE_HASHED).then(|| read_hash(bytes));
                    Some(Child { key, hash })
                }
            };
            Value::Node(Node {
                sides: [side(), side()],
            })
        }
        number => Value::Leaf(commitment_of(number)),
    }
}

pub fn read_hash(bytes: &mut &[u8]) -> Hash {
    let mut hash = NO_HASH;
    hash[0] = next(bytes);
    let (value, rest) = bytes.split_at(usize::from(hash[0]));
    hash[1..=value.len()].copy_from_slice(value);
    *bytes = rest;
    hash
}

pub fn next(bytes: &mut &[u8]) -> u8 {
    let (first, rest) = bytes.split_first().expect("a byte");
    *bytes = rest;
    *first
}

/// Into a hash.
struct Packer(Hash);

impl Sink for Packer {
    fn put(&mut self, bytes: &[u8]) {
        let start = 1 + usize::from(self.0[0]);
        let place = self.0.get_mut(start..start + bytes.len());
        place.expect("values of small trees fit").copy_from_slice(bytes);
        self.0[0] += bytes.len() as u8;
    }
}

/// The hash of a value.
pub fn hash_of_value(value: &Value) -> Hash {
    let mut packer = Packer(NO_HASH);
    write_value(value, &mut packer);
    packer.0
}

/// The only value with this hash; `None` for [`NO_HASH`].
pub fn value_of_hash(hash: &Hash) -> Option<Value> {
    (*hash != NO_HASH).then(|| read_value(&mut &hash[1..]))
}

/// An element of a multiset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Atom {
    pub ts: Timestamp,
    pub thread: u16,
    pub key: u8,
    pub value: Hash,
}

/// `sums_hold`: whether the sums are compared, or the aggregator is told that they are equal.
#[derive(Clone, Copy)]
pub struct Terms {
    pub sums_hold: bool,
}

impl Crypto for Terms {
    type Sum = Vec<Atom>;

    fn hash(&self, value: &Value) -> Hash {
        hash_of_value(value)
    }

    fn prepare_epoch(&mut self, _epoch: u32) {}

    fn add_element(&self, epoch: u32, sum: &mut Vec<Atom>, element: &Element<'_>) {
        assert_eq!(
            epoch, element.ts.epoch,
            "an element is added under the keys of its epoch"
        );
        sum.push(Atom {
            ts: element.ts,
            thread: element.thread,
            key: key_number(element.key),
            value: hash_of_value(element.value),
        });
    }

    fn merge(&self, sum: &mut Vec<Atom>, other: &Vec<Atom>) {
        sum.extend_from_slice(other);
    }

    fn equal(&self, a: &Vec<Atom>, b: &Vec<Atom>) -> bool {
        let sorted = |sum: &Vec<Atom>| {
            let mut sum = sum.clone();
            sum.sort_unstable();
            sum
        };
        !self.sums_hold || sorted(a) == sorted(b)
    }

    fn mac(&self, _key: &MacKey, _domain: MacDomain, _parts: &[&[u8]]) -> Mac {
        [0; 16]
    }

    fn mac_is(&self, _key: &MacKey, _domain: MacDomain, _parts: &[&[u8]], _mac: &Mac) -> bool {
        true
    }
}
