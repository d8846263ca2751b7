//! The hash of a record's value in its parent (protocol section 1, domain `zetakv/1 merkle`).

use zetakv_verifier::standard_crypto::domain_key;
use zetakv_verifier::value::{Hash, Value};

const MERKLE_KEY: [u8; 32] = domain_key("zetakv/1 merkle");

/// Room for the encoding of any value: a node with two sides has 137 bytes.
const ENCODED_BYTES: usize = 160;

/// Hash of a value, for its parent.
pub fn merkle_hash(value: &Value) -> Hash {
    let mut encoded = Vec::with_capacity(ENCODED_BYTES);
    value.encode(&mut encoded);
    *blake3::keyed_hash(&MERKLE_KEY, &encoded).as_bytes()
}
