//! The static top of the tree: 63 spine nodes, and below them 64 partition nodes, each owned by one thread (protocol section 2).

use core::ops::Range;

use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::key::Key;

/// Depth of the partition nodes.
pub const DEPTH: u16 = 6;

/// Number of partitions.
pub const COUNT: u16 = 1 << DEPTH;

/// The partition node of that number, from left to right.
pub fn node(partition: u16) -> Key {
    let mut bits = [0; 32];
    bits[0] = (partition << (8 - DEPTH)) as u8; // partitions have 6 bits
    Key::prefix(bits, DEPTH)
}

/// The partition in which a key at or below the partition nodes lies.
pub fn of_key(key: &Key) -> u16 {
    u16::from(key.bits()[0] >> (8 - DEPTH))
}

/// The partitions that a thread owns.
pub fn of_thread(thread: ThreadId, threads: u16) -> Range<u16> {
    let share = COUNT / threads;
    thread * share..(thread + 1) * share
}

/// The thread that owns a key at or below the partition nodes.
pub fn thread_of(key: &Key, threads: u16) -> ThreadId {
    of_key(key) / (COUNT / threads)
}
