//! The monitor's state directory: the root secret, the register, and the two files that operators read.
//!
//! | file | holds | mode |
//! |---|---|---|
//! | `root.key` | the root secret, 32 random bytes; everything else is derived from it | 0600 |
//! | `register` | the commitment to the latest sealed state and start, where the register is a file | 0600 |
//! | `register.tpm` | what the digest in the TPM stands for, where the register is in one | 0600 |
//! | `admin.key` | `zetakv-key-1 <hex of the Ed25519 seed>`: the first client of a fresh instance. May be moved away once an epoch is certified | 0600 |
//! | `fingerprint` | the public identity key in hex, for clients to pin | 0600 |
//! | `lock` | nothing: held while a monitor runs, since two with one root secret could certify two versions of an epoch | |
//!
//! At the first start the register is written before `root.key`, and `fingerprint` last. So a directory without `root.key` but with
//! `fingerprint` has lost its secret, and is refused instead of being set up as another instance.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;

use crate::error::Error;
use crate::files::{
    make_directory, read_client_key, read_file, refuse_access_by_others, refuse_other_owner, replace_file,
    write_client_key,
};
use crate::identity::{Identity, IncarnationId, KEY_BYTES, PublicKey, Secret, random};
use crate::register::{Commitment, OpenRegister, TrustedRegister};
use crate::sealed::genesis_hash;

/// An opened state directory.
pub struct StateDirectory {
    path: PathBuf,
    /// Keeps other monitors out for as long as it is open.
    _lock: File,
    /// The keys.
    pub identity: Identity,
    register: OpenRegister,
}

impl StateDirectory {
    /// Open the directory, or set it up if it is new.
    pub fn open(path: &Path, register: OpenRegister) -> Result<Self, Error> {
        make_directory(path)?;
        let lock = take_directory(path)?;
        let root = match read_root(path)? {
            Some(root) => root,
            None if path.join("fingerprint").exists() => {
                return Err(Error::state(
                    &path.join("root.key"),
                    "missing, though this directory has been in use: restore it from a copy (or use an empty directory for a new store)",
                ));
            }
            None => create_root(path, &register)?,
        };
        let directory = Self {
            path: path.to_owned(),
            _lock: lock,
            identity: Identity::derive(&root),
            register,
        };
        let fingerprint = directory.identity.fingerprint() + "\n";
        let fingerprint_path = path.join("fingerprint");
        if read_file(&fingerprint_path)?.is_none_or(|old| *old != fingerprint.as_bytes()) {
            replace_file(&fingerprint_path, fingerprint.as_bytes())?;
        }
        match directory.register().read() {
            Ok(committed) if committed.sealed == genesis_hash() => {
                directory.first_admin()?; // so that the operator has the key before the first start
            }
            Ok(_) | Err(Error::RegisterPutBack(_)) => {} // the latter is refused at the start, with a name
            Err(error) => return Err(error),
        }
        Ok(directory)
    }

    /// Open a directory that has been set up, and look at nothing but its keys.
    pub fn open_existing(path: &Path, register: OpenRegister) -> Result<Self, Error> {
        let lock = take_directory(path)?;
        let root = read_root(path)?.ok_or_else(|| Error::state(path, "not the state directory of a monitor"))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            identity: Identity::derive(&root),
            register,
        })
    }

    /// Its register.
    pub fn register(&self) -> Box<dyn TrustedRegister> {
        (self.register)(&self.path, &self.identity)
    }

    /// The public key of the first admin: that of `admin.key`, which is created if it does not exist.
    ///
    /// Only for an instance without a sealed state: later the sealed state says who the clients are, and the file may be gone.
    pub fn first_admin(&self) -> Result<PublicKey, Error> {
        let path = self.path.join("admin.key");
        let key = match read_client_key(&path)? {
            Some(key) => key,
            None => {
                let seed = Secret::new(random()?);
                write_client_key(&path, &seed)?;
                SigningKey::from_bytes(&seed)
            }
        };
        Ok(key.verifying_key().to_bytes())
    }
}

/// The directory's lock, if the directory is nobody else's.
fn take_directory(path: &Path) -> Result<File, Error> {
    refuse_other_owner(path)?;
    refuse_access_by_others(path, 0o022, "others can write to it: chmod 700")?;
    take_lock(&path.join("lock"))
}

fn read_root(directory: &Path) -> Result<Option<Secret>, Error> {
    let path = directory.join("root.key");
    let Some(bytes) = read_file(&path)? else {
        return Ok(None);
    };
    refuse_other_owner(&path)?;
    refuse_access_by_others(
        &path,
        0o077,
        "others can read it: chmod 600, and consider it known to them",
    )?;
    root_from(&bytes)
        .map(Some)
        .ok_or_else(|| Error::state(&path, "not 32 bytes: restore it from a copy"))
}

fn create_root(directory: &Path, register: &OpenRegister) -> Result<Secret, Error> {
    let root = Secret::new(random()?);
    register(directory, &Identity::derive(&root)).initialize(&genesis())?;
    replace_file(&directory.join("root.key"), root.as_slice())?;
    Ok(root)
}

/// Before the first start.
fn genesis() -> Commitment {
    Commitment {
        sealed: genesis_hash(),
        incarnation: IncarnationId::default(),
    }
}

fn root_from(bytes: &[u8]) -> Option<Secret> {
    let mut root = Secret::new([0; KEY_BYTES]);
    if bytes.len() != KEY_BYTES {
        return None;
    }
    root.copy_from_slice(bytes);
    Some(root)
}

fn take_lock(path: &Path) -> Result<File, Error> {
    let lock = File::create(path).map_err(Error::file("open", path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::state(
            path,
            "another monitor runs on this state directory: stop it first",
        )),
        Err(TryLockError::Error(error)) => Err(Error::file("lock", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;
    use crate::register::file::FileRegister;
    use crate::scratch::Scratch;

    fn open(path: &Path) -> Result<StateDirectory, Error> {
        StateDirectory::open(path, Box::new(FileRegister::open))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_sets_up_and_later_ones_find_the_same() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        let path = scratch.path().join("monitor");
        let first = open(&path)?;
        let (fingerprint, admin) = (first.identity.fingerprint(), first.first_admin()?);
        drop(first);

        let again = open(&path)?;
        assert_eq!(
            (again.identity.fingerprint(), again.first_admin()?),
            (fingerprint.clone(), admin)
        );
        assert_eq!(
            fs::read_to_string(path.join("fingerprint")).ok(),
            Some(fingerprint + "\n")
        );
        assert_eq!(mode(&path), 0o700);
        for file in ["root.key", "admin.key", "register"] {
            assert_eq!(mode(&path.join(file)), 0o600, "{file}");
        }
        Ok(())
    }

    #[test]
    fn two_monitors_do_not_share_a_directory() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        let _first = open(scratch.path())?;
        assert!(open(scratch.path()).is_err());
        Ok(())
    }

    #[test]
    fn a_lost_root_key_is_not_replaced() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        drop(open(scratch.path())?);
        fs::remove_file(scratch.path().join("root.key")).expect("exists");
        assert!(open(scratch.path()).is_err());
        Ok(())
    }

    #[test]
    fn an_interrupted_first_start_is_done_again() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        drop(open(scratch.path())?);
        for file in ["root.key", "fingerprint", "admin.key"] {
            fs::remove_file(scratch.path().join(file)).expect("exists");
        }
        let directory = open(scratch.path())?;
        assert_eq!(directory.register().read()?, genesis());
        Ok(())
    }

    #[test]
    fn a_readable_root_key_and_a_lost_register_are_refused() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        drop(open(scratch.path())?);
        let root = scratch.path().join("root.key");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o640)).expect("ours");
        assert!(open(scratch.path()).is_err());
        fs::set_permissions(&root, fs::Permissions::from_mode(0o600)).expect("ours");
        drop(open(scratch.path())?);
        fs::remove_file(scratch.path().join("register")).expect("exists");
        assert!(open(scratch.path()).is_err());
        Ok(())
    }

    #[test]
    fn what_others_can_write_to_or_own_is_refused() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        let path = scratch.path().join("above").join("monitor");
        drop(open(&path)?);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).expect("ours");
        assert!(open(&path).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("ours");
        const SOMEBODY: u32 = 65_534;
        for owned in [path.clone(), path.join("root.key")] {
            if chown(&owned, Some(SOMEBODY), None).is_err() {
                return Ok(()); // only root can give a file away
            }
            assert!(open(&path).is_err(), "{owned:?}");
            chown(&owned, Some(0), None).expect("ours again");
        }
        open(&path).map(drop)
    }

    #[test]
    fn the_admin_key_is_not_created_again_for_an_instance_in_use() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        let directory = open(scratch.path())?;
        directory.register().commit(
            &genesis(),
            &Commitment {
                sealed: [1; 32],
                ..genesis()
            },
        )?;
        drop(directory);
        fs::remove_file(scratch.path().join("admin.key")).expect("exists");
        drop(open(scratch.path())?);
        assert!(!scratch.path().join("admin.key").exists());
        Ok(())
    }
}
