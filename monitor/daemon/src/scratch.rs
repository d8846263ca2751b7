//! A directory for one test, removed afterwards.

use std::path::{Path, PathBuf};

/// The directory.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let random: [u8; 8] = crate::identity::random().expect("tests need random names");
        let path = std::env::temp_dir().join(format!("zetakv-{name}-{}", crate::identity::to_hex(&random)));
        std::fs::create_dir_all(&path).expect("tests need a directory");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // a leftover in the temporary directory harms nobody
    }
}
