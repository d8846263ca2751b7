//! The real cryptography, and the attacks that a linear hash would let pass.

use std::collections::BTreeSet;
use std::vec::Vec;

use super::*;
use crate::entry::ThreadId;
use crate::key::Key;
use crate::tests::symbolic::SymbolicCrypto;
use crate::tests::world::{Log, World, key, leaf, ts};
use crate::time::Timestamp;
use crate::value::{Inline, Node};
use crate::violation::ViolationCode;

const SECRET: [u8; 32] = [9; 32];

fn child(path: &str, hash: Option<Hash>) -> Option<Child> {
    let key = key(path);
    Some(Child { key, hash })
}

/// Values that are easily taken for each other.
fn values() -> Vec<Value> {
    let zeros = [0; 32];
    let inline = |bytes: &[u8]| Commitment::Inline(Inline::new(bytes).expect("at most 32 bytes"));
    let digest = |length, digest| Commitment::Digest(length, digest);
    let leaves = [
        Commitment::Null,
        inline(b""),
        inline(&[0]),
        inline(&[0, 0]),
        inline(&zeros),
        inline(&[1; 32]),
        digest(33, zeros),
        digest(34, zeros),
        digest(33, [1; 32]),
    ];
    let mut values: Vec<_> = leaves.into_iter().map(Value::Leaf).collect();
    let mut sides = std::vec![None];
    for (path, other) in [("0", "1"), ("00", "10"), ("000", "100")] {
        for hash in [None, Some(zeros), Some([1; 32])] {
            sides.push(child(path, hash));
            sides.push(child(other, hash));
        }
    }
    for left in &sides {
        values.extend(sides.iter().map(|right| Value::Node(Node { sides: [*left, *right] })));
    }
    values
}

#[test]
fn merkle_hashes_are_of_the_encoding() {
    let crypto = StandardCrypto::new(SECRET);
    let mut distinct = BTreeSet::new();
    for value in values() {
        let mut encoding = Vec::new();
        value.encode(&mut encoding);
        assert!(encoding.len() <= Value::ENCODED_BYTES_MAX);
        let expected = blake3::keyed_hash(b"zetakv/1 merkle\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", &encoding);
        assert_eq!(crypto.hash(&value), *expected.as_bytes());
        assert!(distinct.insert(crypto.hash(&value)), "{value:?}");
    }
}

#[test]
fn elements_are_encoded_injectively() {
    let mut distinct = BTreeSet::new();
    let keys = ["", "0", "1", "00", "000", "100"].map(key);
    for value in values() {
        for key in &keys {
            for ts in [ts(1, 0), ts(0, 1), ts(1, 1), ts(1 << 8, 0), ts(0, 1 << 8)] {
                for thread in [0, 1, 63] {
                    let element = Element {
                        key,
                        value: &value,
                        ts,
                        thread,
                    };
                    let mut out = [0; NODE_BYTES];
                    let length = encode(&element, &mut out);
                    assert_eq!(length, if value.is_leaf() { LEAF_BYTES } else { NODE_BYTES });
                    assert_eq!(out[length..], std::vec![0; NODE_BYTES - length]);
                    assert_ne!(out[..16], [0; 16], "the first block is never zero");
                    assert!(distinct.insert(out[..length].to_vec()), "{element:?}");
                }
            }
        }
    }
}

/// Computed by an independent implementation (POLYVAL from RFC 8452 in Python integers, AES of OpenSSL, BLAKE3 of its Python package).
#[test]
fn element_hashes_are_as_documented() {
    let mut crypto = StandardCrypto::new(SECRET);
    crypto.prepare_epoch(7);
    let full = Key::leaf([0xa5; 32]);
    let node = Value::Node(Node {
        sides: [
            Some(Child {
                key: Key::prefix([0x3c; 32], 9),
                hash: Some([7; 32]),
            }),
            Some(Child {
                key: Key::prefix([0x3e; 32], 11),
                hash: None,
            }),
        ],
    });
    let cases: [(u32, Key, Value, Timestamp, ThreadId, &str); 3] = [
        (7, full, leaf("value"), ts(7, 3), 2, "54c33d1d75e9ff5ce5f8206e3830d3c1"),
        (
            8,
            full,
            Value::Leaf(Commitment::of(&[1; 100])),
            ts(8, 0),
            63,
            "f8298ad830be512afa907818fe62b432",
        ),
        (
            7,
            Key::prefix([0x3c; 32], 6),
            node,
            ts(7, u32::MAX),
            0,
            "69d56ee212b582e26125b77606bf0c13",
        ),
    ];
    for (epoch, key, value, ts, thread, expected) in cases {
        let element = Element {
            key: &key,
            value: &value,
            ts,
            thread,
        };
        let mut sum = Sum::default();
        crypto.add_element(epoch, &mut sum, &element);
        let hex: std::string::String = sum.to_bytes().iter().map(|byte| std::format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}

#[test]
fn sums_do_not_depend_on_the_order_and_count_repetitions() {
    let mut crypto = StandardCrypto::new(SECRET);
    crypto.prepare_epoch(1);
    let key = key("000");
    let values = values();
    let sum = |indices: &[usize]| {
        let mut sum = Sum::default();
        for index in indices {
            let element = Element {
                key: &key,
                value: &values[*index],
                ts: ts(1, 1),
                thread: 0,
            };
            crypto.add_element(1, &mut sum, &element);
        }
        sum
    };
    assert!(crypto.equal(&sum(&[0, 1, 2]), &sum(&[2, 0, 1])));
    assert!(
        !crypto.equal(&sum(&[0, 0]), &sum(&[])),
        "an exclusive or would forget both"
    );
    assert!(!crypto.equal(&sum(&[0, 0, 1]), &sum(&[0, 1, 1])));
    let mut merged = sum(&[0, 5]);
    crypto.merge(&mut merged, &sum(&[3]));
    assert!(crypto.equal(&merged, &sum(&[0, 3, 5])));
    assert!(crypto.equal(&Sum::from_bytes(merged.to_bytes()), &merged));
}

#[test]
fn epochs_and_instances_have_keys_of_their_own() {
    let (key, value) = (key("000"), leaf("a"));
    let element = Element {
        key: &key,
        value: &value,
        ts: ts(1, 1),
        thread: 0,
    };
    let mut distinct = BTreeSet::new();
    for secret in [[1; 32], [2; 32]] {
        let mut crypto = StandardCrypto::new(secret);
        for epoch in [1, 2, 3] {
            let (mut open, mut next) = (Sum::default(), Sum::default());
            crypto.prepare_epoch(epoch);
            crypto.add_element(epoch, &mut open, &element);
            crypto.add_element(epoch + 1, &mut next, &element);
            distinct.extend([open.to_bytes(), next.to_bytes()]);
        }
    }
    assert_eq!(
        distinct.len(),
        2 * 4,
        "the same for an epoch, whether it is open or next"
    );
}

#[test]
fn macs_cover_parts_and_domain() {
    let crypto = StandardCrypto::new(SECRET);
    let mac = crypto.mac(&[1; 32], MacDomain::Request, &[b"ab", b"c"]);
    let expected = blake3::keyed_hash(&[1; 32], b"abcQ");
    assert_eq!(mac, expected.as_bytes()[..16]);
    assert!(crypto.mac_is(&[1; 32], MacDomain::Request, &[b"a", b"bc"], &mac));
    assert!(!crypto.mac_is(&[1; 32], MacDomain::Receipt, &[b"abc"], &mac));
    assert!(!crypto.mac_is(&[2; 32], MacDomain::Request, &[b"abc"], &mac));
    for index in 0..MAC_BYTES {
        let mut wrong = mac;
        wrong[index] ^= 0x80;
        assert!(!crypto.mac_is(&[1; 32], MacDomain::Request, &[b"abc"], &wrong));
    }
}

/// Symbolic but for the multiset hash, which is linear: the exclusive or of bare POLYVALs.
#[derive(Clone, Default)]
struct LinearCrypto(SymbolicCrypto);

impl Crypto for LinearCrypto {
    type Sum = u128;

    fn hash(&self, value: &Value) -> Hash {
        self.0.hash(value)
    }

    fn prepare_epoch(&mut self, _epoch: u32) {}

    fn add_element(&self, epoch: u32, sum: &mut u128, element: &Element<'_>) {
        let mut encoding = [0; NODE_BYTES];
        let length = encode(element, &mut encoding);
        let mut polyval = EpochKeys::derive(&SECRET, epoch).polyval;
        polyval.update_padded(&encoding[..length]);
        *sum ^= u128::from_le_bytes(polyval.finalize().into());
    }

    fn merge(&self, sum: &mut u128, other: &u128) {
        *sum ^= *other;
    }

    fn equal(&self, a: &u128, b: &u128) -> bool {
        a == b
    }

    fn mac(&self, key: &MacKey, domain: MacDomain, parts: &[&[u8]]) -> Mac {
        self.0.mac(key, domain, parts)
    }

    fn mac_is(&self, key: &MacKey, domain: MacDomain, parts: &[&[u8]], mac: &Mac) -> bool {
        self.0.mac_is(key, domain, parts, mac)
    }
}

/// Two records with "Alice" and "Bobby" go to Blum at 1:5 and 1:6, and come back with these values: whether the epoch holds.
fn holds_with<C: Crypto>(crypto: impl Fn() -> C, first: &str, second: &str) -> bool {
    let mut world = World::new(1, crypto);
    world.two_in_blum("Alice", "Bobby");
    let back = Log::new()
        .add_blum(1, "000", leaf(first), ts(1, 5), 0)
        .add_blum(2, "100", leaf(second), ts(1, 6), 0);
    world.accepted(0, back);
    world.accepted(0, Log::new().evict_blum(1, ts(1, 8)).evict_blum(2, ts(1, 9)));
    let carried = Log::new()
        .carry_over("000", leaf(first), ts(1, 8), 0)
        .carry_over("100", leaf(second), ts(1, 9), 0);
    match world.close(0, carried) {
        Ok(held) => held.is_some(),
        Err(violation) => {
            assert_eq!(violation.code, ViolationCode::EpochMismatch);
            false
        }
    }
}

/// Both values with one bit changed, the same in both.
const CHANGED: (&str, &str) = ("alice", "bobby");
const SWAPPED: (&str, &str) = ("Bobby", "Alice");

#[test]
fn differences_that_cancel_do_not_hold() {
    let crypto = || StandardCrypto::new(SECRET);
    assert!(holds_with(crypto, "Alice", "Bobby"));
    assert!(!holds_with(crypto, SWAPPED.0, SWAPPED.1));
    assert!(!holds_with(crypto, CHANGED.0, CHANGED.1));
}

#[test]
fn differences_that_cancel_would_fool_a_linear_hash() {
    assert!(holds_with(LinearCrypto::default, "Alice", "Bobby"));
    assert!(holds_with(LinearCrypto::default, SWAPPED.0, SWAPPED.1));
    assert!(holds_with(LinearCrypto::default, CHANGED.0, CHANGED.1));
    assert!(
        !holds_with(LinearCrypto::default, "alice", "Bobby"),
        "others it refuses"
    );
}
