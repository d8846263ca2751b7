//! Carrying over: between `next_epoch` and `verify_epoch` every record that is in Blum goes over from the closing epoch to the next. Operations
//! run meanwhile: a record that one of them needs is carried over at once, by [`Mirror::add_blum`].

use crate::aging::Aging;
use crate::error::Error;
use crate::mirror::{HotSize, Mirror};
use crate::reading::Wanted;
use crate::records::RecordId;

/// Records that are looked at before they are carried over, some logs of them: so their cache misses overlap.
const RECORDS_AHEAD: usize = 4096;

/// How far the records of the closing epoch have been carried over.
#[derive(Debug)]
pub struct CarryOver {
    /// What was in Blum at the cut, in no order. None of it leaves memory before the next one.
    records: Vec<RecordId>,
    done: usize,
    /// What those before this one need is in memory.
    ready: usize,
    /// Records whose rows may be read at once.
    records_at_once: usize,
    /// What has been seen so far, and what was hot at the cut.
    seen: HotSize,
    hot_at_cut: HotSize,
}

impl CarryOver {
    /// Begin, right after `next_epoch`.
    pub fn new(mirror: &Mirror, records_at_once: usize) -> Self {
        Self {
            records: mirror.records.known().to_vec(),
            done: 0,
            ready: 0,
            records_at_once,
            seen: HotSize::default(),
            hot_at_cut: mirror.hot,
        }
    }

    /// Ask for the rows that the next records need.
    pub fn plan(&mut self, mirror: &Mirror, wanted: &mut Wanted) {
        let end = self.records.len().min(self.done + RECORDS_AHEAD);
        let lacking = self.records[self.ready..end].iter().enumerate().filter(|(_, id)| {
            let record = mirror.records.get(**id);
            !record.content.is_loaded()
        });
        let lacking: Vec<_> = lacking.take(self.records_at_once).collect();
        for (_, id) in &lacking {
            let key = mirror.records.get(**id).key;
            wanted.push(key, key);
        }
        self.ready = lacking.first().map_or(end, |(index, _)| self.ready + index);
    }

    /// Write what finds room in the log; true if nothing is left.
    pub fn write(&mut self, mirror: &mut Mirror, aging: &mut Aging) -> Result<bool, Error> {
        let closing_epoch = mirror.clock.epoch - 1; // next_epoch has raised it
        let log_bytes_max = mirror.log_bytes_with_cut();
        while self.done < self.ready && mirror.log_bytes() < log_bytes_max {
            let id = self.records[self.done];
            self.done += 1;
            mirror.carry_over(id)?;
            let record = mirror.records.get(id);
            self.seen.add(record);
            aging.see(id, record, closing_epoch);
        }
        if self.done < self.records.len() {
            return Ok(false);
        }
        aging.all_seen();
        // what has come since the cut was not seen
        mirror.hot = self.seen.plus(mirror.hot.beyond(self.hot_at_cut));
        Ok(true)
    }
}
