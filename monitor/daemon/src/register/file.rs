//! A register in a file, authenticated by a key that is derived from the root secret.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zetakv_verifier::codec::Reader;

use crate::error::Error;
use crate::files::replace_file;
use crate::identity::{Identity, Secret};
use crate::register::{Commitment, TrustedRegister};

const MAGIC: &[u8; 4] = b"ZKR1";
const COVERED_BYTES: usize = MAGIC.len() + 32 + 16;
const FILE_BYTES: usize = COVERED_BYTES + 32;

/// The register.
pub struct FileRegister {
    path: PathBuf,
    key: Secret,
}

impl FileRegister {
    /// A register in this file, which need not exist yet.
    pub fn new(path: PathBuf, key: Secret) -> Self {
        Self { path, key }
    }

    /// That of the monitor with this state directory and identity.
    pub fn open(directory: &Path, identity: &Identity) -> Box<dyn TrustedRegister> {
        let key = identity.register_key.clone();
        Box::new(Self::new(directory.join("register"), key))
    }

    fn encode(&self, commitment: &Commitment) -> [u8; FILE_BYTES] {
        let mut bytes = [0; FILE_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..36].copy_from_slice(&commitment.sealed);
        bytes[36..COVERED_BYTES].copy_from_slice(&commitment.incarnation);
        let mac = blake3::keyed_hash(&self.key, &bytes[..COVERED_BYTES]);
        bytes[COVERED_BYTES..].copy_from_slice(mac.as_bytes());
        bytes
    }
}

impl TrustedRegister for FileRegister {
    fn read(&self) -> Result<Commitment, Error> {
        let problem = |problem| Error::state(&self.path, problem);
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        match File::open(&self.path) {
            Ok(file) => file
                .take(FILE_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
                .map_err(Error::file("read", &self.path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(problem(
                    "the trusted register is missing: without it the monitor cannot tell whether a store is the latest; restore the file",
                ));
            }
            Err(error) => return Err(Error::file("read", &self.path)(error)),
        };
        let corrupt = || problem("the trusted register is corrupt, or belongs to another root.key; restore the file");
        let mut reader = Reader::new(bytes.get(MAGIC.len()..).unwrap_or_default());
        let (Ok(sealed), Ok(incarnation)) = (reader.array(), reader.array()) else {
            return Err(corrupt());
        };
        let commitment = Commitment {
            sealed: *sealed,
            incarnation: *incarnation,
        };
        // blake3's Hash compares in constant time
        let expected = blake3::hash(&self.encode(&commitment));
        if blake3::hash(&bytes) == expected {
            Ok(commitment)
        } else {
            Err(corrupt())
        }
    }

    fn initialize(&mut self, commitment: &Commitment) -> Result<(), Error> {
        replace_file(&self.path, &self.encode(commitment))
    }

    fn commit(&mut self, expected: &Commitment, new: &Commitment) -> Result<(), Error> {
        let held = self.read()?;
        // `new` after an attempt that failed when it had replaced the file: only that it is durable was not certain
        if held != *expected && held != *new {
            return Err(Error::RegisterChanged);
        }
        replace_file(&self.path, &self.encode(new))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::scratch::Scratch;

    fn to(byte: u8) -> Commitment {
        Commitment {
            sealed: [byte; 32],
            incarnation: [byte; 16],
        }
    }

    fn register(scratch: &Scratch, key: u8) -> FileRegister {
        FileRegister::new(scratch.path().join("register"), Secret::new([key; 32]))
    }

    #[test]
    fn holds_the_last_commitment() -> Result<(), Error> {
        let scratch = Scratch::new("register");
        let mut first = register(&scratch, 1);
        first.initialize(&to(0))?;
        first.commit(&to(0), &to(1))?;
        assert_eq!(register(&scratch, 1).read()?, to(1));
        Ok(())
    }

    #[test]
    fn refuses_to_replace_what_it_does_not_hold() -> Result<(), Error> {
        let scratch = Scratch::new("register");
        let mut one = register(&scratch, 1);
        one.initialize(&to(0))?;
        assert!(matches!(one.commit(&to(9), &to(1)), Err(Error::RegisterChanged)));
        assert_eq!(one.read()?, to(0));
        Ok(())
    }

    #[test]
    fn an_attempt_that_failed_is_made_again_whatever_the_register_holds_of_the_two() -> Result<(), Error> {
        let scratch = Scratch::new("register");
        let mut one = register(&scratch, 1);
        one.initialize(&to(0))?;
        let in_the_way = scratch.path().join("register.new");
        fs::create_dir(&in_the_way).map_err(Error::file("create", &in_the_way))?;
        assert!(matches!(one.commit(&to(0), &to(1)), Err(Error::File { .. })));
        assert_eq!(one.read()?, to(0), "it was not replaced");
        fs::remove_dir(&in_the_way).map_err(Error::file("remove", &in_the_way))?;
        one.commit(&to(0), &to(1))?;
        one.commit(&to(0), &to(1))?;
        assert_eq!(one.read()?, to(1));
        Ok(())
    }

    #[test]
    fn every_changed_byte_and_length_is_noticed() -> Result<(), Error> {
        let scratch = Scratch::new("register");
        let mut one = register(&scratch, 1);
        one.initialize(&to(7))?;
        let path = scratch.path().join("register");
        let good = fs::read(&path).map_err(Error::file("read", &path))?;
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            replace_file(&path, &bad)?;
            assert!(one.read().is_err(), "byte {index}");
        }
        for bad in [&good[..good.len() - 1], &[good.as_slice(), &[0]].concat(), &[]] {
            replace_file(&path, bad)?;
            assert!(one.read().is_err(), "{} bytes", bad.len());
        }
        replace_file(&path, &good)?;
        assert_eq!(one.read()?, to(7));
        assert!(register(&scratch, 2).read().is_err(), "another key");
        Ok(())
    }

    #[test]
    fn missing_is_an_error() {
        assert!(register(&Scratch::new("register"), 1).read().is_err());
    }
}
