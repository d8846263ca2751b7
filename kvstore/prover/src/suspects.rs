//! Rows whose checksum is not that of what they hold: damaged, or changed by somebody who did not care for it.
//!
//! The host goes on with them all the same: what a row is worth, the monitor says. But its violation may name no key (`epoch_mismatch`), or a
//! node with several records below it; the host can then add which rows looked wrong.

use crate::rows::Checksum;

/// Suspects that are remembered: enough to see what kind of damage it is. `zetakv verify` finds all.
pub const SUSPECTS_MAX: usize = 16;

/// A row that looked wrong when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its store key.
    pub store_key: Vec<u8>,
    /// Of a record: the application's key that the row has.
    pub application_key: Option<Vec<u8>>,
}

/// The first rows that looked wrong, each once.
#[derive(Debug, Default)]
pub struct Suspects(Vec<Suspect>);

impl Suspects {
    /// Compare what a row says with what it holds; `suspect` is called if they differ.
    pub fn compare(&mut self, said: Checksum, held: Checksum, suspect: impl FnOnce() -> Suspect) {
        if said == held || self.0.len() == SUSPECTS_MAX {
            return;
        }
        let suspect = suspect();
        if !self.0.contains(&suspect) {
            self.0.push(suspect);
        }
    }

    /// In the order in which they were read.
    pub fn as_slice(&self) -> &[Suspect] {
        &self.0
    }
}
