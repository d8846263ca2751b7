//! Real hashes and MACs, whose bytes the model can compute, too; sums that are multisets and real ones at once, which must always agree.

use alloc::collections::BTreeMap;
use alloc::string::String;

use super::text;
use crate::crypto::{Crypto, Element, Mac, MacKey};
use crate::request::MacDomain;
use crate::standard_crypto::{StandardCrypto, Sum};
use crate::value::{Hash, Value};

pub struct DriverCrypto(StandardCrypto);

impl DriverCrypto {
    pub fn new() -> Self {
        Self(StandardCrypto::new([7; 32]))
    }
}

#[derive(Clone, Default)]
pub struct DriverSum {
    /// Element, as text → how often.
    pub elements: BTreeMap<String, u64>,
    real: Sum,
}

impl Crypto for DriverCrypto {
    type Sum = DriverSum;

    fn hash(&self, value: &Value) -> Hash {
        self.0.hash(value)
    }

    fn prepare_epoch(&mut self, epoch: u32) {
        self.0.prepare_epoch(epoch);
    }

    fn add_element(&self, epoch: u32, sum: &mut DriverSum, element: &Element<'_>) {
        *sum.elements.entry(text::element(element)).or_default() += 1;
        self.0.add_element(epoch, &mut sum.real, element);
    }

    fn merge(&self, sum: &mut DriverSum, other: &DriverSum) {
        for (element, count) in &other.elements {
            *sum.elements.entry(element.clone()).or_default() += count;
        }
        self.0.merge(&mut sum.real, &other.real);
    }

    fn equal(&self, a: &DriverSum, b: &DriverSum) -> bool {
        let equal = self.0.equal(&a.real, &b.real);
        assert_eq!(
            equal,
            a.elements == b.elements,
            "the multiset hash tells multisets apart"
        );
        equal
    }

    fn mac(&self, key: &MacKey, domain: MacDomain, parts: &[&[u8]]) -> Mac {
        self.0.mac(key, domain, parts)
    }

    fn mac_is(&self, key: &MacKey, domain: MacDomain, parts: &[&[u8]], mac: &Mac) -> bool {
        self.0.mac_is(key, domain, parts, mac)
    }
}
