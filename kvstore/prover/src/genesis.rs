//! The very first start: the spine of the tree, written by thread 0, and the partition nodes in Blum, where their owners find them.
//!
//! Threads do not talk to each other: that partition p is evicted to Blum by thread 0 at (first epoch, 2 + p) is what all of them know.

use zetakv_verifier::entry::{Slot, ThreadId};
use zetakv_verifier::key::Key;
use zetakv_verifier::time::Timestamp;

use crate::cache::ROOT_SLOT;
use crate::error::Error;
use crate::mirror::Mirror;
use crate::partitions;

/// The thread that has the root.
pub const ROOT_THREAD: ThreadId = 0;

/// Counter of the timestamp at which partition 0 is evicted: the first after the start of the clock.
const FIRST_COUNTER: u32 = 2;

/// Thread 0: write the spine.
pub fn write_spine(mirror: &mut Mirror, threads: u16) -> Result<(), Error> {
    let root = mirror.place_root();
    write_below(mirror, threads, &Key::ROOT, ROOT_SLOT)?;
    mirror.forget_root(root);
    mirror.tick() // past the last eviction, so that its owner may add it
}

fn write_below(mirror: &mut Mirror, threads: u16, parent: &Key, parent_slot: Slot) -> Result<(), Error> {
    for side in [0, 1] {
        let key = child(parent, side);
        let slot = mirror.make_room(parent_slot)?;
        let id = mirror.add_new(key, None, slot, parent_slot)?;
        if key.depth() < partitions::DEPTH {
            write_below(mirror, threads, &key, slot)?;
            mirror.evict_merkle(slot, parent_slot)?;
            continue;
        }
        mirror.evict_blum_merkle(slot)?; // at `evicted_at`: nothing else has moved the clock
        if partitions::thread_of(&key, threads) != mirror.thread {
            mirror.forget(id);
        }
    }
    Ok(())
}

/// The child of a spine node, whose path has less than 8 bits.
fn child(parent: &Key, side: u8) -> Key {
    let mut bits = *parent.bits();
    bits[0] |= side << (7 - parent.depth());
    Key::prefix(bits, parent.depth() + 1)
}

/// Other threads: know their partition nodes, as thread 0 leaves them.
pub fn find_partitions(mirror: &mut Mirror, threads: u16) {
    for partition in partitions::of_thread(mirror.thread, threads) {
        let id = mirror.records.insert_new(partitions::node(partition), None);
        mirror.found_in_blum(id, evicted_at(mirror.clock.epoch, partition), ROOT_THREAD);
    }
}

fn evicted_at(epoch: u32, partition: u16) -> Timestamp {
    Timestamp::new(epoch, FIRST_COUNTER + u32::from(partition))
}
