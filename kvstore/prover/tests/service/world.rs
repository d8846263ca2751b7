//! A whole service in one thread: provers, the real verifier threads and aggregator as their judges, a store that only knows what was
//! checkpointed, and clients that know what every answer must be. An honest prover's log must always be accepted.

mod logged;
mod store;
mod traffic;

use std::collections::VecDeque;
use std::sync::Arc;

use fastrand::Rng;
use zetakv_prover::{Config, Error, FrameRules, Prover, RANGE_ROWS_MAX, Suspect};
use zetakv_verifier::clocks::Clocks;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::entry::Entry;
use zetakv_verifier::kv::KeyValue;
use zetakv_verifier::machine::Role;
use zetakv_verifier::output::Output;
use zetakv_verifier::standard_crypto::Sum;
use zetakv_verifier::violation::Violation;
use zetakv_verifier::{Aggregator, HeldEpoch, Progress, StandardCrypto, ThreadConfig, Verifier};

use self::logged::Journal;
use self::store::{Durable, Rows, unpack};
use crate::client::{Client, Model};

const SECRET: [u8; 32] = [7; 32];
/// Bytes of operations that may wait in the queue of a verifier thread.
const QUEUE_BYTES: usize = 4 << 20;

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub threads: u16,
    pub slots: u32,
    pub hot_records_max: usize,
    /// That clients of the world use by themselves.
    pub keys: usize,
}

/// How much memory its provers may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub hot_bytes_max: usize,
    pub kept_value_bytes_max: usize,
    pub warm_bytes_max: usize,
    pub read_bytes_max: usize,
}

impl Limits {
    /// No limit at all.
    pub const NONE: Self = Self {
        hot_bytes_max: usize::MAX,
        kept_value_bytes_max: usize::MAX,
        warm_bytes_max: usize::MAX,
        read_bytes_max: usize::MAX,
    };

    fn any(rng: &mut Rng) -> Self {
        Self {
            hot_bytes_max: [0, 20_000, usize::MAX][rng.usize(0..3)],
            kept_value_bytes_max: [0, 50, 1024][rng.usize(0..3)],
            warm_bytes_max: [0, 20_000, 4 << 20][rng.usize(0..3)],
            read_bytes_max: [1, 4096, 256 << 20][rng.usize(0..3)],
        }
    }
}

struct Worker {
    prover: Prover,
    verifier: Verifier<StandardCrypto, KeyValue>,
    clients: Vec<Client>,
    /// The application keys of this thread.
    keys: Vec<Vec<u8>>,
    model: Model,
    model_at_cut: Model,
    /// What the verifier has not done of the logs that are sent, and their outputs so far: those of the first may wait for another thread's clock.
    in_flight: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// Whether to start a cut, with everything to Merkle: workers hear of it at different times.
    cut_to_start: Option<bool>,
    has_handed_over: bool,
    /// A checkpoint of it is durable, and not released.
    awaits_release: bool,
}

/// Why a service stops.
#[derive(Debug)]
pub enum Stop {
    Prover(Error),
    Violation(Violation),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Prover(error)
    }
}

pub struct World {
    pub rng: Rng,
    pub shape: Shape,
    limits: Limits,
    workers: Vec<Worker>,
    clocks: Arc<Clocks>,
    aggregator: Aggregator<Sum>,
    crypto: StandardCrypto,
    /// What readers see: the durable rows, once they are applied; before, any of them.
    visible: Rows,
    durable: Durable,
    /// Rows of the cut in flight.
    packed: Vec<Vec<u8>>,
    held: Option<HeldEpoch<Sum>>,
    newest_ts: u64,
    sessions: u64,
    /// With a write-ahead log.
    journal: Option<Journal>,
    /// No client sends anything.
    is_quiet: bool,
    /// Whether clients may rely on what they are answered.
    rows_are_honest: bool,
    pub receipts: u64,
    pub rejections: u64,
    pub resumes: u64,
    /// Bytes of all frames that were due at once, at the most.
    pub answered_at_once_max: usize,
    /// Bytes of all rows that were read before one log, at the most.
    pub read_at_once_max: usize,
    /// Single rows that were read.
    pub rows_read: usize,
    /// Entries of all logs, by their kinds.
    pub entries: [u64; 17],
    /// Receipts between a cut and its handover.
    pub receipts_while_closing: usize,
    /// Outputs of all threads, by their kinds.
    pub outputs: [u64; 11],
}

impl World {
    pub fn new(seed: u64, shape: Shape) -> Self {
        println!("seed {seed}, {shape:?}");
        let durable = Durable::new(shape.threads);
        Self::start(Rng::with_seed(seed), shape, durable, None).expect("a new world")
    }

    /// The same, with these limits from its first cut on.
    pub fn with_limits(seed: u64, shape: Shape, limits: Limits) -> Self {
        println!("seed {seed}, {shape:?}, {limits:?}");
        let durable = Durable::new(shape.threads);
        Self::start_limited(Rng::with_seed(seed), shape, limits, durable, None).expect("a new world")
    }

    fn start(mut rng: Rng, shape: Shape, durable: Durable, journal: Option<Journal>) -> Result<Self, Stop> {
        let limits = Limits::any(&mut rng);
        Self::start_limited(rng, shape, limits, durable, journal)
    }

    fn start_limited(
        mut rng: Rng,
        shape: Shape,
        limits: Limits,
        durable: Durable,
        journal: Option<Journal>,
    ) -> Result<Self, Stop> {
        let clocks = Arc::new(Clocks::new(durable.epoch).expect("epochs are left"));
        let mut world = Self {
            workers: Vec::new(),
            aggregator: Aggregator::new(shape.threads, durable.epoch + 1),
            crypto: StandardCrypto::new(SECRET),
            visible: durable.rows.clone(),
            packed: Vec::new(),
            held: None,
            newest_ts: 0,
            sessions: journal.as_ref().map_or(0, |journal| journal.sessions),
            journal,
            is_quiet: false,
            rows_are_honest: true,
            receipts: 0,
            rejections: 0,
            resumes: 0,
            answered_at_once_max: 0,
            read_at_once_max: 0,
            rows_read: 0,
            entries: [0; 17],
            receipts_while_closing: 0,
            outputs: [0; 11],
            rng: rng.fork(),
            shape,
            limits,
            clocks,
            durable,
        };
        for thread in 0..shape.threads {
            let worker = world.start_worker(thread)?;
            world.workers.push(worker);
            if world.journal.is_none() {
                world.open_clients(thread);
            }
        }
        Ok(world)
    }

    fn start_worker(&mut self, thread: u16) -> Result<Worker, Stop> {
        let shape = self.shape;
        let durable = &self.durable;
        let config = ThreadConfig {
            thread,
            slots: shape.slots,
            certified_epoch: durable.epoch,
            root: (thread == 0).then_some(durable.root),
            queue_bytes: QUEUE_BYTES,
        };
        let carried = if thread == 0 {
            durable.carried.clone()
        } else {
            Sum::default()
        };
        let crypto = StandardCrypto::new(SECRET);
        let mut verifier = Verifier::new(config, crypto, carried, self.clocks.clone()).expect("a thread");
        let config = Config {
            rules: FrameRules {
                thread,
                threads: shape.threads,
                key_bytes_max: 4096,
                value_bytes_max: 16 << 20,
                response_bytes_max: 16 << 20,
            },
            previous_threads: durable.threads,
            epoch: durable.epoch + 1,
            fresh: durable.epoch == 0,
            slots: shape.slots,
            hot_records_max: shape.hot_records_max,
            hot_bytes_max: self.limits.hot_bytes_max,
            kept_value_bytes_max: self.limits.kept_value_bytes_max,
            warm_bytes_max: self.limits.warm_bytes_max,
            read_bytes_max: self.limits.read_bytes_max,
            log_incarnation: self.journal.as_ref().map(Journal::incarnation),
        };
        if let Some(journal) = &self.journal {
            verifier.keep_log(journal.config(thread, shape.threads));
        }
        let mut prover = Prover::new(config).expect("a prover");
        let (first, end) = prover.hot_range();
        prover.load_hot(durable.rows.range(first..end).map(|(key, _)| key))?;
        let of_this_thread = |key: &Vec<u8>| thread_of(key, shape.threads) == thread;
        let all = durable.models.iter().flatten().filter(|(key, _)| of_this_thread(key));
        let model: Model = all.map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Worker {
            prover,
            verifier,
            clients: Vec::new(),
            keys: (0..shape.keys)
                .map(|number| format!("key {number}").into_bytes())
                .filter(of_this_thread)
                .collect(),
            model_at_cut: model.clone(),
            model,
            in_flight: VecDeque::new(),
            cut_to_start: None,
            has_handed_over: false,
            awaits_release: false,
        })
    }

    fn open_clients(&mut self, thread: u16) {
        let worker = &mut self.workers[usize::from(thread)];
        for role in [Role::Write, Role::Write, Role::Read] {
            self.sessions += 1;
            let client = Client::new(self.sessions, role, thread, &mut self.rng);
            worker.verifier.open_session(client.keys());
            worker.clients.push(client);
        }
        if let Some(journal) = &mut self.journal {
            journal.sessions = self.sessions;
        }
    }

    /// Let one worker write a log, or its verifier check one, if there is anything to do.
    pub fn turn(&mut self, thread: u16) {
        self.try_turn(thread)
            .unwrap_or_else(|stop| panic!("an honest service stops: {stop:?}"));
    }

    /// The same; somebody may find that rows were changed.
    pub fn try_turn(&mut self, thread: u16) -> Result<(), Stop> {
        let worker = &mut self.workers[usize::from(thread)];
        if self.rng.u8(0..4) == 0
            && let Some(all_to_merkle) = worker.cut_to_start.take()
        {
            worker.prover.start_cut(all_to_merkle)?;
        }
        let is_worth_it = match worker.in_flight.len() {
            0 => worker.prover.is_busy(),
            1 | 2 => worker.prover.is_full() || self.rng.u8(0..4) == 0,
            _ => false,
        };
        if is_worth_it {
            self.write_log(thread)?;
        }
        self.check_log(thread)
    }

    fn write_log(&mut self, thread: u16) -> Result<(), Stop> {
        let worker = &mut self.workers[usize::from(thread)];
        let mut read_at_once = 0;
        loop {
            let reads = worker.prover.reads()?;
            if reads.is_empty() {
                break;
            }
            let rows: Vec<_> = reads.keys.iter().map(|key| self.visible.get(key)).collect();
            let in_range = |(first, end)| self.visible.range(first..end).take(RANGE_ROWS_MAX).collect();
            let ranges_at_once = self.rng.usize(1..20);
            let ranges: Vec<Vec<_>> = reads.ranges.into_iter().take(ranges_at_once).map(in_range).collect();
            worker.prover.supply(&rows, &ranges)?;
            self.rows_read += rows.len();
            read_at_once += rows.iter().flatten().map(|row| row.len()).sum::<usize>();
            read_at_once += ranges.iter().flatten().map(|(_, row)| row.len()).sum::<usize>();
        }
        self.read_at_once_max = self.read_at_once_max.max(read_at_once);
        if self.rows_are_honest {
            assert_eq!(worker.prover.suspects(), [], "no row of an honest store looks wrong");
        }
        let log = worker.prover.log()?;
        assert!(log.len() < 16 << 20, "a log fits into a message");
        count_kinds(&log, &mut self.entries, |reader| Entry::decode(reader).is_ok());
        if !log.is_empty() {
            worker.in_flight.push_back((log, Vec::new()));
        }
        Ok(())
    }

    /// The oldest of those in flight; or not yet.
    fn check_log(&mut self, thread: u16) -> Result<(), Stop> {
        let worker = &mut self.workers[usize::from(thread)];
        if self.rng.u8(0..3) == 0 {
            return Ok(());
        }
        let Some((log, mut outputs)) = worker.in_flight.pop_front() else {
            return Ok(());
        };
        match worker.verifier.process(&log, &mut outputs) {
            Progress::Done => {}
            Progress::Waiting { consumed } => {
                worker.in_flight.push_front((log[consumed..].to_vec(), outputs));
                return Ok(());
            }
            Progress::Failed(violation) => return Err(Stop::Violation(violation)),
        }
        count_kinds(&outputs, &mut self.outputs, |reader| Output::decode(reader).is_ok());
        let epoch = worker.prover.epoch();
        let frames = worker.prover.absorb(&outputs)?;
        let has_cut = worker.prover.epoch() > epoch;
        let is_closing = epoch > self.durable.epoch + 1;
        let bytes = frames.iter().map(|(_, frame)| frame.len()).sum();
        self.answered_at_once_max = self.answered_at_once_max.max(bytes);
        let record = worker.prover.take_record();
        let tear = self.rng.bool();
        let delivers = self
            .journal
            .as_mut()
            .is_none_or(|journal| journal.keep(thread, record, tear));
        if is_closing && !worker.has_handed_over {
            self.receipts_while_closing += frames.len();
        }
        for (origin, frame) in frames.into_iter().filter(|_| delivers) {
            self.deliver(thread, origin, &frame);
        }
        let worker = &mut self.workers[usize::from(thread)];
        if has_cut {
            worker.model_at_cut = worker.model.clone();
            self.journal.iter_mut().for_each(|journal| journal.note_cut(thread));
            assert!(!worker.prover.is_active());
            self.release_while_closing(thread)?;
        }
        let worker = &mut self.workers[usize::from(thread)];
        if let Some(epoch) = worker.prover.handed_over() {
            assert_eq!(epoch, self.durable.epoch + 1);
            worker.has_handed_over = true;
            self.packed.push(worker.prover.take_checkpoint()?);
            let snapshot = worker.verifier.take_snapshot().expect("a snapshot");
            self.held = self
                .aggregator
                .submit(snapshot, &self.crypto)
                .map_err(Stop::Violation)?;
        }
        Ok(())
    }

    /// Maybe the checkpoints that wait are applied only now, when the next one has been frozen.
    fn release_while_closing(&mut self, thread: u16) -> Result<(), Stop> {
        let worker = &mut self.workers[usize::from(thread)];
        if core::mem::take(&mut worker.awaits_release) && self.rows_are_honest && self.rng.bool() {
            self.visible = self.durable.rows.clone();
            worker.prover.release_checkpoint(self.durable.epoch)?;
        }
        Ok(())
    }

    /// Records that are hot, of all provers.
    pub fn hot_records(&self) -> usize {
        self.workers.iter().map(|worker| worker.prover.stats().hot).sum()
    }

    /// Records in the verified caches, as the provers have it.
    pub fn cached_records(&self) -> usize {
        self.workers.iter().map(|worker| worker.prover.stats().cached).sum()
    }

    /// Rows that looked wrong to any prover.
    pub fn suspects(&self) -> Vec<Suspect> {
        self.workers
            .iter()
            .flat_map(|worker| worker.prover.suspects())
            .cloned()
            .collect()
    }

    /// Requests and a cut, until it is through or somebody stops.
    pub fn run_until_stopped(&mut self, rounds: usize) -> Result<(), Stop> {
        for round in 0.. {
            if round == rounds {
                self.start_cut(false);
            } else if round > rounds && self.has_handed_over() {
                break;
            }
            let thread = self.rng.u16(0..self.shape.threads);
            self.send(thread);
            self.try_turn(thread)?;
        }
        Ok(())
    }

    /// Some rounds of workers in random order, with traffic in between.
    pub fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let thread = self.rng.u16(0..self.shape.threads);
            for _ in 0..self.rng.usize(0..4) {
                self.send(thread);
            }
            self.turn(thread);
        }
    }

    /// Close the epoch on all threads, with traffic meanwhile; nothing is certified yet.
    pub fn cut(&mut self, all_to_merkle: bool) {
        self.start_cut(all_to_merkle);
        self.finish_cut();
    }

    pub fn start_cut(&mut self, all_to_merkle: bool) {
        for worker in &mut self.workers {
            worker.cut_to_start = Some(all_to_merkle);
            worker.has_handed_over = false;
        }
    }

    pub fn finish_cut(&mut self) {
        while !self.has_handed_over() {
            self.run(1);
        }
        assert!(self.held.is_some(), "the epoch holds when all have handed it over");
    }

    pub fn has_handed_over(&self) -> bool {
        self.workers.iter().all(|worker| worker.has_handed_over)
    }

    /// Make the cut durable, and certify it; `certified_late`: the provers know first.
    pub fn certify(&mut self, certified_late: bool) {
        let held = self.held.take().expect("a cut");
        if let Some(journal) = &mut self.journal {
            journal.certified(&held);
        }
        let mut rows = self.durable.rows.clone();
        for packed in self.packed.drain(..) {
            unpack(&packed, &mut rows);
        }
        self.durable = Durable {
            rows,
            threads: self.shape.threads,
            epoch: held.epoch,
            root: held.root,
            carried: held.carried,
            models: self.workers.iter().map(|worker| worker.model_at_cut.clone()).collect(),
        };
        if !certified_late {
            self.clocks.certify(held.epoch);
        }
        if self.rng.bool() {
            self.apply();
        } else {
            self.apply_some(); // so that several checkpoints wait
            self.workers.iter_mut().for_each(|worker| worker.awaits_release = true);
        }
    }

    /// Bring the durable rows to the readers, and then release them.
    fn apply(&mut self) {
        self.apply_some();
        let rounds = self.rng.usize(0..5);
        self.run(rounds);
        self.visible = self.durable.rows.clone();
        let rounds = self.rng.usize(0..5);
        self.run(rounds);
        for worker in &mut self.workers {
            worker.awaits_release = false;
            worker
                .prover
                .release_checkpoint(self.durable.epoch)
                .expect("a checkpoint");
        }
    }

    /// The certificate that `certify` held back.
    pub fn certify_late(&mut self) {
        self.clocks.certify(self.durable.epoch);
    }

    /// Answer all that is under way.
    pub fn quiesce(&mut self) {
        for _ in 0..20_000 {
            for thread in 0..self.shape.threads {
                self.turn(thread);
            }
        }
        assert!(
            self.workers
                .iter()
                .all(|worker| !worker.prover.is_busy() && worker.in_flight.is_empty())
        );
    }

    /// Kill everything, and start again from what is durable.
    pub fn restart(self, shape: Shape) -> Self {
        self.try_restart(shape).expect("an honest restart")
    }

    /// The same; the prover may find that rows were changed.
    pub fn try_restart(mut self, shape: Shape) -> Result<Self, Stop> {
        let mut world = Self::start(self.rng.fork(), shape, self.durable.clone(), None)?;
        world.rows_are_honest = self.rows_are_honest;
        Ok(world)
    }
}

fn thread_of(key: &[u8], threads: u16) -> u16 {
    u16::from(blake3::hash(key).as_bytes()[0]) * threads / 256
}

/// Count pieces by their first bytes; `skip` reads one piece.
fn count_kinds<const KINDS: usize>(bytes: &[u8], counts: &mut [u64; KINDS], skip: impl Fn(&mut Reader<'_>) -> bool) {
    let mut reader = Reader::new(bytes);
    while let Some(kind) = reader.rest().first() {
        counts[usize::from(*kind)] += 1;
        assert!(skip(&mut reader), "well-formed");
    }
}
