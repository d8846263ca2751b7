//! Violations: what a host did that no honest host does. Each latches the monitor as failed, for as long as its process runs.

use crate::codec::Malformed;
use crate::entry::ThreadId;
use crate::key::Key;

/// Bytes of a signed violation: the protocol's table of its fields.
pub const VIOLATION_BYTES: usize = 150;

/// In place of a thread where none is concerned.
pub const NO_THREAD: ThreadId = u16::MAX;

macro_rules! violation_codes {
    ($($(#[$doc:meta])+ $code:ident = $number:literal $name:literal,)+) => {
        /// What was violated. The numbers are those of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ViolationCode {
            $($(#[$doc])+ $code = $number,)+
        }

        impl ViolationCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$code),+];

            /// Its name in the protocol.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)+
                }
            }
        }
    };
}

violation_codes! {
    /// The host wrote an entry that cannot be parsed.
    MalformedLog = 1 "malformed_log",
    /// The host named a slot that does not exist.
    SlotOutOfRange = 2 "slot_out_of_range",
    /// The host added into an occupied slot.
    SlotOccupied = 3 "slot_occupied",
    /// The host named an empty slot where a record is needed.
    SlotEmpty = 4 "slot_empty",
    /// The host added or evicted the root.
    RootIsPermanent = 5 "root_is_permanent",
    /// The host added a key deeper than a leaf, or a value that does not fit its key.
    KeyNotAllowed = 6 "key_not_allowed",
    /// The host named a leaf as a parent.
    ParentNotInternal = 7 "parent_not_internal",
    /// The host named a parent that is not a proper ancestor.
    NotAnAncestor = 8 "not_an_ancestor",
    /// The host added a new record with a value other than the initial one.
    ValueNotInitial = 9 "value_not_initial",
    /// The host added a record whose value is not the one that its parent's hash names: the stored value was changed.
    HashMismatch = 10 "hash_mismatch",
    /// The host added by Merkle a record that is in Blum.
    SideInBlum = 11 "side_in_blum",
    /// The host added a record that is cached already.
    AlreadyCached = 12 "already_cached",
    /// The host asked for a split where the side's record is not below the new node.
    SideNotDescendant = 13 "side_not_descendant",
    /// The host evicted a record whose child is linked in the cache.
    ChildCached = 14 "child_cached",
    /// The host evicted to a parent whose side names another record.
    SideNamesOther = 15 "side_names_other",
    /// The host evicted to a parent that is not linked to the record.
    LinkMismatch = 16 "link_mismatch",
    /// The host used evict_blum for a record that was added by Merkle.
    NotAddedByBlum = 17 "not_added_by_blum",
    /// The host used evict_blum_merkle for a record that was added by Blum.
    NotAddedByMerkle = 18 "not_added_by_merkle",
    /// The host added a record with a timestamp of an epoch that is over for the thread.
    EpochClosed = 19 "epoch_closed",
    /// The host added a record with a timestamp of an epoch that the thread has not reached.
    EpochInFuture = 20 "epoch_in_future",
    /// The host carried a record over where no epoch is closing, or from another epoch.
    EpochNotClosing = 21 "epoch_not_closing",
    /// The host named a thread that does not exist.
    UnknownThread = 22 "unknown_thread",
    /// The host added a record with a timestamp that the evicting thread's clock has not passed in time: nobody evicted it.
    ClockNotPassed = 23 "clock_not_passed",
    /// The host evicted a record not after the thread's clock.
    TimestampNotIncreasing = 24 "timestamp_not_increasing",
    /// The host evicted a record with a timestamp outside the thread's epoch.
    TimestampEpoch = 25 "timestamp_epoch",
    /// The host drove a clock to its end.
    ClockOverflow = 26 "clock_overflow",
    /// The host closed an epoch in the middle of a request.
    RequestInProgress = 27 "request_in_progress",
    /// The host asked to verify an epoch that is not closing.
    EpochNotClosingYet = 29 "epoch_not_closing_yet",
    /// The host closed an epoch with a record still cached.
    CacheNotEmpty = 30 "cache_not_empty",
    /// The host ran an operation where no request is waiting.
    NoRequest = 31 "no_request",
    /// The host ran an operation on slots that do not hold exactly its keys.
    WrongRecord = 32 "wrong_record",
    /// The host claimed a key to be absent that is not, or for an operation that is not a read.
    NotAbsent = 33 "not_absent",
    /// The host carried a record over that another thread evicted in the closing epoch.
    CarriedFromOther = 34 "carried_from_other",
    /// The host served or kept records in an epoch that differ from those that were proved: what was added is not what was evicted.
    EpochMismatch = 40 "epoch_mismatch",
    /// The host offered a sealed state that is not the latest: the store was put back to an older copy, or lost.
    Rollback = 41 "rollback",
    /// The host offered a sealed state that this monitor did not make, or that was changed.
    SealedStateInvalid = 42 "sealed_state_invalid",
    /// The host sent the monitor a message out of place.
    BadHostMessage = 43 "bad_host_message",
    /// The host replayed a write-ahead log that is not the one of the latest incarnation: it was changed, or belongs elsewhere.
    LogChanged = 44 "log_changed",
    /// The host replayed requests after the replay had ended, or without a write-ahead log.
    NotReplaying = 45 "not_replaying",
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
