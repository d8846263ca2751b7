//! The cryptography of a real monitor: BLAKE3 for Merkle hashes and MACs, AES-256 over POLYVAL for the multiset hash.
//!
//! # The multiset hash
//! H(S) = Σ F(x) mod 2^128 over the elements x of S, each as often as it is in S, with F(x) = AES-256_k2(POLYVAL_k1(encode(x))). The keys k1
//! and k2 are independent, belong to one epoch, and no output of F and no sum ever leaves the monitor unsealed. Let the multisets of what
//! was added and evicted in an epoch differ, d be the number of distinct elements in them, and q the largest multiplicity. Then their hashes
//! are equal with probability at most
//!
//! > 12 (d − 1) / 2^128  +  q / (2^128 − d)  +  the advantage of telling AES-256 from a random permutation.
//!
//! 1. *The encoding is injective*, in blocks of 16 bytes: `encode` writes every field at a fixed place, the first byte says which fields
//!    there are, and what is unused is zero. The first block is never zero.
//! 2. *POLYVAL rarely collides.* It is a polynomial in k1 with the blocks as coefficients and no constant term. For two different
//!    elements the difference is a polynomial of degree at most 12 that is not zero: where the lengths differ, because the first block
//!    of the longer is its leading coefficient. So they collide for at most 12 of 2^128 keys.
//! 3. *Differences do not cancel.* Take an element x whose multiplicities differ, by c, 0 < |c| ≤ q. By 2 it collides with none of the d − 1
//!    others, but with probability 12 (d − 1) / 2^128. Then the difference of the sums is c·F(x) plus terms of other inputs of
//!    the permutation. Given those, F(x) is one of more than 2^128 − d values, all equally likely, of which at most gcd(c, 2^128) ≤ q make
//!    the difference zero.
//!
//! The host does not see F, so it cannot choose elements after outputs: no birthday bound enters. Each attempt to pass an epoch counts once, and the
//! bounds of attempts add up. A linear F (a bare POLYVAL, or GHASH under XOR) would fail at 3: differences that cancel are easily made.

use aes::Aes256Enc;
use aes::cipher::{BlockEncrypt, Key, KeyInit};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::clocks::THREADS_MAX;
use crate::codec::Sink;
use crate::crypto::{Crypto, Element, Mac, MacKey};
use crate::request::{MAC_BYTES, MacDomain};
use crate::value::{Child, Commitment, Hash, Value};

/// The key of BLAKE3's keyed mode that stands for a domain: its name, padded with zeros.
///
/// # Panics
/// If the name is longer than 32 bytes; at compile time, for constants.
pub const fn domain_key(name: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.split_at_mut(name.len()).0.copy_from_slice(name.as_bytes());
    key
}

const MERKLE_KEY: [u8; 32] = domain_key("zetakv/1 merkle");
const MULTISET_CONTEXT: &[u8] = b"zetakv/1 multiset";

/// A multiset hash. Secret: it is not printed, and erased from memory when it is done with.
#[derive(Clone, Default)]
pub struct Sum(u128);

impl Sum {
    /// For the sealed state.
    pub const fn to_bytes(&self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// From the sealed state.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

impl Drop for Sum {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The keys of one epoch's multisets. Both parts erase themselves.
struct EpochKeys {
    epoch: u32,
    polyval: Polyval,
    aes: Aes256Enc,
}

impl EpochKeys {
    fn derive(multiset_secret: &[u8; 32], epoch: u32) -> Self {
        let mut keys = Zeroizing::new([0; 16 + 32]);
        blake3::Hasher::new_keyed(multiset_secret)
            .update(MULTISET_CONTEXT)
            .update(&epoch.to_le_bytes())
            .finalize_xof()
            .fill(&mut *keys);
        let (k1, k2) = keys.split_at(16);
        let mut polyval_key = polyval::Key::default();
        polyval_key.copy_from_slice(k1);
        let derived = Self {
            epoch,
            polyval: Polyval::new(&polyval_key),
            aes: Aes256Enc::new(Key::<Aes256Enc>::from_slice(k2)),
        };
        polyval_key.zeroize();
        derived
    }
}

/// The cryptography of one thread.
pub struct StandardCrypto {
    multiset_secret: Zeroizing<[u8; 32]>,
    /// Of the epoch after the last that was handed over, and of the next one; once there is one.
    keys: Option<[EpochKeys; 2]>,
}

impl StandardCrypto {
    /// `multiset_secret` belongs to the instance, and never leaves the monitor unsealed.
    pub fn new(multiset_secret: [u8; 32]) -> Self {
        Self {
            multiset_secret: Zeroizing::new(multiset_secret),
            keys: None,
        }
    }

    fn element_hash(&self, epoch: u32, element: &Element<'_>) -> u128 {
        let keys = self.keys.iter().flatten().find(|keys| keys.epoch == epoch);
        // better to stop than to go on under another key
        let keys = keys.expect(
            "a thread adds, evicts and carries over only in the epoch after the last that it handed over, and the next",
        );
        let mut encoding = [0; NODE_BYTES];
        let length = encode(element, &mut encoding);
        let mut polyval = keys.polyval.clone();
        polyval.update_padded(&encoding[..length]);
        let mut block = aes::Block::from(<[u8; 16]>::from(polyval.finalize()));
        keys.aes.encrypt_block(&mut block);
        u128::from_le_bytes(block.into())
    }
}

impl Crypto for StandardCrypto {
    type Sum = Sum;

    fn hash(&self, value: &Value) -> Hash {
        let mut encoding = Encoding::default();
        value.encode(&mut encoding);
        *blake3::keyed_hash(&MERKLE_KEY, &encoding.bytes[..encoding.length]).as_bytes()
    }

    fn prepare_epoch(&mut self, epoch: u32) {
        let derive = |epoch| EpochKeys::derive(&self.multiset_secret, epoch);
        // where there is no next epoch, none of its keys is ever asked for
        self.keys = Some([derive(epoch), derive(epoch.saturating_add(1))]);
    }

    fn add_element(&self, epoch: u32, sum: &mut Sum, element: &Element<'_>) {
        sum.0 = sum.0.wrapping_add(self.element_hash(epoch, element));
    }

    fn merge(&self, sum: &mut Sum, other: &Sum) {
        sum.0 = sum.0.wrapping_add(other.0);
    }

    fn equal(&self, a: &Sum, b: &Sum) -> bool {
        a.0.to_le_bytes().ct_eq(&b.0.to_le_bytes()).into()
    }

    fn mac(&self, key: &MacKey, domain: MacDomain, parts: &[&[u8]]) -> Mac {
        mac(key, domain, parts)
    }

    fn mac_is(&self, key: &MacKey, domain: MacDomain, parts: &[&[u8]], mac: &Mac) -> bool {
        self.mac(key, domain, parts).ct_eq(mac).into()
    }
}

/// The first 16 bytes of keyed BLAKE3 over the parts and the domain.
pub fn mac(key: &MacKey, domain: MacDomain, parts: &[&[u8]]) -> Mac {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    hasher.update(&[domain as u8]);
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&hasher.finalize().as_bytes()[..MAC_BYTES]);
    mac
}

/// A value's encoding, on the stack.
struct Encoding {
    bytes: [u8; Value::ENCODED_BYTES_MAX],
    length: usize,
}

impl Default for Encoding {
    fn default() -> Self {
        Self {
            bytes: [0; Value::ENCODED_BYTES_MAX],
            length: 0,
        }
    }
}

impl Sink for Encoding {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }
}

/// Bytes of an encoded element that is a leaf: 5 blocks.
const LEAF_BYTES: usize = 80;
/// Bytes of an encoded element that is an internal node: 12 blocks.
const NODE_BYTES: usize = 192;
const _: () = assert!(THREADS_MAX <= 256, "a thread is encoded in one byte");

/// Encode an element for the multiset hash into zeroed bytes, and return how many it takes.
///
/// | bytes | |
/// |---|---|
/// | 0 | 1 null, 2 inline, 3 digest, 4 internal node |
/// | 1 | thread |
/// | 2–3, 16–47 | depth and bits of the key |
/// | 4–7 | length of an inline value or of one that has a digest; else 0 |
/// | 8–15 | timestamp |
/// | 48–79 | of a leaf: the inline value, padded with zeros, or the digest |
/// | 48–111, 112–175 | of a node: bits of the key, and hash (if proved by it), of the left and of the right side |
/// | 176–183, 184–191 | of a node: of the left and of the right side, 0 none, 1 proved by hash, 2 in Blum; depth at 2–3 |
fn encode(element: &Element<'_>, out: &mut [u8; NODE_BYTES]) -> usize {
    let (tag, length) = match element.value {
        Value::Leaf(Commitment::Null) => (1, 0),
        Value::Leaf(Commitment::Inline(inline)) => {
            out[48..80].copy_from_slice(inline.padded());
            (2, inline.as_slice().len() as u32) // at most 32
        }
        Value::Leaf(Commitment::Digest(length, digest)) => {
            out[48..80].copy_from_slice(digest);
            (3, *length)
        }
        Value::Node(node) => {
            for (side, child) in node.sides.iter().enumerate() {
                if let Some(Child { key, hash }) = child {
                    let (data, trailer) = (48 + 64 * side, 176 + 8 * side);
                    out[data..data + 32].copy_from_slice(key.bits());
                    out[trailer] = match hash {
                        Some(hash) => {
                            out[data + 32..data + 64].copy_from_slice(hash);
                            1
                        }
                        None => 2,
                    };
                    out[trailer + 2..trailer + 4].copy_from_slice(&key.depth().to_le_bytes());
                }
            }
            (4, 0)
        }
    };
    out[0] = tag;
    out[1] = element.thread as u8; // below THREADS_MAX: the clocks know it
    out[2..4].copy_from_slice(&element.key.depth().to_le_bytes());
    out[4..8].copy_from_slice(&length.to_le_bytes());
    out[8..16].copy_from_slice(&element.ts.to_u64().to_le_bytes());
    out[16..48].copy_from_slice(element.key.bits());
    if element.value.is_leaf() {
        LEAF_BYTES
    } else {
        NODE_BYTES
    }
}

#[cfg(test)]
#[path = "tests/standard_crypto.rs"]
mod tests;
