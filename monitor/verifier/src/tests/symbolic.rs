//! Ideal cryptography: hashes and MACs are numbers given to inputs in the order of their arrival, sums are the multisets themselves.

use core::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use crate::crypto::{Crypto, Element, Mac, MacKey};
use crate::request::MacDomain;
use crate::value::{Hash, Value};

/// All clones give the same numbers.
#[derive(Clone, Default)]
pub struct SymbolicCrypto {
    numbers: Rc<RefCell<BTreeMap<Vec<u8>, u64>>>,
}

/// Element → how often.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Multiset(BTreeMap<Vec<u8>, u64>);

impl SymbolicCrypto {
    /// A number for this input that no other has; never 0.
    fn number(&self, kind: u8, parts: &[&[u8]]) -> u64 {
        let mut input = std::vec![kind];
        for part in parts {
            input.extend_from_slice(&(part.len() as u64).to_le_bytes());
            input.extend_from_slice(part);
        }
        let mut numbers = self.numbers.borrow_mut();
        let next = numbers.len() as u64 + 1;
        *numbers.entry(input).or_insert(next)
    }
}

impl Crypto for SymbolicCrypto {
    type Sum = Multiset;

    fn hash(&self, value: &Value) -> Hash {
        let mut encoding = Vec::new();
        value.encode(&mut encoding);
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.number(0, &[&encoding]).to_le_bytes());
        hash
    }

    fn prepare_epoch(&mut self, _epoch: u32) {}

    fn add_element(&self, epoch: u32, sum: &mut Multiset, element: &Element<'_>) {
        let mut encoding = Vec::from(epoch.to_le_bytes());
        encoding.extend_from_slice(&element.key.encode());
        encoding.extend_from_slice(&element.ts.to_u64().to_le_bytes());
        encoding.extend_from_slice(&element.thread.to_le_bytes());
        element.value.encode(&mut encoding);
        *sum.0.entry(encoding).or_default() += 1;
    }

    fn merge(&self, sum: &mut Multiset, other: &Multiset) {
        for (element, count) in &other.0 {
            *sum.0.entry(element.clone()).or_default() += count;
        }
    }

    fn equal(&self, a: &Multiset, b: &Multiset) -> bool {
        a == b
    }

    fn mac(&self, key: &MacKey, domain: MacDomain, parts: &[&[u8]]) -> Mac {
        let input = parts.concat();
        let mut mac = [0; 16];
        mac[..8].copy_from_slice(&self.number(domain as u8, &[key, &input]).to_le_bytes());
        mac
    }

    fn mac_is(&self, key: &MacKey, domain: MacDomain, parts: &[&[u8]], mac: &Mac) -> bool {
        self.mac(key, domain, parts) == *mac
    }
}
