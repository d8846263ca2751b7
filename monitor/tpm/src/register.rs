//! A register in a TPM 2.0: an NV index that can only be extended, and a file that says what the digest in it stands for.
//!
//! The index holds d(n) = SHA-256(d(n-1), H(commitment n)). A TPM keeps no more than the digest, so the file beside it holds d(n-1) and
//! the commitment, of the present one and of the one that is being made. The file is not trusted: what does not lead to the digest in the
//! TPM is not believed, and SHA-256 lets nobody find another that does.
//!
//! Invariants: the file knows of a commitment before the TPM does, so a crash between the two leaves the one before, and after it the new
//! one. Nothing is committed before the TPM has been read again and found to hold exactly what follows from what was expected: of two
//! monitors with copies of one directory, one at the most is told that it has committed.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use zetakv_monitor::domain::Domain;
use zetakv_monitor::error as monitor;
use zetakv_monitor::files::{read_file, replace_file};
use zetakv_monitor::identity::Secret;
use zetakv_monitor::register::{Commitment, TrustedRegister};
use zetakv_verifier::codec::{Malformed, Reader};

use crate::error::Error;
use crate::stream::Transport;
use crate::wire::{Digest, NvIndex, Session};

const MAGIC: &[u8; 4] = b"ZKT1";
const PUT_BACK: monitor::Error = monitor::Error::RegisterPutBack(
    "the monitor's directory was put back to an older copy, or is another's: its file register.tpm does not fit what the TPM holds. \
     Restore the latest copy; if it is lost, an admin may decide to go on: zetakv-monitor-operator override --register-lost",
);

/// Opens a connection to the TPM.
pub type Connect = Box<dyn Fn() -> Result<Box<dyn Transport>, Error> + Send>;

/// A register in a TPM.
pub struct TpmRegister {
    /// Each operation has a connection of its own.
    pub connect: Connect,
    /// Handle of the NV index.
    pub index: u32,
    /// Its authorization value.
    pub auth: Secret,
    /// The file beside it.
    pub path: PathBuf,
}

/// A commitment, and what the index held before it.
#[derive(Clone, Copy)]
struct Link {
    before: Digest,
    commitment: Commitment,
}

impl Link {
    /// What the index is extended with.
    fn data(&self) -> [u8; 32] {
        Domain::Register.hash(&[&self.commitment.sealed, &self.commitment.incarnation])
    }

    /// What the index holds with it.
    fn digest(&self) -> Digest {
        Sha256::new()
            .chain_update(self.before)
            .chain_update(self.data())
            .finalize()
            .into()
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            before: *reader.array()?,
            commitment: Commitment {
                sealed: *reader.array()?,
                incarnation: *reader.array()?,
            },
        })
    }
}

impl TpmRegister {
    fn write_file(&self, links: &[Link]) -> Result<(), monitor::Error> {
        let mut bytes = MAGIC.to_vec();
        for link in links {
            bytes.extend_from_slice(&link.before);
            bytes.extend_from_slice(&link.commitment.sealed);
            bytes.extend_from_slice(&link.commitment.incarnation);
        }
        replace_file(&self.path, &bytes)
    }

    /// The link in the file that leads to this digest.
    fn find(&self, digest: &Digest) -> Result<Link, monitor::Error> {
        let bytes = read_file(&self.path)?.ok_or_else(|| {
            monitor::Error::state(
                &self.path,
                "missing: without it nobody knows what the TPM commits to; restore the latest copy",
            )
        })?;
        let mut reader = Reader::new(bytes.strip_prefix(MAGIC).unwrap_or_default());
        std::iter::from_fn(|| Link::decode(&mut reader).ok())
            .find(|link| link.digest() == *digest)
            .ok_or(PUT_BACK)
    }

    /// Extend the index to this link, and see that it holds it.
    fn extend(&self, session: &mut Session<'_>, index: NvIndex, link: &Link) -> Result<(), monitor::Error> {
        session.extend(index, &link.data())?;
        if session.read(NvIndex::written(self.index))? == link.digest() {
            Ok(())
        } else {
            Err(monitor::Error::RegisterChanged)
        }
    }
}

impl TrustedRegister for TpmRegister {
    fn read(&self) -> Result<Commitment, monitor::Error> {
        let mut tpm = (self.connect)()?;
        let digest = Session::start(&mut *tpm, &self.auth)?.read(NvIndex::written(self.index))?;
        self.find(&digest).map(|link| link.commitment)
    }

    fn initialize(&mut self, commitment: &Commitment) -> Result<(), monitor::Error> {
        let mut tpm = (self.connect)()?;
        let index = match NvIndex::find(&mut *tpm, self.index)? {
            Some(index) => index,
            None => NvIndex::define(&mut *tpm, self.index, &self.auth)?,
        };
        let mut session = Session::start(&mut *tpm, &self.auth)?;
        let before = if index.is_written() {
            session.read(index)?
        } else {
            Digest::default()
        };
        let link = Link {
            before,
            commitment: *commitment,
        };
        self.write_file(&[link])?;
        self.extend(&mut session, index, &link)
    }

    fn commit(&mut self, expected: &Commitment, new: &Commitment) -> Result<(), monitor::Error> {
        let mut tpm = (self.connect)()?;
        let mut session = Session::start(&mut *tpm, &self.auth)?;
        let index = NvIndex::written(self.index);
        let before = session.read(index)?;
        let present = self.find(&before)?;
        if present.commitment != *expected {
            return Err(monitor::Error::RegisterChanged);
        }
        let next = Link {
            before,
            commitment: *new,
        };
        self.write_file(&[present, next])?;
        self.extend(&mut session, index, &next)
    }
}
