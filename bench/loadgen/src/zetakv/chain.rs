//! The chain of certificates, shared by all connections: so none of them is shown another one.
//!
//! A certificate is checked once; on other connections it must be the same, byte for byte. The root of the range over former certificates
//! is not checked here: the SDK does that.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, VerifyingKey};
use zetakv_verifier::codec::Reader;
use zetakv_verifier::standard_crypto::domain_key;

use crate::failure::Failure;

/// Bytes of a certificate.
const CERTIFICATE_BYTES: usize = 168;
const BODY_BYTES: usize = CERTIFICATE_BYTES - 64;
const MAGIC: &[u8; 4] = b"ZKC1";
const HASH_KEY: [u8; 32] = domain_key("zetakv/1 certificate");

/// What a certificate that came did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// Everything up to this epoch is certified.
    Certified(u32),
    /// Those from this epoch on are missing before it: ask for them, and for it again.
    Missing { from: u32, to: u32 },
}

/// All certificates since the first hello.
pub struct Chain {
    monitor: VerifyingKey,
    run: Option<Run>,
    /// The last epoch that was followed.
    epoch: u32,
    /// Hash of its certificate.
    head: [u8; 32],
    certificates: BTreeMap<u32, [u8; CERTIFICATE_BYTES]>,
    /// What hellos say of certificates that have not come.
    claims: BTreeMap<u32, [u8; 32]>,
    /// Certificates whose signature and place were checked.
    pub checked: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Run {
    instance: [u8; 16],
    incarnation: [u8; 16],
}

impl Chain {
    /// Empty, until the first hello.
    pub const fn new(monitor: VerifyingKey) -> Self {
        Self {
            monitor,
            run: None,
            epoch: 0,
            head: [0; 32],
            certificates: BTreeMap::new(),
            claims: BTreeMap::new(),
            checked: 0,
        }
    }

    /// The last certified epoch.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// A hello, whose signature is checked, says how far the chain is. All must be of one run of the service.
    pub fn hello(
        &mut self,
        instance: [u8; 16],
        incarnation: [u8; 16],
        (epoch, head): (u32, [u8; 32]),
    ) -> Result<(), Failure> {
        let run = Run { instance, incarnation };
        match self.run {
            None => (self.run, self.epoch, self.head) = (Some(run), epoch, head),
            Some(known) if known != run => {
                return Err(Failure::check(
                    "two hellos are of different stores, or the server has restarted",
                ));
            }
            Some(_) => {}
        }
        let known = if epoch == self.epoch {
            Some(self.head)
        } else if epoch > self.epoch {
            Some(*self.claims.entry(epoch).or_insert(head))
        } else {
            self.certificates.get(&epoch).map(hash_of)
        };
        match known {
            Some(known) if known != head => Err(fork(epoch)),
            _ => Ok(()),
        }
    }

    /// Check a certificate that came on any connection.
    pub fn follow(&mut self, certificate: &[u8]) -> Result<Followed, Failure> {
        let certificate: &[u8; CERTIFICATE_BYTES] = certificate
            .try_into()
            .map_err(|_| Failure::check("a certificate of a wrong length"))?;
        let mut reader = Reader::new(certificate);
        let (magic, instance, incarnation) = (reader.array::<4>()?, *reader.array()?, *reader.array()?);
        let (epoch, previous) = (reader.u32()?, reader.array::<32>()?);
        if let Some(known) = self.certificates.get(&epoch) {
            // a signature of the same bytes may differ, and be valid
            return if known == certificate {
                Ok(Followed::Certified(epoch))
            } else {
                Err(fork(epoch))
            };
        }
        let next = self.epoch.saturating_add(1);
        if epoch > next {
            return Ok(Followed::Missing { from: next, to: epoch });
        }
        let signature = Signature::from_slice(&certificate[BODY_BYTES..]).map_err(|_| Failure::check("a signature"))?;
        let signed = self
            .monitor
            .verify_strict(&certificate[..BODY_BYTES], &signature)
            .is_ok();
        if magic != MAGIC || !signed {
            return Err(Failure::check(format!(
                "the certificate of epoch {epoch} is not signed by the monitor"
            )));
        }
        if epoch < next {
            return Ok(Followed::Certified(epoch)); // from before the first hello
        }
        if self.run != Some(Run { instance, incarnation }) {
            return Err(Failure::check(format!(
                "the certificate of epoch {epoch} is of another store, or the server has restarted: answers are lost"
            )));
        }
        let hash = hash_of(certificate);
        if *previous != self.head || self.claims.remove(&epoch).is_some_and(|claimed| claimed != hash) {
            return Err(fork(epoch));
        }
        self.checked += 1;
        self.certificates.insert(epoch, *certificate);
        (self.epoch, self.head) = (epoch, hash);
        Ok(Followed::Certified(epoch))
    }
}

fn hash_of(certificate: &[u8; CERTIFICATE_BYTES]) -> [u8; 32] {
    *blake3::keyed_hash(&HASH_KEY, &certificate[..BODY_BYTES]).as_bytes()
}

fn fork(epoch: u32) -> Failure {
    Failure::check(format!(
        "the certificate of epoch {epoch} is not the next one of the chain: a fork"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    fn certificate(key: &SigningKey, epoch: u32, previous: [u8; 32], incarnation: u8) -> [u8; CERTIFICATE_BYTES] {
        let body = [
            MAGIC.as_slice(),
            &[1; 16],
            &[incarnation; 16],
            &epoch.to_le_bytes(),
            &previous,
            &[0; 32],
        ]
        .concat();
        let signature = key.sign(&body).to_bytes();
        [body.as_slice(), &signature].concat().try_into().expect("168 bytes")
    }

    fn fails(followed: Result<Followed, Failure>) -> bool {
        matches!(followed, Err(Failure::Check(_)))
    }

    #[test]
    fn certificates_follow_each_other() -> Result<(), Failure> {
        let key = SigningKey::from_bytes(&[7; 32]);
        let mut chain = Chain::new(key.verifying_key());
        chain.hello([1; 16], [2; 16], (3, [4; 32]))?;
        let fourth = certificate(&key, 4, [4; 32], 2);
        let fifth = certificate(&key, 5, hash_of(&fourth), 2);
        assert_eq!(chain.follow(&fifth)?, Followed::Missing { from: 4, to: 5 });
        assert_eq!(chain.follow(&fourth)?, Followed::Certified(4));
        assert_eq!(chain.follow(&fifth)?, Followed::Certified(5));
        assert_eq!(chain.follow(&fourth)?, Followed::Certified(4), "on another connection");
        assert_eq!((chain.epoch(), chain.checked), (5, 2));
        Ok(())
    }

    #[test]
    fn what_is_not_the_next_certificate_is_refused() -> Result<(), Failure> {
        let key = SigningKey::from_bytes(&[7; 32]);
        let good = certificate(&key, 4, [4; 32], 2);
        let begin = || -> Result<Chain, Failure> {
            let mut chain = Chain::new(key.verifying_key());
            chain.hello([1; 16], [2; 16], (3, [4; 32]))?;
            Ok(chain)
        };
        let mut unsigned = good;
        unsigned[100] ^= 1;
        for bad in [
            unsigned,
            certificate(&SigningKey::from_bytes(&[8; 32]), 4, [4; 32], 2),
            certificate(&key, 4, [5; 32], 2),
            certificate(&key, 4, [4; 32], 3),
        ] {
            assert!(fails(begin()?.follow(&bad)));
        }
        let mut chain = begin()?;
        chain.follow(&good)?;
        let other = certificate(&key, 4, [4; 32], 2);
        assert_eq!(
            chain.follow(&other)?,
            Followed::Certified(4),
            "signatures are deterministic"
        );
        assert!(
            chain.hello([1; 16], [2; 16], (4, [9; 32])).is_err(),
            "a hello of a fork"
        );
        assert!(chain.hello([1; 16], [9; 16], (4, hash_of(&good))).is_err(), "a restart");
        chain.hello([1; 16], [2; 16], (5, [9; 32]))?;
        assert!(
            fails(chain.follow(&certificate(&key, 5, hash_of(&good), 2))),
            "not what a hello claimed"
        );
        Ok(())
    }
}
