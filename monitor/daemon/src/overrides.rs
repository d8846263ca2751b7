//! The operator's overrides of a rollback: signed decisions to go on from an older sealed state than the latest.
//!
//! An override begins a new instance, which continues the old one's chain of certificates. So what the old instance certified after that
//! epoch is contradicted by nothing: no (instance, epoch) ever has two certificates. Every client is told, in its server hello.
//!
//! Invariants: an [`Override`] that exists is well-formed and signed by the admin key that it names (whether that is an admin's is for
//! who accepts it to check); those in an [`Overrides`] continue each other.

use ed25519_dalek::{Signature as Ed25519Signature, VerifyingKey};
use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::value::Hash;

use crate::domain::Domain;
use crate::identity::{InstanceId, PublicKey};
use crate::register::Commitment;

/// Overrides of a store at the most: bounds the server hello.
pub const OVERRIDES_MAX: usize = 16;
/// Bytes of a reason at the most.
pub const REASON_BYTES_MAX: usize = 200;
/// Bytes of a statement at the most.
pub const STATEMENT_BYTES_MAX: usize = 4 + 16 + 4 + 32 + 32 + 16 + 8 + 32 + 1 + REASON_BYTES_MAX + 64;
/// How a statement begins.
pub const MAGIC: &[u8; 4] = b"ZKO1";
/// What is signed begins with this, and goes on with the statement.
pub const SIGNED_DOMAIN: &[u8] = b"zetakv/1 override";

/// What an override says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The instance that ends.
    pub old_instance: InstanceId,
    /// The epoch that the new instance continues from.
    pub epoch: u32,
    /// Hash of that epoch's certificate.
    pub head: Hash,
    /// What the trusted register held when the override was made, and must still hold when it is used; zeros if it was lost.
    pub replaced: Commitment,
    /// When it was made, in seconds since 1970, by the operator's clock.
    pub time: u64,
    /// Why, in 1 to [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// A decision, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// What it says.
    pub decision: Decision,
    /// Whose signature it has.
    pub admin_key: PublicKey,
    statement: Vec<u8>,
}

impl Override {
    /// Read a statement, and check its signature.
    pub fn verify(statement: &[u8]) -> Result<Self, Malformed> {
        let (signed, signature) = statement.split_last_chunk::<64>().ok_or(Malformed)?;
        let mut reader = Reader::new(signed);
        if reader.array()? != MAGIC {
            return Err(Malformed);
        }
        let (old_instance, epoch, head) = (*reader.array()?, reader.u32()?, *reader.array()?);
        let replaced = Commitment {
            sealed: *reader.array()?,
            incarnation: *reader.array()?,
        };
        let (time, admin_key) = (reader.u64()?, *reader.array()?);
        let reason_bytes = usize::from(reader.u8()?);
        let reason = std::str::from_utf8(reader.take(reason_bytes)?).map_err(|_| Malformed)?;
        reader.end()?;
        if reason_bytes == 0 || reason_bytes > REASON_BYTES_MAX {
            return Err(Malformed);
        }
        VerifyingKey::from_bytes(&admin_key)
            .and_then(|key| {
                let message = [SIGNED_DOMAIN, signed].concat();
                key.verify_strict(&message, &Ed25519Signature::from_bytes(signature))
            })
            .map_err(|_| Malformed)?;
        let decision = Decision {
            old_instance,
            epoch,
            head,
            replaced,
            time,
            reason: reason.to_owned(),
        };
        Ok(Self {
            decision,
            admin_key,
            statement: statement.to_vec(),
        })
    }

    /// The instance that it begins.
    pub fn new_instance(&self) -> InstanceId {
        let mut instance = InstanceId::default();
        instance.copy_from_slice(&Domain::Instance.hash(&[&self.statement])[..16]);
        instance
    }

    /// All of it, as signed.
    pub fn statement(&self) -> &[u8] {
        &self.statement
    }
}

/// All overrides of a store, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(Vec<Override>);

impl Overrides {
    /// The instance that these lead to from the first one; `None` if they do not continue it and each other.
    pub fn instance(&self, first: &InstanceId) -> Option<InstanceId> {
        self.0.iter().try_fold(*first, |instance, next| {
            (next.decision.old_instance == instance).then(|| next.new_instance())
        })
    }

    /// The last one.
    pub fn last(&self) -> Option<&Override> {
        self.0.last()
    }

    /// Each, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Override> {
        self.0.iter()
    }

    /// Append one; malformed if there are [`OVERRIDES_MAX`].
    pub fn push(&mut self, next: Override) -> Result<(), Malformed> {
        if self.0.len() >= OVERRIDES_MAX {
            return Err(Malformed);
        }
        self.0.push(next);
        Ok(())
    }

    /// Bytes of the encoding.
    pub fn encoded_bytes(&self) -> usize {
        1 + self.0.iter().map(|it| 2 + it.statement.len()).sum::<usize>()
    }

    /// Append the encoding: their number, then each with its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.0.len() as u8); // at most OVERRIDES_MAX
        for it in &self.0 {
            out.extend_from_slice(&(it.statement.len() as u16).to_le_bytes()); // at most STATEMENT_BYTES_MAX
            out.extend_from_slice(&it.statement);
        }
    }

    /// Read overrides, and check their signatures.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut overrides = Self::default();
        for _ in 0..reader.u8()? {
            let length = usize::from(reader.u16()?);
            overrides.push(Override::verify(reader.take(length)?)?)?;
        }
        Ok(overrides)
    }
}
