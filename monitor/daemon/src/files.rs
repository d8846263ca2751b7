//! Small files that must be whole: read with a limit, replaced at once, kept from others.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::failpoints::failpoint;
use crate::identity::{Secret, from_hex, to_hex};

/// Bytes of any file of the monitor at the most: what is longer is not ours.
const FILE_BYTES_MAX: u64 = 4096;
const CLIENT_KEY_PREFIX: &str = "zetakv-key-1 ";

/// Replace a file with mode 0600 so that after a crash either the old or the new content is there, and after return the new.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {} // a leftover of a crash might have another mode
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        failpoint!("file.before_write")?;
        file.write_all(content)?;
        failpoint!("file.before_sync")?;
        file.sync_all()?;
        let _ = failpoint!("file.before_rename");
        fs::rename(&temporary, path)?;
        let _ = failpoint!("file.after_rename");
        sync_parent(path)
    };
    written().map_err(Error::file("write", path))
}

/// Make a directory, and those above it, if they are not there. Their names are durable then.
pub fn make_directory(path: &Path) -> Result<(), Error> {
    let missing = |parent: &&Path| !parent.as_os_str().is_empty() && !parent.exists();
    if let Some(parent) = path.parent().filter(missing) {
        make_directory(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::file("create", path)(error)),
        _ => sync_name(path),
    }
}

/// Make the name of a directory durable, whoever has made it: a process that was killed may not have come to it.
fn sync_name(path: &Path) -> Result<(), Error> {
    match sync_parent(path) {
        // made by somebody else, since we may not even look
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(Error::file("sync the name of", path)),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// The content of a file; `None` if it does not exist.
pub fn read_file(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
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

fn look_at(path: &Path) -> Result<fs::Metadata, Error> {
    fs::metadata(path).map_err(Error::file("look at", path))
}

/// Refuse a file or directory of another user, who may change its mode.
pub fn refuse_other_owner(path: &Path) -> Result<(), Error> {
    if look_at(path)?.uid() == look_at(Path::new("/proc/self"))?.uid() {
        Ok(())
    } else {
        Err(Error::state(
            path,
            "another user's: run this as its owner, or give it to the user that the monitor runs as",
        ))
    }
}

/// Refuse a file or directory that others may use in one of these ways.
pub fn refuse_access_by_others(path: &Path, forbidden_mode: u32, advice: &'static str) -> Result<(), Error> {
    if look_at(path)?.mode() & forbidden_mode == 0 {
        Ok(())
    } else {
        Err(Error::state(path, advice))
    }
}

/// Read a client's key file; `None` if it does not exist.
pub fn read_client_key(path: &Path) -> Result<Option<SigningKey>, Error> {
    let Some(text) = read_file(path)? else {
        return Ok(None);
    };
    refuse_access_by_others(
        path,
        0o077,
        "others can read it: chmod 600, and consider it known to them",
    )?;
    std::str::from_utf8(&text)
        .ok()
        .and_then(|text| from_hex(text.trim_end().strip_prefix(CLIENT_KEY_PREFIX)?))
        .map(|seed| Some(SigningKey::from_bytes(&Secret::new(seed))))
        .ok_or_else(|| Error::state(path, "not a client key"))
}

/// Write a client's key file.
pub fn write_client_key(path: &Path, seed: &Secret) -> Result<(), Error> {
    let hex = Zeroizing::new(to_hex(seed.as_slice()));
    let text = Zeroizing::new(format!("{CLIENT_KEY_PREFIX}{}\n", *hex));
    replace_file(path, text.as_bytes())
}
