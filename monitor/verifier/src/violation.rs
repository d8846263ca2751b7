//! Violations: what a host did that no honest host does. Each latches the monitor as failed, for ever.

use crate::codec::Malformed;
use crate::entry::ThreadId;
use crate::key::Key;

/// Bytes of a signed violation.
pub const VIOLATION_BYTES: usize = 4 + 16 + 16 + 2 + 2 + 4 + 8 + Key::ENCODED_BYTES + 64;

/// In place of a thread where none is concerned.
pub const NO_THREAD: ThreadId = u16::MAX;

/// What was violated. The numbers are those of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ViolationCode {
    /// The host wrote an entry that cannot be parsed.
    MalformedLog = 1,
    /// The host named a slot that does not exist.
    SlotOutOfRange = 2,
    /// The host added into an occupied slot.
    SlotOccupied = 3,
    /// The host named an empty slot where a record is needed.
    SlotEmpty = 4,
    /// The host added or evicted the root.
    RootIsPermanent = 5,
    /// The host added a key deeper than a leaf, or a value that does not fit its key.
    KeyNotAllowed = 6,
    /// The host named a leaf as a parent.
    ParentNotInternal = 7,
    /// The host named a parent that is not a proper ancestor.
    NotAnAncestor = 8,
    /// The host added a new record with a value other than the initial one.
    ValueNotInitial = 9,
    /// The host added a record whose value is not the one that its parent's hash names: the stored value was changed.
    HashMismatch = 10,
    /// The host added by Merkle a record that is in Blum.
    SideInBlum = 11,
    /// The host added a record that is cached already.
    AlreadyCached = 12,
    /// The host asked for a split where the side's record is not below the new node.
    SideNotDescendant = 13,
    /// The host evicted a record whose child is linked in the cache.
    ChildCached = 14,
    /// The host evicted to a parent whose side names another record.
    SideNamesOther = 15,
    /// The host evicted to a parent that is not linked to the record.
    LinkMismatch = 16,
    /// The host used evict_blum for a record that was added by Merkle.
    NotAddedByBlum = 17,
    /// The host used evict_blum_merkle for a record that was added by Blum.
    NotAddedByMerkle = 18,
    /// The host added a record with a timestamp of an epoch that is verified already.
    EpochClosed = 19,
    /// The host added a record with a timestamp of an epoch that the thread has not reached.
    EpochInFuture = 20,
    /// The host between next_epoch and verify_epoch, added a record of another epoch than the closing one.
    EpochNotClosing = 21,
    /// The host named a thread that does not exist.
    UnknownThread = 22,
    /// The host added a record with a timestamp that the evicting thread's clock has not passed in time: nobody evicted it.
    ClockNotPassed = 23,
    /// The host evicted a record not after the thread's clock and last key.
    TimestampNotIncreasing = 24,
    /// The host evicted a record with a timestamp outside the thread's epoch.
    TimestampEpoch = 25,
    /// The host drove a clock to its end.
    ClockOverflow = 26,
    /// The host closed or verified an epoch in the middle of a request.
    RequestInProgress = 27,
    /// The host asked for a next epoch twice, or for a request or run between next_epoch and verify_epoch.
    EpochAlreadyClosing = 28,
    /// The host asked to verify an epoch that is not closing, or with the clock not at its start.
    EpochNotClosingYet = 29,
    /// The host verified an epoch with a record still cached.
    CacheNotEmpty = 30,
    /// The host ran an operation where no request is waiting.
    NoRequest = 31,
    /// The host ran an operation on slots that do not hold exactly its keys.
    WrongRecord = 32,
    /// The host claimed a key to be absent that is not, or for an operation that is not a read.
    NotAbsent = 33,
    /// The host served or kept records in an epoch that differ from those that were proved: what was added is not what was evicted.
    EpochMismatch = 40,
    /// The host offered a sealed state that is not the latest: the store was put back to an older copy, or lost.
    Rollback = 41,
    /// The host offered a sealed state that this monitor did not make, or that was changed.
    SealedStateInvalid = 42,
    /// The host sent the monitor a message out of place.
    BadHostMessage = 43,
}

impl ViolationCode {
    /// All codes, in the order of their numbers.
    pub const ALL: &[Self] = &[
        Self::MalformedLog,
        Self::SlotOutOfRange,
        Self::SlotOccupied,
        Self::SlotEmpty,
        Self::RootIsPermanent,
        Self::KeyNotAllowed,
        Self::ParentNotInternal,
        Self::NotAnAncestor,
        Self::ValueNotInitial,
        Self::HashMismatch,
        Self::SideInBlum,
        Self::AlreadyCached,
        Self::SideNotDescendant,
        Self::ChildCached,
        Self::SideNamesOther,
        Self::LinkMismatch,
        Self::NotAddedByBlum,
        Self::NotAddedByMerkle,
        Self::EpochClosed,
        Self::EpochInFuture,
        Self::EpochNotClosing,
        Self::UnknownThread,
        Self::ClockNotPassed,
        Self::TimestampNotIncreasing,
        Self::TimestampEpoch,
        Self::ClockOverflow,
        Self::RequestInProgress,
        Self::EpochAlreadyClosing,
        Self::EpochNotClosingYet,
        Self::CacheNotEmpty,
        Self::NoRequest,
        Self::WrongRecord,
        Self::NotAbsent,
        Self::EpochMismatch,
        Self::Rollback,
        Self::SealedStateInvalid,
        Self::BadHostMessage,
    ];

    /// Its name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedLog => "malformed_log",
            Self::SlotOutOfRange => "slot_out_of_range",
            Self::SlotOccupied => "slot_occupied",
            Self::SlotEmpty => "slot_empty",
            Self::RootIsPermanent => "root_is_permanent",
            Self::KeyNotAllowed => "key_not_allowed",
            Self::ParentNotInternal => "parent_not_internal",
            Self::NotAnAncestor => "not_an_ancestor",
            Self::ValueNotInitial => "value_not_initial",
            Self::HashMismatch => "hash_mismatch",
            Self::SideInBlum => "side_in_blum",
            Self::AlreadyCached => "already_cached",
            Self::SideNotDescendant => "side_not_descendant",
            Self::ChildCached => "child_cached",
            Self::SideNamesOther => "side_names_other",
            Self::LinkMismatch => "link_mismatch",
            Self::NotAddedByBlum => "not_added_by_blum",
            Self::NotAddedByMerkle => "not_added_by_merkle",
            Self::EpochClosed => "epoch_closed",
            Self::EpochInFuture => "epoch_in_future",
            Self::EpochNotClosing => "epoch_not_closing",
            Self::UnknownThread => "unknown_thread",
            Self::ClockNotPassed => "clock_not_passed",
            Self::TimestampNotIncreasing => "timestamp_not_increasing",
            Self::TimestampEpoch => "timestamp_epoch",
            Self::ClockOverflow => "clock_overflow",
            Self::RequestInProgress => "request_in_progress",
            Self::EpochAlreadyClosing => "epoch_already_closing",
            Self::EpochNotClosingYet => "epoch_not_closing_yet",
            Self::CacheNotEmpty => "cache_not_empty",
            Self::NoRequest => "no_request",
            Self::WrongRecord => "wrong_record",
            Self::NotAbsent => "not_absent",
            Self::EpochMismatch => "epoch_mismatch",
            Self::Rollback => "rollback",
            Self::SealedStateInvalid => "sealed_state_invalid",
            Self::BadHostMessage => "bad_host_message",
        }
    }
}

/// A violation, and where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What was violated.
    pub code: ViolationCode,
    /// The verifier thread, or [`NO_THREAD`].
    pub thread: ThreadId,
    /// The thread's epoch, or the one that was aggregated.
    pub epoch: u32,
    /// Bytes into the thread's log of this incarnation, where the entry starts.
    pub offset: u64,
    /// The record concerned; the root where none is.
    pub key: Key,
}

impl From<Malformed> for ViolationCode {
    fn from(_: Malformed) -> Self {
        Self::MalformedLog
    }
}
