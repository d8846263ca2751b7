//! Who this monitor is: everything that is derived from its one root secret.
//!
//! Invariant: one root secret is one store, for ever. First instance id, identity key and sealing key come from the same 32 bytes, so no
//! store can be exchanged for a fresh one, or for another monitor's, behind a fingerprint that clients have pinned.

use std::fmt::Write as _;

use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use crate::error::Error;

/// Bytes of a secret or of a symmetric key.
pub const KEY_BYTES: usize = 32;

/// Names one store: for ever, or until its operator overrides a rollback.
pub type InstanceId = [u8; 16];
/// Names one run of the service, from `start` to the end of the control connection.
pub type IncarnationId = [u8; 16];
/// One run of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Of which store.
    pub instance: InstanceId,
    /// Its own name.
    pub incarnation: IncarnationId,
}

/// An Ed25519 public key.
pub type PublicKey = [u8; 32];
/// An Ed25519 signature.
pub type Signature = [u8; 64];
/// A secret that is wiped when it is dropped.
pub type Secret = Zeroizing<[u8; KEY_BYTES]>;

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// The keys of this monitor.
pub struct Identity {
    signing: SigningKey,
    /// The store that this monitor guards, as it is called before any override.
    pub first_instance: InstanceId,
    /// Encrypts sealed states.
    pub sealing_key: Secret,
    /// Authenticates the file that stands for a trusted register.
    pub register_key: Secret,
    /// Authorizes the use of the NV index that is the trusted register.
    pub tpm_auth: Secret,
    /// The multiset hashes' secret.
    pub multiset_secret: Secret,
    /// Makes the tags of write-ahead logs.
    pub log_key: Secret,
}

impl Identity {
    /// Derive all keys from the root secret.
    pub fn derive(root: &Secret) -> Self {
        let derive = |purpose: &str| Secret::new(blake3::derive_key(purpose, root.as_slice()));
        let mut first_instance = InstanceId::default();
        first_instance.copy_from_slice(&derive("zetakv/1 monitor: instance id")[..16]);
        Self {
            signing: SigningKey::from_bytes(&derive("zetakv/1 monitor: identity key")),
            first_instance,
            sealing_key: derive("zetakv/1 monitor: sealing key"),
            register_key: derive("zetakv/1 monitor: register key"),
            tpm_auth: derive("zetakv/1 monitor: TPM authorization"),
            multiset_secret: derive("zetakv/1 monitor: multiset secret"),
            log_key: derive("zetakv/1 monitor: log key"),
        }
    }

    /// An identity with this key, which no root secret has.
    #[cfg(test)]
    pub fn from_seed(identity_seed: &[u8; 32]) -> Self {
        Self {
            signing: SigningKey::from_bytes(identity_seed),
            ..Self::derive(&Secret::default())
        }
    }

    /// The public identity key.
    pub fn public_key(&self) -> PublicKey {
        self.signing.verifying_key().to_bytes()
    }

    /// The public identity key in hex, as clients pin it.
    pub fn fingerprint(&self) -> String {
        to_hex(&self.public_key())
    }

    /// Sign a message. The same message always gives the same signature.
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.signing.sign(message).to_bytes()
    }
}

/// Lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(hex, "{byte:02x}"); // writing to a String cannot fail
    }
    hex
}

/// 32 bytes from hex; `None` if it is anything else.
pub fn from_hex(hex: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(hex).ok().map(|bytes| *bytes.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_root_secret_is_one_identity_with_distinct_keys() {
        let a = Identity::derive(&Secret::new([1; 32]));
        let again = Identity::derive(&Secret::new([1; 32]));
        let b = Identity::derive(&Secret::new([2; 32]));
        assert_eq!(
            (a.first_instance, a.fingerprint()),
            (again.first_instance, again.fingerprint())
        );
        assert_ne!(a.first_instance, b.first_instance);
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert_ne!(a.sealing_key, a.register_key);
        assert_ne!(a.sealing_key, a.multiset_secret);
        assert_ne!(a.register_key, a.multiset_secret);
    }

    #[test]
    fn what_holds_keys_wipes_itself() {
        const fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        wiped::<Secret>();
        wiped::<SigningKey>();
        wiped::<x25519_dalek::StaticSecret>();
        wiped::<chacha20poly1305::XChaCha20Poly1305>();
    }

    #[test]
    fn hex_roundtrip() {
        assert_eq!(from_hex(&to_hex(&[0xa5; 32])), Some([0xa5; 32]));
        assert_eq!(from_hex("a5"), None);
        assert_eq!(from_hex(&"zz".repeat(32)), None);
    }
}
