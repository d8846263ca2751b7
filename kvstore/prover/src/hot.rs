//! At a start: what is in Blum since the last checkpoint. The hot markers say so; but the marker of a record has only its store key, so who
//! it is shows in its row, which the first carry-over needs in memory anyway.

use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::key::Key;
use zetakv_verifier::time::Timestamp;

use crate::derive::FoundRecord;
use crate::error::Error;
use crate::mirror::Mirror;
use crate::partitions;
use crate::reading::{MISSING, Reads, read_record};
use crate::records::{Content, Leaf, Place, RecordId};
use crate::rows::{self, Marked};
use crate::suspects::Suspects;

/// The hot set of a thread while it is loaded.
#[derive(Debug)]
pub struct HotSet {
    thread: ThreadId,
    threads: u16,
    previous_threads: u16,
    /// Records whose rows may be read at once.
    records_at_once: usize,
    /// Store keys of the records whose rows are still to be read, the next one last.
    records: Vec<Vec<u8>>,
}

impl HotSet {
    pub const fn new(thread: ThreadId, threads: u16, previous_threads: u16, records_at_once: usize) -> Self {
        Self {
            thread,
            threads,
            previous_threads,
            records_at_once,
            records: Vec::new(),
        }
    }

    /// Take the store keys of the markers, all at once.
    pub fn load<K: AsRef<[u8]>>(
        &mut self,
        mirror: &mut Mirror,
        markers: impl IntoIterator<Item = K>,
    ) -> Result<(), Error> {
        for marker in markers {
            let marker = marker.as_ref();
            match rows::decode_hot_key(marker) {
                Ok(Marked::Node(key)) => drop(self.found(mirror, key, Content::NotLoaded, marker)?),
                Ok(Marked::Record(store_key)) => self.records.push(store_key),
                Err(_) => return Err(Error::in_row("the key of a hot marker is garbled", marker)),
            }
        }
        self.records.reverse();
        Ok(())
    }

    /// Whether all of it is in memory.
    pub const fn is_loaded(&self) -> bool {
        self.records.is_empty()
    }

    /// The rows that are read next.
    pub fn reads(&self) -> Reads {
        let next = self.records.iter().rev().take(self.records_at_once);
        Reads {
            keys: next.cloned().collect(),
            ranges: Vec::new(),
        }
    }

    /// Take the rows of the last [`Self::reads`] into memory.
    pub fn supply<R: AsRef<[u8]>>(
        &mut self,
        mirror: &mut Mirror,
        suspects: &mut Suspects,
        rows: &[Option<R>],
    ) -> Result<(), Error> {
        if rows.len() != self.records.len().min(self.records_at_once) {
            return Err(Error::Engine("as many rows must be supplied as were asked for"));
        }
        for row in rows {
            let Some(store_key) = self.records.pop() else { break };
            let row = row
                .as_ref()
                .ok_or_else(|| Error::in_row(MISSING, store_key.as_slice()))?;
            let FoundRecord {
                key,
                value,
                commitment,
                has_long_key,
                ..
            } = read_record(&store_key, row.as_ref(), suspects)?;
            let id = self.found(mirror, key, Content::Leaf(Leaf::new(commitment, value)), &store_key)?;
            mirror.records.get_mut(id).has_long_key = has_long_key;
            mirror.records.sweep_later(id);
        }
        mirror.records.sweep();
        Ok(())
    }

    fn found(&self, mirror: &mut Mirror, key: Key, content: Content, named_by: &[u8]) -> Result<RecordId, Error> {
        if key.depth() < partitions::DEPTH || partitions::thread_of(&key, self.threads) != self.thread {
            return Err(Error::in_row("a hot marker belongs to another thread", named_by));
        }
        if mirror.records.find(&key).is_some() {
            return Err(Error::in_row("a hot marker was loaded twice", named_by));
        }
        let id = mirror.records.insert(key, content, Place::Merkle);
        mirror.records.get_mut(id).has_hot_row = true;
        let evicted_at = Timestamp::new(mirror.clock.epoch, 0);
        mirror.found_in_blum(id, evicted_at, partitions::thread_of(&key, self.previous_threads));
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::HotSize;
    use crate::records::Records;
    use crate::rows::{RecordRow, hot_key, record_key};

    const EPOCH: u32 = 7;
    const RECORDS_AT_ONCE: usize = 2;

    fn mirror() -> Mirror {
        let most = HotSize {
            records: usize::MAX,
            bytes: usize::MAX,
        };
        Mirror::new(0, EPOCH, 80, most, Records::new(usize::MAX, usize::MAX))
    }

    fn hot_set(threads: u16) -> HotSet {
        HotSet::new(0, threads, 2, RECORDS_AT_ONCE)
    }

    fn row(application_key: &[u8]) -> Option<Vec<u8>> {
        let mut row = Vec::new();
        RecordRow::new(application_key, Some(b"value")).encode(&mut row);
        Some(row)
    }

    #[test]
    fn nodes_and_records_are_found_in_blum() {
        let keys = [b"a", b"b", b"c"];
        let leaves = keys.map(|key| rows::leaf_of(key));
        let node = partitions::node(3);
        let markers = [
            hot_key(&node, false),
            hot_key(&leaves[0], false),
            hot_key(&leaves[1], true),
            hot_key(&leaves[2], false),
        ];
        let (mut mirror, mut suspects) = (mirror(), Suspects::default());
        let mut hot = hot_set(1);
        hot.load(&mut mirror, markers).expect("good markers");
        assert!(!hot.is_loaded());
        let expected = [record_key(&leaves[0], false), record_key(&leaves[1], true)];
        assert_eq!(hot.reads().keys, expected);
        let supplied = hot.supply(&mut mirror, &mut suspects, &[row(keys[0]), row(keys[1])]);
        supplied.expect("good rows");
        assert_eq!(hot.reads().keys, [record_key(&leaves[2], false)]);
        hot.supply(&mut mirror, &mut suspects, &[row(keys[2])])
            .expect("a good row");
        assert!(hot.is_loaded());
        for (key, is_long) in [(node, false), (leaves[0], false), (leaves[1], true), (leaves[2], false)] {
            let record = mirror.records.get(mirror.records.find(&key).expect("it is in memory"));
            let thread = partitions::thread_of(&key, 2);
            let ts = Timestamp::new(EPOCH, 0);
            assert_eq!(record.place, Place::Blum { ts, thread });
            assert_eq!((record.has_hot_row, record.has_long_key), (true, is_long));
        }
        assert!(suspects.as_slice().is_empty());
    }

    fn error_of(result: Result<(), Error>) -> (&'static str, Vec<u8>) {
        match result {
            Err(Error::Store { text, key }) => (text, key),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let leaf = rows::leaf_of(b"a");
        let (marker, store_key) = (hot_key(&leaf, false), record_key(&leaf, false));
        let node = hot_key(&partitions::node(partitions::COUNT - 1), false);
        let load = |threads, markers: &[&[u8]]| error_of(hot_set(threads).load(&mut mirror(), markers));
        let elsewhere = ("a hot marker belongs to another thread", node.clone());
        assert_eq!(load(2, &[&node]), elsewhere);
        assert_eq!(load(1, &[&node, &node]), ("a hot marker was loaded twice", node));
        let garbled = ("the key of a hot marker is garbled", marker[1..].to_vec());
        assert_eq!(load(1, &[&marker[1..]]), garbled);
        for (row, text) in [(None, MISSING), (row(b"b"), "a row is garbled")] {
            let (mut mirror, mut hot) = (mirror(), hot_set(1));
            hot.load(&mut mirror, [&marker]).expect("a good marker");
            let supplied = hot.supply(&mut mirror, &mut Suspects::default(), &[row]);
            assert_eq!(error_of(supplied), (text, store_key.clone()));
        }
    }
}
