//! Epoch certificates, and the history of all of them: a hash chain and a Merkle mountain range.
//!
//! Invariant: a certificate's body is a function of the instance, the incarnation and the history before it, all of which the sealed
//! state of its epoch holds. So an epoch's certificate can be issued again after a crash, byte for byte, and never in another version.

use zetakv_verifier::value::Hash;

use crate::domain::Domain;
use crate::error::Error;
use crate::identity::{Identity, Run};

/// Bytes of a certificate.
pub const CERTIFICATE_BYTES: usize = BODY_BYTES + 64;
const BODY_BYTES: usize = 4 + 16 + 16 + 4 + 32 + 32;
const MAGIC: &[u8; 4] = b"ZKC1";

/// A certificate, signed.
pub type Certificate = [u8; CERTIFICATE_BYTES];

/// All certificates up to an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The last certified epoch; 0 before the first.
    pub epoch: u32,
    /// Hash of its certificate; zeros before the first.
    pub head: Hash,
    /// The range over the hashes of all certificates.
    pub range: Range,
}

impl History {
    /// The epoch that is certified next.
    pub fn next_epoch(&self) -> Result<u32, Error> {
        self.epoch.checked_add(1).ok_or(Error::NoMoreEpochs)
    }

    /// The certificate of the next epoch, which ran in `run`, and the history with it.
    pub fn certify(&self, identity: &Identity, run: &Run) -> Result<(Certificate, Self), Error> {
        let epoch = self.next_epoch()?;
        let mut body = Vec::with_capacity(CERTIFICATE_BYTES);
        body.extend_from_slice(MAGIC);
        body.extend_from_slice(&run.instance);
        body.extend_from_slice(&run.incarnation);
        body.extend_from_slice(&epoch.to_le_bytes());
        body.extend_from_slice(&self.head);
        body.extend_from_slice(&self.range.root());

        let mut certificate = [0; CERTIFICATE_BYTES];
        certificate[..BODY_BYTES].copy_from_slice(&body);
        certificate[BODY_BYTES..].copy_from_slice(&identity.sign(&body));

        Ok((certificate, self.followed_by(Domain::Certificate.hash(&[&body]))?))
    }

    /// The history with the next epoch, whose certificate has this hash.
    pub fn followed_by(&self, head: Hash) -> Result<Self, Error> {
        let mut range = self.range.clone();
        range.push(&head);
        Ok(Self {
            epoch: self.next_epoch()?,
            head,
            range,
        })
    }
}

/// A Merkle mountain range over certificate hashes, of which only the peaks are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    count: u64,
    /// One for each bit that is set in `count`, from the largest to the smallest.
    peaks: Vec<Hash>,
}

impl Range {
    /// From its parts; `None` if they do not fit together.
    pub fn from_parts(count: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == count.count_ones() as usize).then_some(Self { count, peaks })
    }

    /// How many certificates are in it.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The peaks, from the largest to the smallest.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    fn push(&mut self, certificate_hash: &Hash) {
        let mut node = Domain::RangeLeaf.hash(&[certificate_hash]);
        for _ in 0..self.count.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = Domain::RangeNode.hash(&[&left, &node]);
            }
        }
        self.peaks.push(node);
        self.count += 1; // one for each epoch, so below 2^32
    }

    /// The root.
    pub fn root(&self) -> Hash {
        Domain::RangeRoot.hash(&[&self.count.to_le_bytes(), self.peaks.as_flattened()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Secret;
    use ed25519_dalek::{Signature, VerifyingKey};

    /// The root from all leaves: peaks are perfect trees over aligned blocks, largest first.
    fn naive_root(hashes: &[Hash]) -> Hash {
        fn tree(hashes: &[Hash]) -> Hash {
            match hashes {
                [one] => Domain::RangeLeaf.hash(&[one]),
                many => {
                    let (left, right) = many.split_at(many.len() / 2);
                    Domain::RangeNode.hash(&[&tree(left), &tree(right)])
                }
            }
        }
        let mut peaks = Vec::new();
        let mut rest = hashes;
        while !rest.is_empty() {
            let (block, after) = rest.split_at(1 << rest.len().ilog2());
            peaks.extend_from_slice(&tree(block));
            rest = after;
        }
        Domain::RangeRoot.hash(&[&(hashes.len() as u64).to_le_bytes(), &peaks])
    }

    #[test]
    fn range_root_is_that_of_the_definition() {
        let mut range = Range::default();
        let mut hashes = Vec::new();
        for i in 0..70u8 {
            assert_eq!(range.root(), naive_root(&hashes), "{i} leaves");
            hashes.push([i; 32]);
            range.push(&[i; 32]);
        }
    }

    #[test]
    fn a_range_needs_one_peak_for_each_bit() {
        assert!(Range::from_parts(3, vec![[0; 32]; 2]).is_some());
        assert!(Range::from_parts(4, vec![[0; 32]; 2]).is_none());
    }

    #[test]
    fn certificates_are_deterministic_signed_and_chained() -> Result<(), Error> {
        let identity = Identity::derive(&Secret::new([3; 32]));
        let genesis = History::default();
        let run = |instance, incarnation| Run {
            instance: [instance; 16],
            incarnation: [incarnation; 16],
        };
        let (first, after_first) = genesis.certify(&identity, &run(5, 1))?;
        assert_eq!(genesis.certify(&identity, &run(5, 1))?.0, first);
        assert_ne!(genesis.certify(&identity, &run(5, 2))?.0, first);
        assert_ne!(genesis.certify(&identity, &run(6, 1))?.0, first);

        let (second, after_second) = after_first.certify(&identity, &run(5, 1))?;
        assert_eq!(after_second.epoch, 2);
        assert_eq!(first[40..72], [0; 32], "no certificate before the first");
        assert_eq!(second[40..72], Domain::Certificate.hash(&[&first[..BODY_BYTES]]));
        assert_eq!(second[72..104], naive_root(&[after_first.head]));

        let key = VerifyingKey::from_bytes(&identity.public_key()).expect("our own key");
        for certificate in [first, second] {
            let signature = Signature::from_slice(&certificate[BODY_BYTES..]).expect("64 bytes");
            assert!(key.verify_strict(&certificate[..BODY_BYTES], &signature).is_ok());
        }
        Ok(())
    }

    #[test]
    fn epochs_end() {
        let last = History {
            epoch: u32::MAX,
            ..History::default()
        };
        assert!(matches!(last.next_epoch(), Err(Error::NoMoreEpochs)));
    }
}
