//! The records of a benchmark: keys by number, and a pool of values that knows what each record may hold.
//!
//! A value begins with its number in the pool, and belongs to a class of records: so a value that is returned for another record is noticed.
//! Commitments of all values, and hashes of all keys, are computed before the clock runs.

use fastrand::Rng;
use zetakv_verifier::value::Commitment;

use crate::failure::Failure;

/// Bytes of a key, with every server.
pub const KEY_BYTES: usize = 8;
/// Values of one class: a put takes any of them.
pub const VARIANTS: usize = 16;
/// A record's class is its number modulo this.
const CLASSES: usize = 64;

/// A value of the pool.
pub struct Value {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its commitment.
    pub commitment: Commitment,
    /// The same, encoded.
    pub encoded_commitment: Vec<u8>,
}

/// All records.
pub struct Records {
    key_hashes: Vec<[u8; 32]>,
    values: Vec<Value>,
    /// Whether values are numbers that are added to: then any number may be found.
    counters: bool,
}

impl Records {
    /// `count` records with values of `value_bytes` bytes (at least 8). Key hashes are needed by ZetaKV only.
    pub fn new(count: u32, value_bytes: usize, counters: bool, with_key_hashes: bool) -> Self {
        let hashed = if with_key_hashes { count } else { 0 };
        let mut rng = Rng::with_seed(0); // every run, and every process, has the same pool
        let values = (0..CLASSES * VARIANTS).map(|number| {
            let mut bytes = (number as u64).to_le_bytes().to_vec();
            bytes.resize_with(value_bytes, || rng.u8(..));
            let commitment = Commitment::of(&bytes);
            let mut encoded_commitment = Vec::new();
            commitment.encode(&mut encoded_commitment);
            Value {
                bytes,
                commitment,
                encoded_commitment,
            }
        });
        Self {
            key_hashes: (0..hashed)
                .map(|record| *blake3::hash(&key(record)).as_bytes())
                .collect(),
            values: values.collect(),
            counters,
        }
    }

    /// The hash of a record's key.
    pub fn key_hash(&self, record: u32) -> &[u8; 32] {
        &self.key_hashes[record as usize]
    }

    /// The value that a put of this variant writes.
    pub fn value(&self, record: u32, variant: u8) -> &Value {
        &self.values[record as usize % CLASSES * VARIANTS + usize::from(variant) % VARIANTS]
    }

    /// Check that these bytes may be the record's value, and that the monitor's commitment, where there is one, is to them.
    ///
    /// Bytes that are those of a value in the pool need no hash: the pool has it.
    pub fn check(&self, record: u32, bytes: &[u8], commitment: Option<&Commitment>) -> Result<(), Failure> {
        let number = bytes.first_chunk().map(|number| u64::from_le_bytes(*number) as usize);
        let known = number
            .and_then(|number| self.values.get(number))
            .filter(|value| value.bytes == bytes);
        let committed = match (known, commitment) {
            (_, None) => true,
            (Some(value), Some(commitment)) => value.commitment == *commitment,
            (None, Some(commitment)) => Commitment::of(bytes) == *commitment,
        };
        if !committed {
            return Err(Failure::check(format!(
                "the value of record {record} is not the one that the monitor proved"
            )));
        }
        let of_class = known.is_some() && number.is_some_and(|number| number / VARIANTS == record as usize % CLASSES);
        if of_class || (self.counters && bytes.len() == 8) {
            Ok(())
        } else {
            Err(Failure::check(format!(
                "record {record} has a value that nobody gave it"
            )))
        }
    }
}

/// The key of a record on ZetaKV.
pub fn key(record: u32) -> [u8; KEY_BYTES] {
    u64::from(record).to_be_bytes()
}

/// The key of a record on servers whose keys are text: as many bytes.
pub fn text_key(record: u32) -> [u8; KEY_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    core::array::from_fn(|place| DIGITS[(record >> (28 - 4 * place) & 15) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keys_are_hexadecimal() {
        assert_eq!(&text_key(0x12ab_0cd9), b"12ab0cd9");
    }

    #[test]
    fn a_value_is_checked_against_commitment_and_record() {
        for length in [8, 32, 100] {
            let records = Records::new(0, length, false, true);
            let (value, other) = (records.value(5, 3), records.value(6, 3));
            let check = |value: &Value, commitment| records.check(5, &value.bytes, Some(commitment)).is_ok();
            assert!(check(value, &value.commitment));
            assert!(!check(value, &other.commitment), "not what is committed to");
            assert!(!check(other, &other.commitment), "of another record");
            let mut changed = value.bytes.clone();
            changed[7] ^= 1;
            assert!(records.check(5, &changed, Some(&value.commitment)).is_err());
            assert!(records.check(5, &changed, Some(&Commitment::of(&changed))).is_err());
        }
    }
}
