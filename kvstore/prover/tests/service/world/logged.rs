//! The world with a write-ahead log: what its host keeps of each thread, and what the monitor's register would hold.
//!
//! The host here is honest, but it crashes: at any moment, also in a replay; and what it has not confirmed to anybody may be torn off.
//! What must hold then: all that was answered is kept; what is kept runs again, once, in its order; nothing else does.

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroizing;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Mac;
use zetakv_verifier::machine::Role;
use zetakv_verifier::{HeldEpoch, Incarnation, LogConfig};

use super::{Durable, Shape, Sum, World};
use crate::client::{Action, Model, expect};

/// A request: its session, and its sequence.
type Name = (u64, u64);

/// What outlives crashes.
#[derive(Clone, Default)]
pub struct Journal {
    /// Of each thread, since the sealed state.
    records: Vec<Vec<Vec<u8>>>,
    /// Of each thread, records that the epoch which was handed over has in it.
    cut_at: Vec<usize>,
    /// In the sealed state.
    tags: Vec<Mac>,
    sealed_by: Incarnation,
    /// In the register.
    latest: Incarnation,
    starts: u8,
    pub sessions: u64,
    /// What clients sent.
    sent: BTreeMap<Name, Vec<(Vec<u8>, Action)>>,
    /// Of each thread, what clients were answered, and no sealed state has.
    answered: Vec<BTreeSet<Name>>,
    /// Of each thread, whether its end is torn off, from when the crash began.
    torn: Option<Vec<bool>>,
    pub counts: Counts,
}

/// How much of what was there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub replayed: u64,
    pub records_torn: u64,
    pub crashes_in_replay: u64,
}

impl Journal {
    fn new(threads: u16) -> Self {
        let mut journal = Self::default();
        journal.clear(threads);
        journal
    }

    fn clear(&mut self, threads: u16) {
        let threads = usize::from(threads);
        self.records = vec![Vec::new(); threads];
        self.cut_at = vec![0; threads];
        self.answered = vec![BTreeSet::new(); threads];
    }

    pub fn incarnation(&self) -> Incarnation {
        [self.starts; 16]
    }

    fn has_requests(&self) -> bool {
        let mut records = self.records.iter().flatten();
        records.any(|record| !requests_of(record).is_empty())
    }

    /// What a thread starts from.
    pub fn config(&self, thread: u16, threads: u16) -> LogConfig {
        let of_as_many = self.tags.len() == usize::from(threads);
        let tag = self.tags.get(usize::from(thread)).copied().filter(|_| of_as_many);
        let has_mark = tag.is_some() && self.sealed_by == self.latest;
        LogConfig {
            key: Zeroizing::new([3; 32]),
            threads,
            instance: [4; 16],
            incarnation: self.incarnation(),
            sealed_by: self.sealed_by,
            tag,
            latest: (!has_mark).then_some(self.latest),
        }
    }

    /// Keep a record, if there is one. False if it is torn off, and nobody may hear of it.
    pub fn keep(&mut self, thread: u16, record: Vec<u8>, tear: bool) -> bool {
        let thread = usize::from(thread);
        if let Some(torn) = &mut self.torn {
            torn[thread] |= tear;
            if torn[thread] {
                self.counts.records_torn += u64::from(!record.is_empty());
                return false;
            }
        }
        if !record.is_empty() {
            self.records[thread].push(record);
        }
        self.torn.is_none()
    }

    pub fn note_sent(&mut self, name: Name, operations: Vec<(Vec<u8>, Action)>) {
        self.sent.insert(name, operations);
    }

    pub fn note_answered(&mut self, thread: u16, name: Name) {
        self.answered[usize::from(thread)].insert(name);
    }

    pub fn note_cut(&mut self, thread: u16) {
        self.cut_at[usize::from(thread)] = self.records[usize::from(thread)].len();
    }

    /// An epoch is certified: its records are not needed any more.
    pub fn certified(&mut self, held: &HeldEpoch<Sum>) {
        self.tags = held.tags.clone();
        self.sealed_by = self.incarnation();
        for (thread, records) in self.records.iter_mut().enumerate() {
            for record in records.drain(..self.cut_at[thread]) {
                for (name, _) in requests_of(&record) {
                    let (_, lasts) = held.sessions.iter().find(|it| *it.0 == name.0).expect("its session");
                    assert!(lasts[thread] >= name.1, "the sealed state has what ran");
                    self.answered[thread].remove(&name);
                }
            }
        }
    }

    /// What was answered is kept. Returns the model of a thread after the replay of what is kept.
    fn replayed_model(&mut self, thread: u16, mut model: Model) -> Model {
        let thread = usize::from(thread);
        let requests: Vec<_> = self.records[thread].iter().flat_map(|it| requests_of(it)).collect();
        let kept: BTreeSet<Name> = requests.iter().map(|it| it.0).collect();
        assert_eq!(kept.len(), requests.len(), "each once");
        assert!(self.answered[thread].is_subset(&kept), "what was answered is durable");
        self.counts.replayed += kept.len() as u64;
        for (name, role) in requests {
            let Some(role) = role else { continue };
            for (key, action) in &self.sent[&name] {
                expect(&mut model, role, key, action);
            }
        }
        model
    }
}

/// The requests in a record, each with the role that it was admitted in.
fn requests_of(record: &[u8]) -> Vec<(Name, Option<Role>)> {
    let mut reader = Reader::new(&record[16..]);
    let mut requests = Vec::new();
    while reader.remaining() > 0 {
        if reader.u8() == Ok(0) {
            reader.take(16).expect("an incarnation");
            continue;
        }
        let role = Role::from_u8(reader.u8().expect("a role"));
        let length = reader.u32().expect("a length");
        let mut request = Reader::new(&reader.take(length as usize).expect("a request")[4..]);
        let session = request.u64().expect("a session");
        request.take(8).expect("generation, thread, number of operations");
        requests.push(((session, request.u64().expect("a sequence")), role));
    }
    requests
}

impl World {
    /// A world whose host keeps a log.
    pub fn with_log(seed: u64, shape: Shape) -> Self {
        println!("seed {seed}, {shape:?}, with a write-ahead log");
        let durable = Durable::new(shape.threads);
        let journal = Journal::new(shape.threads);
        Self::start_with_log(fastrand::Rng::with_seed(seed), shape, durable, journal)
    }

    fn start_with_log(mut rng: fastrand::Rng, shape: Shape, durable: Durable, mut journal: Journal) -> Self {
        journal.torn = None;
        loop {
            journal.starts = journal.starts.checked_add(1).expect("few starts");
            let world =
                Self::start(rng.fork(), shape, durable.clone(), Some(journal.clone())).expect("an honest start");
            match world.replay(rng.u8(0..3) == 0) {
                Ok(world) => return world,
                Err(crashed) => journal = *crashed,
            }
        }
    }

    fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().expect("a world with a log")
    }

    /// Replay what is kept, and go live; or crash in between, and leave what is kept then.
    fn replay(mut self, crashes: bool) -> Result<Self, Box<Journal>> {
        let kept = self.journal().records.clone();
        for (worker, records) in self.workers.iter_mut().zip(&kept) {
            for record in records {
                worker.prover.replay(record).expect("a record");
            }
            worker.prover.end_replay().expect("in the replay");
        }
        let mut turns_left = if crashes { self.rng.usize(1..40) } else { usize::MAX };
        while self.workers.iter().any(|worker| worker.prover.is_replaying()) {
            let thread = self.rng.u16(0..self.shape.threads);
            self.turn(thread);
            turns_left -= 1;
            if turns_left == 0 {
                break;
            }
        }
        if crashes {
            // marks of this start may be torn off, or stay
            for (records, before) in self.journal.iter_mut().flat_map(|it| it.records.iter_mut()).zip(&kept) {
                records.truncate(self.rng.usize(before.len()..=records.len()));
            }
            self.journal().counts.crashes_in_replay += 1;
            return Err(Box::new(self.journal().clone()));
        }
        for thread in 0..self.shape.threads {
            let before = self.workers[usize::from(thread)].model.clone();
            let model = self.journal().replayed_model(thread, before);
            self.workers[usize::from(thread)].model = model;
            self.open_clients(thread);
        }
        let journal = self.journal();
        journal.latest = journal.incarnation();
        Ok(self)
    }

    /// Let everything die: what is under way is answered to nobody, and is kept up to any point. Then start again.
    pub fn crash(mut self, rounds: usize) -> Self {
        self.begin_to_die();
        self.run(rounds);
        let (shape, rng) = (self.shape, self.rng.fork());
        Self::start_with_log(rng, shape, self.durable.clone(), self.journal().clone())
    }

    fn begin_to_die(&mut self) {
        let threads = usize::from(self.shape.threads);
        self.journal().torn = Some(vec![false; threads]);
    }

    /// Start again with another number of threads: a checkpoint comes first, and nobody is served until then.
    pub fn restart_with_threads(self, threads: u16) -> Self {
        let mut world = self.crash(0);
        world.is_quiet = true;
        world.cut(false);
        world.quiesce();
        world.certify(false);
        assert!(!world.journal().has_requests());
        let mut journal = world.journal().clone();
        journal.clear(threads);
        let shape = Shape { threads, ..world.shape };
        Self::start_with_log(world.rng.fork(), shape, world.durable.clone(), journal)
    }

    pub fn counts(&mut self) -> Counts {
        self.journal().counts
    }
}
