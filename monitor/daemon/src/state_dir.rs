//! The monitor's state directory: the root secret, the register, and the two files that operators read.
//!
//! | file | holds | mode |
//! |---|---|---|
//! | `root.key` | the root secret, 32 random bytes; everything else is derived from it | 0600 |
//! | `register` | the commitment to the latest sealed state and start | 0600 |
//! | `admin.key` | `zetakv-key-1 <hex of the Ed25519 seed>`: the first client of a fresh instance. May be moved away once an epoch is certified | 0600 |
//! | `fingerprint` | the public identity key in hex, for clients to pin | 0600 |
//! | `lock` | nothing: held while a monitor runs, since two with one root secret could certify two versions of an epoch | |
//!
//! At the first start the register is written before `root.key`, and `fingerprint` last. So a directory without `root.key` but with
//! `fingerprint` has lost its secret, and is refused instead of being set up as another instance.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::identity::{Identity, IncarnationId, KEY_BYTES, PublicKey, Secret, from_hex, random, to_hex};
use crate::register::{Commitment, FileRegister, TrustedRegister as _, replace_file};
use crate::sealed::genesis_hash;

const ADMIN_KEY_PREFIX: &str = "zetakv-key-1 ";
/// Bytes of any file here at the most: what is longer is not ours.
const FILE_BYTES_MAX: u64 = 4096;

/// An opened state directory.
pub struct StateDirectory {
    path: PathBuf,
    /// Keeps other monitors out for as long as it is open.
    _lock: File,
    /// The keys.
    pub identity: Identity,
}

impl StateDirectory {
    /// Open the directory, or set it up if it is new.
    pub fn open(path: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(Error::file("create", path))?;
        refuse_access_by_others(path, 0o022, "others can write to it: chmod 700")?;
        let lock = take_lock(&path.join("lock"))?;

        let root_path = path.join("root.key");
        let root = match read_file(&root_path)? {
            Some(bytes) => {
                refuse_access_by_others(
                    &root_path,
                    0o077,
                    "others can read it: chmod 600, and consider it known to them",
                )?;
                root_from(&bytes).ok_or_else(|| problem(&root_path, "not 32 bytes: restore it from a copy"))?
            }
            None if path.join("fingerprint").exists() => {
                return Err(problem(
                    &root_path,
                    "missing, though this directory has been in use: restore it from a copy (or use an empty directory for a new store)",
                ));
            }
            None => create_root(path, &root_path)?,
        };
        let directory = Self {
            path: path.to_owned(),
            _lock: lock,
            identity: Identity::derive(&root),
        };
        let fingerprint = directory.identity.fingerprint() + "\n";
        let fingerprint_path = path.join("fingerprint");
        if read_file(&fingerprint_path)?.is_none_or(|old| *old != fingerprint.as_bytes()) {
            replace_file(&fingerprint_path, fingerprint.as_bytes())?;
        }
        if directory.register().read()?.sealed == genesis_hash() {
            directory.first_admin()?; // so that the operator has the key before the first start
        }
        Ok(directory)
    }

    /// The register in this directory.
    pub fn register(&self) -> FileRegister {
        register_in(&self.path, &self.identity)
    }

    /// The public key of the first admin: that of `admin.key`, which is created if it does not exist.
    ///
    /// Only for an instance without a sealed state: later the sealed state says who the clients are, and the file may be gone.
    pub fn first_admin(&self) -> Result<PublicKey, Error> {
        let path = self.path.join("admin.key");
        let seed = match read_file(&path)? {
            Some(text) => {
                refuse_access_by_others(&path, 0o077, "others can read it: remove it for a new one")?;
                std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| from_hex(text.trim_end().strip_prefix(ADMIN_KEY_PREFIX)?))
                    .map(Secret::new)
                    .ok_or_else(|| problem(&path, "not a client key: remove it for a new one"))?
            }
            None => {
                let seed = Secret::new(random()?);
                let hex = Zeroizing::new(to_hex(seed.as_slice()));
                let text = Zeroizing::new(format!("{ADMIN_KEY_PREFIX}{}\n", *hex));
                replace_file(&path, text.as_bytes())?;
                seed
            }
        };
        Ok(SigningKey::from_bytes(&seed).verifying_key().to_bytes())
    }
}

fn register_in(directory: &Path, identity: &Identity) -> FileRegister {
    FileRegister::new(directory.join("register"), identity.register_key.clone())
}

fn create_root(directory: &Path, root_path: &Path) -> Result<Secret, Error> {
    let root = Secret::new(random()?);
    register_in(directory, &Identity::derive(&root)).initialize(&genesis())?;
    replace_file(root_path, root.as_slice())?;
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
        Err(TryLockError::WouldBlock) => Err(problem(
            path,
            "another monitor runs on this state directory: stop it first",
        )),
        Err(TryLockError::Error(error)) => Err(Error::file("lock", path)(error)),
    }
}

fn read_file(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    match File::open(path) {
        Ok(file) => {
            // room for all, so that no copy is left behind by growing
            let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
            file.take(FILE_BYTES_MAX)
                .read_to_end(&mut bytes)
                .map_err(Error::file("read", path))?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("open", path)(error)),
    }
}

fn refuse_access_by_others(path: &Path, forbidden_mode: u32, advice: &'static str) -> Result<(), Error> {
    let mode = fs::metadata(path)
        .map_err(Error::file("look at", path))?
        .permissions()
        .mode();
    if mode & forbidden_mode == 0 {
        Ok(())
    } else {
        Err(problem(path, advice))
    }
}

fn problem(path: &Path, problem: &'static str) -> Error {
    Error::State {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_sets_up_and_later_ones_find_the_same() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        let path = scratch.path().join("monitor");
        let first = StateDirectory::open(&path)?;
        let (fingerprint, admin) = (first.identity.fingerprint(), first.first_admin()?);
        drop(first);

        let again = StateDirectory::open(&path)?;
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
        let _first = StateDirectory::open(scratch.path())?;
        assert!(StateDirectory::open(scratch.path()).is_err());
        Ok(())
    }

    #[test]
    fn a_lost_root_key_is_not_replaced() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        drop(StateDirectory::open(scratch.path())?);
        fs::remove_file(scratch.path().join("root.key")).expect("exists");
        assert!(StateDirectory::open(scratch.path()).is_err());
        Ok(())
    }

    #[test]
    fn an_interrupted_first_start_is_done_again() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        drop(StateDirectory::open(scratch.path())?);
        for file in ["root.key", "fingerprint", "admin.key"] {
            fs::remove_file(scratch.path().join(file)).expect("exists");
        }
        let directory = StateDirectory::open(scratch.path())?;
        assert_eq!(directory.register().read()?, genesis());
        Ok(())
    }

    #[test]
    fn a_readable_root_key_and_a_lost_register_are_refused() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        drop(StateDirectory::open(scratch.path())?);
        let root = scratch.path().join("root.key");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o640)).expect("ours");
        assert!(StateDirectory::open(scratch.path()).is_err());
        fs::set_permissions(&root, fs::Permissions::from_mode(0o600)).expect("ours");
        drop(StateDirectory::open(scratch.path())?);
        fs::remove_file(scratch.path().join("register")).expect("exists");
        assert!(StateDirectory::open(scratch.path()).is_err());
        Ok(())
    }

    #[test]
    fn the_admin_key_is_not_created_again_for_an_instance_in_use() -> Result<(), Error> {
        let scratch = Scratch::new("state");
        let directory = StateDirectory::open(scratch.path())?;
        directory.register().commit(
            &genesis(),
            &Commitment {
                sealed: [1; 32],
                ..genesis()
            },
        )?;
        drop(directory);
        fs::remove_file(scratch.path().join("admin.key")).expect("exists");
        drop(StateDirectory::open(scratch.path())?);
        assert!(!scratch.path().join("admin.key").exists());
        Ok(())
    }
}
