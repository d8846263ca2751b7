//! The cryptography of a real monitor.
use crate::crypto::{Crypto, Element, Mac, MacKey};
use crate::request::MacDomain;
use crate::value::{Hash, Value};

/// BLAKE3 for hashes and MACs, AES-256 over POLYVAL for the multiset hash.
pub struct StandardCrypto {}

/// A multiset hash. Secret.
#[derive(Clone, Default)]
pub struct Sum(u128);

impl Sum {
    /// For the sealed state.
    pub fn to_bytes(&self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// From the sealed state.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

impl StandardCrypto {
    /// For one thread. `multiset_secret` is of the instance, and never leaves the monitor unsealed.
    pub fn new(multiset_secret: [u8; 32]) -> Self {
        let _ = multiset_secret;
        Self {}
    }
}

impl Crypto for StandardCrypto {
    type Sum = Sum;

    fn hash(&self, _value: &Value) -> Hash {
        todo!()
    }
    fn prepare_epoch(&mut self, _epoch: u32) {
        todo!()
    }
    fn add_element(&self, _epoch: u32, _sum: &mut Sum, _element: &Element<'_>) {
        todo!()
    }
    fn merge(&self, _sum: &mut Sum, _other: &Sum) {
        todo!()
    }
    fn equal(&self, _a: &Sum, _b: &Sum) -> bool {
        todo!()
    }
    fn mac(&self, _key: &MacKey, _domain: MacDomain, _parts: &[&[u8]]) -> Mac {
        todo!()
    }
    fn mac_is(&self, _key: &MacKey, _domain: MacDomain, _parts: &[&[u8]], _mac: &Mac) -> bool {
        todo!()
    }
}
