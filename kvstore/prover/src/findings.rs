//! What the walk over a store tells: what is wrong, and how much was looked at.

use crate::derive::SUBTREE_RECORDS_MAX;

/// Findings that are kept: of a store that is wrong all over, the first ones tell as much as all.
pub const FINDINGS_MAX: usize = 10_000;

/// Keys that a finding names, where it may be any of them: as many records as a subtree without rows has.
pub const FINDING_KEYS_MAX: usize = SUBTREE_RECORDS_MAX as usize;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The row is not what its parent's hash, or its own checksum, says.
    Changed,
    /// The tree leads to it, and there is no such row.
    Missing,
    /// The row cannot be read, or is under another's store key.
    Garbled,
    /// Nothing in the tree leads to this row.
    Extra,
    /// One or more of the records below a node were changed, added or removed; each row for itself looks right.
    SubtreeChanged,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong with it.
    pub kind: Kind,
    /// Its store key, or what it would be.
    pub store_key: Vec<u8>,
    /// Application keys: of the record, or of the first records below the node.
    pub keys: Vec<Vec<u8>>,
    /// Of a node: the records below it.
    pub records_below: u64,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records that the tree leads to, null ones included.
    pub records: u64,
    /// Nodes, with a row or without.
    pub nodes: u64,
    /// Records and nodes in Blum.
    pub in_blum: u64,
    /// Records of `records` that nothing is known against, but whose hash is vouched for by a wrong node only.
    pub unproved: u64,
    /// All findings, also those that were not kept.
    pub findings: u64,
}
