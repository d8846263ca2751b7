//! The prover of one worker: puts rounds, cuts and checkpoints in their order.
//!
//! A log holds the proofs of what was admitted, then asks about new requests; while an epoch closes, it carries records over, too. Before that it
//! clears the cache, and nothing else. Several logs may be in flight: the outputs come in their order. Nothing is written after `next_epoch`
//! until its outputs are here.

use zetakv_verifier::Incarnation;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Mac;
use zetakv_verifier::entry::{Slot, ThreadId};
use zetakv_verifier::output::Output;

use crate::aging::Aging;
use crate::carry_over::CarryOver;
use crate::checkpoint::Checkpoints;
use crate::clearing::{self, Clearing};
use crate::error::Error;
use crate::frames::{FrameRules, parse_request, parse_resume};
use crate::genesis;
use crate::hot::HotSet;
use crate::mirror::{Counters, HotSize, Mirror};
use crate::partitions;
use crate::reading::{Reads, Wanted, records_at_once};
use crate::records::Records;
use crate::rounds::Rounds;
use crate::rows;
use crate::suspects::Suspect;
use crate::work::ClientFrame;
use crate::write_ahead::read_record;

/// The fewest slots with which all proofs can be written: half of them are free when the cache is cleared.
pub const SLOTS_MIN: u32 = 80;

/// Slots that are free when the cache is cleared: no path in the tree is longer, as long as nobody can find keys whose hashes share more bits.
const RESERVED_SLOTS_MIN: usize = 40;
const RESERVED_SLOTS_MAX: usize = 80;

/// Records that leave the cache in one log while operations still run: so few keep these waiting for a fraction of a millisecond.
const LEAVING_AT_ONCE: usize = 4096;

/// Counter of the clock at which the epoch should be closed, halfway to its end.
const COUNTER_SOON: u32 = 1 << 31;

/// Counter at which nothing more should run before the epoch is closed: what has been submitted does not come near the end.
const COUNTER_LATE: u32 = 3 << 30;

const NOT_REPLAYING: Error = Error::Engine("the replay of the write-ahead log has ended, or there is none");

/// How a prover starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// What requests may hold; thread and number of threads.
    pub rules: FrameRules,
    /// Number of threads at the last checkpoint.
    pub previous_threads: u16,
    /// The first open epoch.
    pub epoch: u32,
    /// There is no sealed state: thread 0 writes the spine first.
    pub fresh: bool,
    /// Slots of the verified cache, as the monitor was told.
    pub slots: u32,
    /// Records that are kept in Blum at the most.
    pub hot_records_max: usize,
    /// Bytes of them in memory at the most.
    pub hot_bytes_max: usize,
    /// Longer values of records that did not change are not kept in memory.
    pub kept_value_bytes_max: usize,
    /// Bytes of records that stay in memory although they could be read again.
    pub warm_bytes_max: usize,
    /// Bytes of rows that one batch reads, after which it ends.
    pub read_bytes_max: usize,
    /// With a write-ahead log: the incarnation that starts.
    pub log_incarnation: Option<Incarnation>,
}

/// Where the closing of an epoch stands.
#[derive(Debug)]
enum Cut {
    /// Not wanted.
    None,
    /// Wanted. `postponed`: the monitor was not ready, so one more round goes before the next try.
    Wanted { all_to_merkle: bool, postponed: bool },
    /// The cache is being cleared.
    Clearing { all_to_merkle: bool, clearing: Clearing },
    /// `next_epoch` is in flight.
    Asked { all_to_merkle: bool },
    /// The epoch is closing.
    Closing(CarryOver),
    /// `verify_epoch` is in flight.
    HandingOver,
}

/// A prover.
#[derive(Debug)]
pub struct Prover {
    rules: FrameRules,
    /// Records whose rows may be read at once.
    records_at_once: usize,
    /// There is no sealed state, so there can be no hot markers.
    is_fresh: bool,
    hot_set: HotSet,
    must_write_spine: bool,
    mirror: Mirror,
    aging: Aging,
    rounds: Rounds,
    cut: Cut,
    /// When a cut is wanted: the slots of records that go back to Blum before operations have to wait. Few come into the cache meanwhile.
    leaving: Vec<Slot>,
    checkpoints: Checkpoints,
    wanted: Wanted,
    handed_over: Option<u32>,
    operations_before_epoch: u64,
    resumed_in_epoch: bool,
    /// Of the write-ahead log, until the monitor has ended its replay.
    replay: Option<Replay>,
    /// What must be durable before the frames of the last log and later ones go out.
    record: Vec<u8>,
}

#[derive(Debug)]
struct Replay {
    incarnation: Incarnation,
    /// Of the last record.
    tag: Mac,
}

/// Figures for the status page.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// Slots in use.
    pub cached: usize,
    /// Records in Blum, or cached from there.
    pub hot: usize,
    /// Records that the next checkpoint looks at.
    pub dirty_records: usize,
    /// What was done since the start.
    pub counters: Counters,
}

impl Prover {
    /// A prover at the start of its thread.
    pub fn new(config: Config) -> Result<Self, Error> {
        let rules = config.rules;
        let threads_are_valid = |threads: u16| threads.is_power_of_two() && threads <= partitions::COUNT;
        if !threads_are_valid(rules.threads) || !threads_are_valid(config.previous_threads) {
            return Err(Error::Engine(
                "the number of threads must be a power of two, at most 64",
            ));
        }
        if rules.thread >= rules.threads {
            return Err(Error::Engine("there is no thread of that number"));
        }
        if config.slots < SLOTS_MIN {
            return Err(Error::Engine("the verified cache must have at least 80 slots"));
        }
        let mut mirror = Mirror::new(
            rules.thread,
            config.epoch,
            config.slots,
            HotSize {
                records: config.hot_records_max,
                bytes: config.hot_bytes_max,
            },
            Records::new(config.kept_value_bytes_max, config.warm_bytes_max),
        );
        if config.fresh && rules.thread != genesis::ROOT_THREAD {
            genesis::find_partitions(&mut mirror, rules.threads);
        }
        let records_at_once = records_at_once(config.read_bytes_max, rules.value_bytes_max);
        Ok(Self {
            rules,
            records_at_once,
            is_fresh: config.fresh,
            hot_set: HotSet::new(rules.thread, rules.threads, config.previous_threads, records_at_once),
            must_write_spine: config.fresh && rules.thread == genesis::ROOT_THREAD,
            mirror,
            aging: Aging::new(),
            rounds: Rounds::new(rules, records_at_once, config.log_incarnation.is_some()),
            cut: Cut::None,
            leaving: Vec::new(),
            checkpoints: Checkpoints::default(),
            wanted: Wanted::new(config.read_bytes_max),
            handed_over: None,
            operations_before_epoch: 0,
            resumed_in_epoch: false,
            replay: config.log_incarnation.map(|incarnation| Replay {
                incarnation,
                tag: Mac::default(),
            }),
            record: Vec::new(),
        })
    }

    /// First and past-the-last store key of this thread's hot markers.
    pub fn hot_range(&self) -> (Vec<u8>, Vec<u8>) {
        rows::hot_range(self.rules.thread, self.rules.threads)
    }

    /// Learn what is in Blum since the last checkpoint, from the store keys of the hot markers, all at once. The rows of records among it are
    /// the first that [`Self::reads`] asks for.
    pub fn load_hot<K: AsRef<[u8]>>(&mut self, markers: impl IntoIterator<Item = K>) -> Result<(), Error> {
        let mut markers = markers.into_iter().peekable();
        match markers.peek() {
            Some(marker) if self.is_fresh => {
                let text = "there is a hot marker, but no sealed state";
                Err(Error::in_row(text, marker.as_ref()))
            }
            _ => self.hot_set.load(&mut self.mirror, markers),
        }
    }

    /// Queue the body of a client's request frame.
    pub fn submit(&mut self, origin: u64, body: &[u8]) -> Result<(), Error> {
        self.rounds.submit(parse_request(&self.rules, origin, body)?);
        Ok(())
    }

    /// Queue the body of a client's resume frame.
    pub fn submit_resume(&mut self, origin: u64, body: &[u8]) -> Result<(), Error> {
        self.rounds.submit_resume(parse_resume(&self.rules, origin, body)?);
        Ok(())
    }

    /// Queue a record of the write-ahead log; all of them, in their order, before any request.
    pub fn replay(&mut self, record: &[u8]) -> Result<(), Error> {
        // what was admitted then may be longer than what is today
        let rules = FrameRules {
            key_bytes_max: usize::MAX,
            value_bytes_max: usize::MAX,
            ..self.rules
        };
        let (items, tag) = read_record(&rules, record)?;
        self.replay.as_mut().ok_or(NOT_REPLAYING)?.tag = tag;
        for item in items {
            self.rounds.submit_replay(item);
        }
        Ok(())
    }

    /// All records are queued.
    pub fn end_replay(&mut self) -> Result<(), Error> {
        let tag = self.replay.as_ref().ok_or(NOT_REPLAYING)?.tag;
        self.rounds.submit_end_of_replay(tag);
        Ok(())
    }

    /// Whether the monitor has not ended the replay yet.
    pub const fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// The record of what the last log had admitted or refused, once; empty if there is none. It must be durable before the frames of that log
    /// and of later ones go out.
    pub fn take_record(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.record)
    }

    /// The rows that are needed before the next log.
    pub fn reads(&mut self) -> Result<Reads, Error> {
        if !self.hot_set.is_loaded() {
            return Ok(self.hot_set.reads());
        }
        if self.can_clear() {
            self.begin_clearing()?;
        }
        if self.wanted.is_empty() {
            match &mut self.cut {
                Cut::Clearing { clearing, .. } => clearing.plan(&self.mirror, &mut self.wanted)?,
                _ => self.rounds.plan(&mut self.mirror, &mut self.wanted)?,
            }
        }
        if let Cut::Closing(carry_over) = &mut self.cut
            && self.wanted.is_empty()
        {
            carry_over.plan(&self.mirror, &mut self.wanted);
        }
        Ok(self.wanted.reads())
    }

    /// The rows for the last `reads`, in its order.
    pub fn supply<R: AsRef<[u8]>>(&mut self, rows: &[Option<R>], ranges: &[Vec<(R, R)>]) -> Result<(), Error> {
        if !self.hot_set.is_loaded() {
            return self.hot_set.supply(&mut self.mirror, &mut self.wanted.suspects, rows);
        }
        self.wanted.supply(&mut self.mirror.records, rows, ranges)
    }

    /// The next log; empty if there is nothing to send now. Others may be in flight.
    pub fn log(&mut self) -> Result<Vec<u8>, Error> {
        if self.must_wait() {
            return Ok(Vec::new());
        }
        if !self.hot_set.is_loaded() {
            return Err(Error::Engine("the rows of the hot set have not been supplied"));
        }
        if self.must_write_spine {
            self.must_write_spine = false;
            genesis::write_spine(&mut self.mirror, self.rules.threads)?;
        } else if let Cut::Clearing {
            all_to_merkle,
            clearing,
        } = &mut self.cut
        {
            if clearing.write(&mut self.mirror)? {
                self.mirror.ask_next_epoch()?;
                self.cut = Cut::Asked {
                    all_to_merkle: *all_to_merkle,
                };
            }
        } else {
            self.write_round()?;
        }
        self.sweep();
        let log = self.mirror.take_log();
        if !log.is_empty() {
            self.rounds.sent();
        }
        Ok(log)
    }

    fn write_round(&mut self) -> Result<(), Error> {
        self.rounds.run(&mut self.mirror)?;
        match &mut self.cut {
            Cut::Wanted { postponed: false, .. } if self.checkpoints.is_taken() => {
                // once these have left, what was asked about comes to its end
                if !self.leaving.is_empty() {
                    self.rounds.ask(&mut self.mirror);
                    clearing::go_back(&mut self.mirror, &mut self.leaving, LEAVING_AT_ONCE)?;
                }
            }
            Cut::Wanted { postponed, .. } => {
                *postponed = false;
                self.rounds.ask(&mut self.mirror);
            }
            Cut::Closing(carry_over) => {
                self.rounds.ask(&mut self.mirror);
                let is_done = carry_over.write(&mut self.mirror, &mut self.aging)?;
                self.checkpoints.pack(is_done)?;
                if is_done {
                    self.mirror.verify_epoch();
                    self.cut = Cut::HandingOver;
                }
            }
            _ => self.rounds.ask(&mut self.mirror),
        }
        Ok(())
    }

    /// Whether the cache is to be cleared, and nothing that was let in before is on its way.
    fn can_clear(&self) -> bool {
        let is_wanted = matches!(self.cut, Cut::Wanted { postponed: false, .. }) && self.checkpoints.is_taken();
        is_wanted
            && self.leaving.is_empty()
            && !self.must_write_spine
            && !self.rounds.has_admitted()
            && !self.rounds.has_asked()
    }

    fn begin_clearing(&mut self) -> Result<(), Error> {
        let Cut::Wanted { all_to_merkle, .. } = self.cut else {
            return Ok(());
        };
        self.reserve_slots()?;
        self.cut = Cut::Clearing {
            all_to_merkle,
            clearing: Clearing::new(&mut self.mirror, &mut self.aging, all_to_merkle, self.records_at_once),
        };
        Ok(())
    }

    /// Make room for the paths that are brought in while the cache is cleared: nothing leaves before its turn then.
    fn reserve_slots(&mut self) -> Result<(), Error> {
        let slots = self.mirror.cache.occupied_count() + self.mirror.cache.free_count();
        let reserved = (slots / 2).clamp(RESERVED_SLOTS_MIN - 1, RESERVED_SLOTS_MAX);
        while self.mirror.cache.free_count() < reserved {
            self.mirror.evict_one(crate::cache::NO_SLOT)?;
        }
        Ok(())
    }

    fn sweep(&mut self) {
        let clearing_is_between_plans = match &self.cut {
            Cut::Clearing { clearing, .. } => clearing.is_between_plans(),
            _ => true,
        };
        if clearing_is_between_plans && self.rounds.is_between_plans() && self.wanted.is_empty() {
            self.mirror.records.sweep();
        }
    }

    /// The monitor's outputs for the oldest log in flight; returns the frames that are now due to clients.
    pub fn absorb(&mut self, outputs: &[u8]) -> Result<Vec<ClientFrame>, Error> {
        let mut frames = Vec::new();
        let mut reader = Reader::new(outputs);
        let mut epoch_is_closing = true;
        while reader.remaining() > 0 {
            let output =
                Output::decode(&mut reader).map_err(|_| Error::Monitor("the monitor's outputs cannot be parsed"))?;
            match output {
                Output::Failed(_) => return Err(Error::Monitor("the monitor has failed")),
                Output::EpochNotYet => epoch_is_closing = false,
                Output::HandedOver(epoch) => self.epoch_handed_over(epoch)?,
                Output::Logged(tag) => self.logged(tag)?,
                _ => {
                    self.resumed_in_epoch |= matches!(output, Output::Resumed(_));
                    self.rounds.absorb(&output, &mut frames)?;
                }
            }
        }
        self.rounds.finish_absorbing()?;
        if self.rounds.record.as_ref().is_some_and(|record| !record.is_empty()) {
            return Err(Error::Monitor("the monitor has not logged what it admitted"));
        }
        if self.rounds.is_in_flight() {
            return Ok(frames); // what concerns the cut is in the last one
        }
        match self.cut {
            Cut::Asked { .. } if epoch_is_closing => self.begin_closing()?,
            Cut::Asked { all_to_merkle } => {
                self.cut = Cut::Wanted {
                    all_to_merkle,
                    postponed: true,
                };
            }
            Cut::HandingOver => {
                return Err(Error::Monitor("the monitor has not handed the epoch over"));
            }
            Cut::None | Cut::Wanted { .. } | Cut::Clearing { .. } | Cut::Closing(_) => {}
        }
        Ok(frames)
    }

    fn logged(&mut self, tag: &Mac) -> Result<(), Error> {
        let unexpected = Error::Monitor("the monitor has logged something without being asked");
        let record = self.rounds.record.as_mut().ok_or(unexpected)?;
        if let Some(replay) = self.replay.take() {
            record.mark(&replay.incarnation);
        }
        self.record = record.finish(tag);
        Ok(())
    }

    /// The monitor closes the epoch: the checkpoint gets what was when it ended, and operations go on in the next.
    fn begin_closing(&mut self) -> Result<(), Error> {
        let epoch = self.epoch();
        self.checkpoints.freeze(&mut self.mirror.records, epoch)?;
        self.mirror.begin_closing()?;
        self.cut = Cut::Closing(CarryOver::new(&self.mirror, self.records_at_once));
        self.operations_before_epoch = self.mirror.counters.operations;
        self.resumed_in_epoch = false;
        self.rounds.release_held();
        Ok(())
    }

    fn epoch_handed_over(&mut self, epoch: u32) -> Result<(), Error> {
        if !matches!(self.cut, Cut::HandingOver) || epoch + 1 != self.epoch() {
            return Err(Error::Monitor("the monitor has handed over another epoch"));
        }
        self.cut = Cut::None;
        self.handed_over = Some(epoch);
        Ok(())
    }

    /// The epoch in which operations run.
    pub const fn epoch(&self) -> u32 {
        self.mirror.clock.epoch
    }

    /// Close the epoch, once the rows of the last cut have been taken. `all_to_merkle`: nothing stays in Blum but the partition nodes.
    pub fn start_cut(&mut self, all_to_merkle: bool) -> Result<(), Error> {
        match self.cut {
            Cut::None => {
                self.leaving = clearing::from_blum(&self.mirror).collect();
                self.cut = Cut::Wanted {
                    all_to_merkle,
                    postponed: false,
                };
                Ok(())
            }
            _ => Err(Error::Engine("a cut is in progress already")),
        }
    }

    /// The epoch that was handed over since the last call, once.
    pub fn handed_over(&mut self) -> Option<u32> {
        self.handed_over.take()
    }

    /// After a cut: the changed rows, packed.
    pub fn take_checkpoint(&mut self) -> Result<Vec<u8>, Error> {
        self.checkpoints.take()
    }

    /// The checkpoints up to that of `epoch` are applied: reads see their rows.
    pub fn release_checkpoint(&mut self, epoch: u32) -> Result<(), Error> {
        self.checkpoints.release(&mut self.mirror.records, epoch)?;
        self.sweep();
        Ok(())
    }

    /// Whether there is anything to do, other than to wait for outputs.
    pub fn is_busy(&self) -> bool {
        let cut_can_go_on = match self.cut {
            Cut::None | Cut::Asked { .. } | Cut::HandingOver => false,
            Cut::Wanted { .. } => self.checkpoints.is_taken(),
            Cut::Clearing { .. } | Cut::Closing(_) => true,
        };
        let must_begin = self.must_write_spine || !self.hot_set.is_loaded();
        must_begin || cut_can_go_on || self.rounds.has_submitted() || self.rounds.has_admitted()
    }

    /// Whether the next log is worth its message while another one is in flight: it clears the cache, carries records over, or has a whole batch
    /// of operations.
    pub fn is_full(&self) -> bool {
        let has_enough = match self.cut {
            Cut::Clearing { .. } | Cut::Closing(_) => true,
            Cut::Wanted { postponed, .. } => {
                let may_ask = postponed || !self.checkpoints.is_taken();
                self.can_clear() || !self.leaving.is_empty() || self.rounds.has_batch(may_ask)
            }
            Cut::None | Cut::Asked { .. } | Cut::HandingOver => self.rounds.has_batch(true),
        };
        has_enough && !self.must_wait()
    }

    /// Whether no log can be written before the outputs of those in flight are here.
    fn must_wait(&self) -> bool {
        matches!(self.cut, Cut::Asked { .. }) || self.rounds.must_wait()
    }

    /// Whether an operation has run in the open epoch, or a resume was answered: it may tell that an operation ran, at or before its own
    /// time, and so waits for the certificate of the open epoch as a receipt does.
    pub const fn is_active(&self) -> bool {
        self.resumed_in_epoch || self.mirror.counters.operations > self.operations_before_epoch
    }

    /// Whether the epoch should be closed now, because its clock is halfway to its end.
    pub const fn is_cut_wanted(&self) -> bool {
        self.mirror.clock.counter >= COUNTER_SOON
    }

    /// Whether nothing more should be submitted before the epoch is closed: the clock could come to its end, after which nothing is proved.
    pub const fn is_cut_overdue(&self) -> bool {
        self.mirror.clock.counter >= COUNTER_LATE
    }

    /// Bytes of rows that changed since the last cut.
    pub const fn changed_bytes(&self) -> usize {
        self.mirror.records.changed_bytes()
    }

    /// Bytes of rows held in memory until they are applied.
    pub const fn dirty_bytes(&self) -> usize {
        self.changed_bytes() + self.checkpoints.bytes()
    }

    /// Figures for the status page.
    pub fn stats(&self) -> Stats {
        Stats {
            cached: self.mirror.cache.occupied_count(),
            hot: self.mirror.hot.records,
            dirty_records: self.mirror.records.changed_count(),
            counters: self.mirror.counters,
        }
    }

    /// Rows that looked wrong when they were read: the first ones since the start.
    pub fn suspects(&self) -> &[Suspect] {
        self.wanted.suspects.as_slice()
    }

    /// The number of this thread.
    pub const fn thread(&self) -> ThreadId {
        self.rules.thread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_late_asks_for_a_cut_and_later_for_a_pause() {
        let rules = FrameRules {
            thread: 0,
            threads: 1,
            key_bytes_max: 4096,
            value_bytes_max: 1 << 20,
            response_bytes_max: 1 << 20,
        };
        let mut prover = Prover::new(Config {
            rules,
            previous_threads: 1,
            epoch: 1,
            fresh: true,
            slots: SLOTS_MIN,
            hot_records_max: 0,
            hot_bytes_max: 0,
            kept_value_bytes_max: 0,
            warm_bytes_max: 0,
            read_bytes_max: 0,
            log_incarnation: None,
        })
        .expect("a prover");
        let quarters = [1, 2, 3].map(|quarter| {
            prover.mirror.clock.counter = quarter << 30;
            (prover.is_cut_wanted(), prover.is_cut_overdue())
        });
        assert_eq!(quarters, [(false, false), (true, false), (true, true)]);
    }
}
