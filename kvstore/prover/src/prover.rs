//! The prover of one worker: puts rounds, cuts and checkpoints in their order.
//!
//! One log is in flight at a time. A log holds the proofs of what was admitted by the one before, then asks about new requests; or it
//! closes the epoch; or it is a piece of the drain.

use zetakv_verifier::Incarnation;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Mac;
use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::output::Output;

use crate::checkpoint::Checkpoints;
use crate::drain::Drain;
use crate::error::Error;
use crate::frames::{FrameRules, parse_request, parse_resume};
use crate::genesis;
use crate::hot::HotSet;
use crate::mirror::{Counters, HotSize, Mirror};
use crate::partitions;
use crate::reading::{Reads, Wanted, records_at_once};
use crate::records::Records;
use crate::rounds::{ClientFrame, Rounds};
use crate::rows;
use crate::suspects::Suspect;
use crate::write_ahead::read_record;

/// The fewest slots with which all proofs can be written: half of them are free when a drain begins.
pub const SLOTS_MIN: u32 = 80;

/// Slots that are free when a drain begins: no path in the tree is longer, as long as nobody can find keys whose hashes share more bits.
const RESERVED_SLOTS_MIN: usize = 40;
const RESERVED_SLOTS_MAX: usize = 80;

/// Counter of the clock at which the epoch should be closed, halfway to its end.
const COUNTER_SOON: u32 = 1 << 31;

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
    /// `next_epoch` is in flight.
    Asked { all_to_merkle: bool },
    /// The epoch is closing.
    Draining(Drain),
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
    rounds: Rounds,
    cut: Cut,
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
            rounds: Rounds::new(rules, records_at_once, config.log_incarnation.is_some()),
            cut: Cut::None,
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
        if self.wanted.is_empty() {
            match &mut self.cut {
                Cut::Draining(drain) => drain.plan(&self.mirror, &mut self.wanted)?,
                _ => self.rounds.plan(&self.mirror, &mut self.wanted)?,
            }
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

    /// The next piece of the log; empty if there is nothing to do.
    pub fn log(&mut self) -> Result<Vec<u8>, Error> {
        if !self.hot_set.is_loaded() {
            return Err(Error::Engine("the rows of the hot set have not been supplied"));
        }
        if self.must_write_spine {
            self.must_write_spine = false;
            genesis::write_spine(&mut self.mirror, self.rules.threads)?;
        } else if let Cut::Draining(drain) = &mut self.cut {
            if drain.write(&mut self.mirror)? {
                self.mirror.verify_epoch()?;
                self.cut = Cut::HandingOver;
            }
        } else {
            self.write_round()?;
        }
        self.sweep();
        Ok(self.mirror.take_log())
    }

    fn write_round(&mut self) -> Result<(), Error> {
        self.rounds.run(&mut self.mirror)?;
        match &mut self.cut {
            Cut::Wanted {
                all_to_merkle,
                postponed: false,
            } if self.checkpoints.is_taken() => {
                let all_to_merkle = *all_to_merkle;
                if !self.rounds.has_admitted() {
                    self.reserve_slots()?;
                    self.mirror.ask_next_epoch();
                    self.cut = Cut::Asked { all_to_merkle };
                }
            }
            Cut::Wanted { postponed, .. } => {
                *postponed = false;
                self.rounds.ask(&mut self.mirror);
            }
            _ => self.rounds.ask(&mut self.mirror),
        }
        Ok(())
    }

    /// Make room for the paths that the drain brings in: nothing leaves before its turn then.
    fn reserve_slots(&mut self) -> Result<(), Error> {
        let slots = self.mirror.cache.occupied_count() + self.mirror.cache.free_count();
        let reserved = (slots / 2).clamp(RESERVED_SLOTS_MIN - 1, RESERVED_SLOTS_MAX);
        while self.mirror.cache.free_count() < reserved {
            self.mirror.evict_one(crate::cache::NO_SLOT)?;
        }
        Ok(())
    }

    fn sweep(&mut self) {
        let drain_is_between_plans = match &self.cut {
            Cut::Draining(drain) => drain.is_between_plans(),
            _ => true,
        };
        if drain_is_between_plans && self.rounds.is_between_plans() && self.wanted.is_empty() {
            self.mirror.records.sweep();
        }
    }

    /// The monitor's outputs for the last log; returns the frames that are now due to clients.
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
        match self.cut {
            Cut::Asked { all_to_merkle } if epoch_is_closing => {
                self.mirror.begin_closing()?;
                self.cut = Cut::Draining(Drain::new(&mut self.mirror, all_to_merkle, self.records_at_once));
            }
            Cut::Asked { all_to_merkle } => {
                self.cut = Cut::Wanted {
                    all_to_merkle,
                    postponed: true,
                };
            }
            Cut::HandingOver => {
                return Err(Error::Monitor("the monitor has not handed the epoch over"));
            }
            Cut::None | Cut::Wanted { .. } | Cut::Draining(_) => {}
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

    fn epoch_handed_over(&mut self, epoch: u32) -> Result<(), Error> {
        if !matches!(self.cut, Cut::HandingOver) || epoch + 1 != self.mirror.clock.epoch {
            return Err(Error::Monitor("the monitor has handed over another epoch"));
        }
        self.cut = Cut::None;
        self.checkpoints.freeze(&mut self.mirror.records, epoch)?;
        self.handed_over = Some(epoch);
        self.operations_before_epoch = self.mirror.counters.operations;
        self.resumed_in_epoch = false;
        self.rounds.release_held();
        Ok(())
    }

    /// Whether the last log was a piece of a drain that goes on. Nothing answers it, so the next log may be written before the monitor has
    /// checked it; if anything does, it goes to [`Self::absorb`].
    pub const fn is_draining(&self) -> bool {
        matches!(self.cut, Cut::Draining(_))
    }

    /// Close the epoch, once the rows of the last cut have been taken. `all_to_merkle`: nothing stays in Blum but the partition nodes.
    pub fn start_cut(&mut self, all_to_merkle: bool) -> Result<(), Error> {
        match self.cut {
            Cut::None => {
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

    /// Whether there is anything to do now.
    pub fn is_busy(&self) -> bool {
        let cut_can_go_on = match self.cut {
            Cut::None => false,
            Cut::Wanted { .. } => self.checkpoints.is_taken(),
            Cut::Asked { .. } | Cut::Draining(_) | Cut::HandingOver => true,
        };
        let must_begin = self.must_write_spine || !self.hot_set.is_loaded();
        must_begin || cut_can_go_on || self.rounds.has_submitted() || self.rounds.has_admitted()
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
