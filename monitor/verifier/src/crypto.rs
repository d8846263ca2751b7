//! The cryptography that a verifier thread needs, as a trait: tests run the same state machine with symbolic hashes.

use crate::entry::ThreadId;
use crate::key::Key;
use crate::request::{MAC_BYTES, MacDomain};
use crate::time::Timestamp;
use crate::value::{Hash, Value};

/// Key of a session's MACs.
pub type MacKey = [u8; 32];
/// A MAC.
pub type Mac = [u8; MAC_BYTES];

/// What is added to and evicted from Blum: a record, at a moment, by a thread.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    /// The record's key.
    pub key: &'a Key,
    /// Its value.
    pub value: &'a Value,
    /// When it was evicted.
    pub ts: Timestamp,
    /// The thread that evicted it.
    pub thread: ThreadId,
}

/// Hashes, multiset hashes and MACs. Each thread has its own: no cryptographic state is shared.
pub trait Crypto {
    /// A multiset hash: the sum of a pseudorandom function over the elements. Its default is that of no elements. Secret.
    type Sum: Clone + Default;

    /// Collision-resistant hash of a value, for its parent.
    fn hash(&self, value: &Value) -> Hash;

    /// Make the keys of `epoch` and of the one after it ready; those of earlier epochs are forgotten.
    fn prepare_epoch(&mut self, epoch: u32);

    /// Add an element to a multiset of a prepared epoch.
    fn add_element(&self, epoch: u32, sum: &mut Self::Sum, element: &Element<'_>);

    /// Add all elements of another multiset of the same epoch.
    fn merge(&self, sum: &mut Self::Sum, other: &Self::Sum);

    /// Whether two multisets of the same epoch are equal. Takes constant time.
    fn equal(&self, a: &Self::Sum, b: &Self::Sum) -> bool;

    /// MAC over parts, one after the other, and a domain.
    fn mac(&self, key: &MacKey, domain: MacDomain, parts: &[&[u8]]) -> Mac;

    /// Whether this is the MAC. Takes constant time.
    fn mac_is(&self, key: &MacKey, domain: MacDomain, parts: &[&[u8]], mac: &Mac) -> bool;
}
