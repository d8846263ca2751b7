//! Hashes with a domain: what is hashed for one purpose is never equal to what is hashed for another.

use zetakv_verifier::standard_crypto::domain_key;
use zetakv_verifier::value::Hash;

/// What a hash is for.
#[derive(Clone, Copy, Debug)]
pub enum Domain {
    /// A certificate's body.
    Certificate,
    /// A leaf of the range over certificates.
    RangeLeaf,
    /// An inner node of the range.
    RangeNode,
    /// The root of the range.
    RangeRoot,
    /// A sealed state.
    Sealed,
    /// A commitment, for the TPM.
    Register,
    /// An override statement, for the name of the instance that it begins.
    Instance,
}

impl Domain {
    const fn key(self) -> [u8; 32] {
        domain_key(match self {
            Self::Certificate => "zetakv/1 certificate",
            Self::RangeLeaf => "zetakv/1 range leaf",
            Self::RangeNode => "zetakv/1 range node",
            Self::RangeRoot => "zetakv/1 range root",
            Self::Sealed => "zetakv/1 sealed",
            Self::Register => "zetakv/1 register",
            Self::Instance => "zetakv/1 instance",
        })
    }

    /// Hash the parts, one after the other.
    pub fn hash(self, parts: &[&[u8]]) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key());
        for part in parts {
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}
