//! Requests on their way through the monitor: submitted, asked, admitted, run, answered.
//!
//! Only the monitor can check a client's MAC. So a request is first *asked* about; when its outcome is known, it is either done with, or
//! *admitted*: then its operations are planned, their rows are read, and the next log runs them. Invariant: once the logs in flight are
//! checked, the queue of the verifier thread holds what is in `admitted`, and then what of `asked` it has admitted, in the same order, but for the
//! answers that wait in `admitted` for the turn of their session.

use std::collections::{BTreeSet, VecDeque};

use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Mac;
use zetakv_verifier::key::{Key, LEAF_DEPTH};
use zetakv_verifier::machine::Role;
use zetakv_verifier::output::Output;
use zetakv_verifier::receipt::Resumed;
use zetakv_verifier::request::Rejection;

use crate::error::Error;
use crate::frames::{
    ClientOperation, ClientRequest, ClientResume, FrameRules, ResultValues, receipt_frame, rejected_frame,
    resumed_frame,
};
use crate::mirror::{LOG_BYTES, Mirror};
use crate::reading::Wanted;
use crate::records::{LOOKED_AT_TOGETHER, RecordId};
use crate::walk::{Need, Search};
use crate::work::{Admitted, ClientFrame, Incoming, NO_OPERATIONS, Work};
use crate::write_ahead::{Item, Record};

/// Operations that are planned, read and run at once: a quarter of all that are not answered. One batch is proved while the verifier checks
/// another, and the rest is with the clients, or on its way: with halves, all three mostly waited for one another. But not so few that messages
/// cost more than that saves (docs/performance.md), nor more than find room in one log.
const BATCH_OPERATIONS_MIN: usize = 256;
const BATCH_OPERATIONS_MAX: usize = 1024;

/// Requests that are asked about in one log, and bytes of them: two logs' worth fit into the queue of a verifier thread.
const ASKED_REQUESTS: usize = 1024;
const ASKED_BYTES: usize = 1 << 20;

/// Bytes of values that go with the receipts of one log, before no further operation is begun: many small requests may ask for one long value.
const VALUE_BYTES: usize = 32 << 20;

const OUT_OF_ORDER: Error = Error::Monitor("the monitor's outputs are not those of its oldest log");

/// An operation whose rows are not all in memory.
#[derive(Debug)]
struct Unplanned {
    /// Index in `admitted`.
    index: usize,
    operation: usize,
    /// The last node that was found on the path to its record.
    reached: Option<RecordId>,
    /// They are now.
    is_ready: bool,
}

/// A log in flight: how many of its entries have no output yet.
#[derive(Debug, Default)]
struct Flight {
    asked: usize,
    completed: usize,
}

/// All requests of a thread that are not answered.
#[derive(Debug)]
pub struct Rounds {
    rules: FrameRules,
    records_at_once: usize,
    submitted: VecDeque<Incoming>,
    /// What was submitted before others that are asked about first: anybody can send resumes, each of which ends a log, and they keep no request
    /// waiting.
    resumes: VecDeque<ClientResume>,
    /// Authentic, but too early; with all later requests of their sessions.
    held: Vec<ClientRequest>,
    held_sessions: BTreeSet<u64>,
    /// By the logs in flight, in their order. A resume is the last entry of the last one.
    asked: VecDeque<Incoming>,
    admitted: VecDeque<Work>,
    /// Operations that are submitted, and those that are admitted and not run.
    submitted_operations: usize,
    admitted_operations: usize,
    /// By the logs in flight, in their order, with the answers that wait for them.
    completed: VecDeque<Work>,
    /// From the oldest.
    in_flight: VecDeque<Flight>,
    /// The log that is being written.
    writing: Flight,
    /// Operations that are planned next.
    batch_operations: usize,
    /// The next so many operations are planned: what they need is in memory, once `unplanned` is empty.
    planned: usize,
    /// In the order of the operations.
    unplanned: Vec<Unplanned>,
    path: Vec<RecordId>,
    /// Of the write-ahead log, if there is one.
    pub record: Option<Record>,
}

impl Rounds {
    pub fn new(rules: FrameRules, records_at_once: usize, has_log: bool) -> Self {
        Self {
            records_at_once,
            rules,
            submitted: VecDeque::new(),
            resumes: VecDeque::new(),
            held: Vec::new(),
            held_sessions: BTreeSet::new(),
            asked: VecDeque::new(),
            admitted: VecDeque::new(),
            submitted_operations: 0,
            admitted_operations: 0,
            completed: VecDeque::new(),
            in_flight: VecDeque::new(),
            writing: Flight::default(),
            batch_operations: BATCH_OPERATIONS_MAX,
            planned: 0,
            unplanned: Vec::new(),
            path: Vec::new(),
            record: has_log.then(Record::default),
        }
    }

    pub fn submit(&mut self, request: ClientRequest) {
        self.submitted_operations += request.count();
        self.submitted.push_back(Incoming::Request(request));
    }

    pub fn submit_resume(&mut self, resume: ClientResume) {
        self.submitted.push_back(Incoming::Resume(resume));
    }

    /// Queue what was admitted before a crash.
    pub fn submit_replay(&mut self, item: Item) {
        let incoming = Incoming::Replay(item);
        self.submitted_operations += incoming.operations();
        self.submitted.push_back(incoming);
    }

    /// Queue the end of the replay.
    pub fn submit_end_of_replay(&mut self, tag: Mac) {
        self.submitted.push_back(Incoming::EndReplay(tag));
    }

    /// Whether something is submitted that can be asked about.
    pub fn has_submitted(&self) -> bool {
        !self.submitted.is_empty() || !self.resumes.is_empty()
    }

    /// Whether something is admitted and not run.
    pub fn has_admitted(&self) -> bool {
        !self.admitted.is_empty()
    }

    /// Whether the logs in flight ask about something: it may be admitted.
    pub fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether what comes after the logs in flight can only be told from their outputs: an accepted resume may get no answer yet, and so
    /// could not be told from what was asked about after it; and what was asked about may have to be held, before later requests of its session.
    pub fn must_wait(&self) -> bool {
        let asks_for_resume = matches!(self.asked.back(), Some(Incoming::Resume(_)));
        asks_for_resume || (self.has_asked() && !self.held_sessions.is_empty())
    }

    /// Whether a whole batch of operations is admitted, or, if it may be asked about, submitted.
    pub fn has_batch(&self, may_ask: bool) -> bool {
        let has_rest = self.planned > 0; // of a batch whose log was long enough
        let is_batch = |operations: usize| operations >= self.batch_operations;
        has_rest
            || is_batch(self.admitted_operations)
            || (may_ask && is_batch(self.admitted_operations + self.submitted_operations) && self.queue_has_room())
    }

    /// Whether all that was planned is run, so that memory may be swept.
    pub const fn is_between_plans(&self) -> bool {
        self.planned == 0
    }

    // --- running what is admitted ---

    /// Ask for the rows that the next operations need.
    pub fn plan(&mut self, mirror: &mut Mirror, wanted: &mut Wanted) -> Result<(), Error> {
        if self.planned == 0 {
            self.choose_batch();
            wanted.begin_batch();
        } else if wanted.batch_is_full() {
            self.cut_batch_short();
        }
        let mut unplanned = core::mem::take(&mut self.unplanned);
        let mut records = 0;
        'batch: for together in unplanned.chunks_mut(LOOKED_AT_TOGETHER) {
            let begin = |unplanned: &Unplanned| {
                let operation = self.operation(unplanned)?.operation;
                Ok(Search {
                    key: Key::leaf(operation.key),
                    reached: unplanned.reached,
                    end: None,
                })
            };
            let mut searches = together.iter().map(begin).collect::<Result<Vec<_>, Error>>()?;
            mirror.search_together(&mut searches)?;
            for (unplanned, search) in together.iter_mut().zip(&searches) {
                if records >= self.records_at_once {
                    break 'batch;
                }
                unplanned.reached = search.reached;
                let operation = self.operation(unplanned)?.operation;
                match mirror.needs_of_operation(operation, search)? {
                    Need::Row(key) => {
                        records += usize::from(key.depth() == LEAF_DEPTH);
                        wanted.push(key, search.key);
                    }
                    Need::Nothing(found) => {
                        unplanned.is_ready = true;
                        if let Some(Work::Request(admitted)) = self.admitted.get_mut(unplanned.index) {
                            admitted.found[unplanned.operation] = Some(found);
                        }
                    }
                }
            }
        }
        unplanned.retain(|unplanned| !unplanned.is_ready);
        self.unplanned = unplanned;
        Ok(())
    }

    fn operation(&self, unplanned: &Unplanned) -> Result<ClientOperation<'_>, Error> {
        match self.admitted.get(unplanned.index) {
            Some(Work::Request(admitted)) => admitted.request.operation(unplanned.operation).ok_or(NO_OPERATIONS),
            _ => Err(NO_OPERATIONS),
        }
    }

    fn choose_batch(&mut self) {
        self.batch_operations = (self.unanswered() / 4).clamp(BATCH_OPERATIONS_MIN, BATCH_OPERATIONS_MAX);
        for (index, work) in self.admitted.iter().enumerate() {
            if let Work::Request(admitted) = work {
                let room = self.batch_operations - self.unplanned.len();
                let operations = admitted.operations_run..admitted.request.count();
                self.unplanned.extend(operations.take(room).map(|operation| Unplanned {
                    index,
                    operation,
                    reached: None,
                    is_ready: false,
                }));
            }
            if self.unplanned.len() == self.batch_operations {
                break;
            }
        }
        self.planned = self.unplanned.len();
    }

    /// Operations that are submitted and not answered.
    fn unanswered(&self) -> usize {
        let asked: usize = self.asked.iter().map(Incoming::operations).sum();
        let completed = self.completed.iter().filter_map(Work::request);
        let completed: usize = completed.map(|completed| completed.request.count()).sum();
        self.submitted_operations + asked + self.admitted_operations + completed
    }

    /// End the batch before the first operation that is not ready; or after it, if there is none before.
    fn cut_batch_short(&mut self) {
        let Some(first) = self.unplanned.first() else {
            return;
        };
        let run_already = match self.admitted.get(first.index) {
            Some(Work::Request(admitted)) => admitted.operations_run,
            _ => 0,
        };
        let before = self.admitted.iter().take(first.index).filter_map(Work::request);
        let before: usize = before.map(Admitted::operations_left).sum();
        let ready = before + first.operation - run_already;
        self.unplanned.truncate(usize::from(ready == 0));
        self.planned = ready.max(1);
    }

    /// Write the log of what is planned, as far as it fits.
    pub fn run(&mut self, mirror: &mut Mirror) -> Result<(), Error> {
        if !self.unplanned.is_empty() {
            return Err(Error::Engine("the rows that operations need have not been supplied"));
        }
        let mut value_bytes = 0;
        while self.planned > 0 && mirror.log_bytes() < LOG_BYTES && value_bytes < VALUE_BYTES {
            let Some(Work::Request(admitted)) = self.admitted.front_mut() else {
                return Err(Error::Engine("operations are planned that were not admitted"));
            };
            admitted.run_next(mirror, self.rules.response_bytes_max, &mut self.path)?;
            self.planned -= 1;
            self.admitted_operations -= 1;
            if admitted.operations_left() > 0 {
                continue;
            }
            value_bytes += admitted.values.bytes();
            self.complete();
            // what needs no entries is completed with what is before it
            while let Some(Work::Resume(_) | Work::Answer(_)) = self.admitted.front() {
                self.complete();
            }
        }
        Ok(())
    }

    fn admit(&mut self, admitted: Admitted) {
        self.admitted_operations += admitted.request.count();
        self.admitted.push_back(Work::Request(admitted));
    }

    fn complete(&mut self) {
        let work = self.admitted.pop_front();
        self.writing.completed += usize::from(!matches!(work, None | Some(Work::Answer(_))));
        self.completed.extend(work);
    }

    // --- asking about what is submitted ---

    /// Whether the queue of the verifier thread has room for one more log's worth of requests, if all that was asked about is admitted.
    fn queue_has_room(&self) -> bool {
        let asked = self.asked.iter().filter_map(Incoming::request);
        let admitted = self.admitted.iter().filter_map(Work::request);
        let queued = asked.chain(admitted.map(|admitted| &admitted.request));
        let bytes: usize = queued.map(|request| request.request().len()).sum();
        bytes < ASKED_BYTES && self.asked.len() + self.admitted.len() < ASKED_REQUESTS
    }

    /// Write the log that asks about what is submitted, as far as it fits.
    pub fn ask(&mut self, mirror: &mut Mirror) {
        if !self.queue_has_room() {
            return;
        }
        let mut bytes = 0;
        while self.writing.asked < ASKED_REQUESTS && bytes < ASKED_BYTES && self.admitted.len() < ASKED_REQUESTS {
            let incoming = self.submitted.pop_front();
            self.submitted_operations -= incoming.as_ref().map_or(0, Incoming::operations);
            match incoming {
                None => break,
                Some(Incoming::Request(request)) if self.held_sessions.contains(&request.header.session) => {
                    self.held.push(request);
                }
                Some(Incoming::Request(request)) => {
                    bytes += request.request().len();
                    mirror.request(request.request());
                    self.writing.asked += 1;
                    self.asked.push_back(Incoming::Request(request));
                }
                Some(Incoming::Resume(resume)) => self.resumes.push_back(resume),
                Some(Incoming::Replay(Item::Mark(incarnation))) => mirror.replay_mark(&incarnation),
                Some(Incoming::Replay(Item::Request(role, request))) => {
                    bytes += request.request().len();
                    mirror.replay(role, request.request());
                    if let Some(role) = role {
                        self.admit(Admitted::new(request, role, true)); // its outcome is known
                    }
                }
                Some(Incoming::EndReplay(tag)) => mirror.end_replay(&tag),
            }
        }
        if let Some(resume) = self.resumes.pop_front() {
            mirror.resume(&resume.resume);
            self.writing.asked += 1;
            self.asked.push_back(Incoming::Resume(resume)); // the last one: see `must_wait`
        }
    }

    /// An epoch has begun: ask again about what was too early.
    pub fn release_held(&mut self) {
        self.held_sessions.clear();
        // those of sessions that are held came after what is held of them
        for resume in self.resumes.drain(..).rev() {
            self.submitted.push_front(Incoming::Resume(resume));
        }
        for request in self.held.drain(..).rev() {
            self.submitted_operations += request.count();
            self.submitted.push_front(Incoming::Request(request));
        }
    }

    /// The log that was written is in flight.
    pub fn sent(&mut self) {
        self.in_flight.push_back(core::mem::take(&mut self.writing));
    }

    /// Whether any log is in flight.
    pub fn is_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    // --- the monitor's answers ---

    /// One output of the monitor that concerns requests.
    pub fn absorb(&mut self, output: &Output<'_>, frames: &mut Vec<ClientFrame>) -> Result<(), Error> {
        match output {
            Output::Receipt(receipt) => {
                let Some(Work::Request(done)) = self.take_completed() else {
                    return Err(OUT_OF_ORDER);
                };
                if !done.is_replayed {
                    frames.push((done.request.origin, receipt_frame(&self.rules, receipt, &done.values)));
                }
                self.pass_answers(frames);
            }
            Output::Resumed(resumed) => {
                let origin = match self.take_completed() {
                    Some(Work::Resume(done)) => done.origin,
                    None => match self.take_asked() {
                        Some(Incoming::Resume(asked)) => asked.origin,
                        _ => return Err(OUT_OF_ORDER),
                    },
                    Some(_) => return Err(OUT_OF_ORDER),
                };
                self.reject_held(resumed, frames)?;
                frames.push((origin, resumed_frame(resumed)));
                self.pass_answers(frames);
            }
            Output::Admitted(role) => {
                let request = self.take_asked_request()?;
                self.logged(Some(*role), &request);
                self.admit(Admitted::new(request, *role, false));
            }
            Output::NotYet => {
                let request = self.take_asked_request()?;
                self.held_sessions.insert(request.header.session);
                self.held.push(request);
            }
            Output::Refused(receipt) => {
                let request = self.take_asked_request()?;
                self.logged(None, &request);
                self.answer(
                    (
                        request.origin,
                        receipt_frame(&self.rules, receipt, &ResultValues::default()),
                    ),
                    frames,
                );
            }
            Output::Rejected(reason) => self.rejected(*reason, frames)?,
            Output::HandedOver(_) | Output::EpochNotYet | Output::Logged(_) | Output::Failed(_) => {
                return Err(OUT_OF_ORDER);
            }
        }
        Ok(())
    }

    /// A session was resumed: its requests of older generations that are held will never be admitted, and their client hears so first.
    fn reject_held(&mut self, resumed: &[u8], frames: &mut Vec<ClientFrame>) -> Result<(), Error> {
        let garbled = |_| Error::Monitor("the monitor's answer to a resume cannot be parsed");
        let resumed = Resumed::decode(&mut Reader::new(resumed)).map_err(garbled)?;
        for request in core::mem::take(&mut self.held) {
            let header = &request.header;
            if header.session == resumed.session && header.generation < resumed.generation {
                let reason = Rejection::BadGeneration as u8;
                let frame = rejected_frame(header.session, self.rules.thread, header.sequence, reason);
                frames.push((request.origin, frame));
            } else {
                self.held.push(request);
            }
        }
        if self
            .held
            .iter()
            .all(|request| request.header.session != resumed.session)
        {
            self.held_sessions.remove(&resumed.session);
        }
        Ok(())
    }

    fn rejected(&mut self, reason: u8, frames: &mut Vec<ClientFrame>) -> Result<(), Error> {
        let thread = self.rules.thread;
        match self.take_asked() {
            Some(Incoming::Request(request)) => {
                let header = &request.header;
                if reason == Rejection::BadSequence as u8 && self.held_sessions.contains(&header.session) {
                    // it came right after one that is too early
                    self.held.push(request);
                } else {
                    let frame = rejected_frame(header.session, thread, header.sequence, reason);
                    self.answer((request.origin, frame), frames);
                }
            }
            Some(Incoming::Resume(resume)) => {
                self.answer(
                    (resume.origin, rejected_frame(resume.session, thread, 0, reason)),
                    frames,
                );
            }
            _ => return Err(OUT_OF_ORDER),
        }
        Ok(())
    }

    fn logged(&mut self, role: Option<Role>, request: &ClientRequest) {
        if let Some(record) = &mut self.record {
            record.request(role, request);
        }
    }

    /// The outputs of the oldest log have ended.
    pub fn finish_absorbing(&mut self) -> Result<(), Error> {
        match self.take_asked() {
            None => {}
            // accepted: its answer comes after those of what is admitted
            Some(Incoming::Resume(resume)) => self.admitted.push_back(Work::Resume(resume)),
            Some(_) => return Err(OUT_OF_ORDER),
        }
        let is_answered = |flight: &Flight| flight.asked == 0 && flight.completed == 0;
        let starts_with_request = matches!(self.admitted.front(), None | Some(Work::Request(_)));
        if self.in_flight.pop_front().as_ref().is_none_or(is_answered) && starts_with_request {
            Ok(())
        } else {
            Err(OUT_OF_ORDER)
        }
    }

    /// The next of what the oldest log in flight asks about.
    fn take_asked(&mut self) -> Option<Incoming> {
        let flight = self.in_flight.front_mut()?;
        flight.asked = flight.asked.checked_sub(1)?;
        self.asked.pop_front()
    }

    /// The next of what it completes.
    fn take_completed(&mut self) -> Option<Work> {
        let flight = self.in_flight.front_mut()?;
        flight.completed = flight.completed.checked_sub(1)?;
        self.completed.pop_front()
    }

    fn take_asked_request(&mut self) -> Result<ClientRequest, Error> {
        match self.take_asked() {
            Some(Incoming::Request(request)) => Ok(request),
            _ => Err(OUT_OF_ORDER),
        }
    }

    /// Answer in the order of requests.
    fn answer(&mut self, frame: ClientFrame, frames: &mut Vec<ClientFrame>) {
        if !self.admitted.is_empty() {
            self.admitted.push_back(Work::Answer(frame));
        } else if !self.completed.is_empty() {
            self.completed.push_back(Work::Answer(frame));
        } else {
            frames.push(frame);
        }
    }

    fn pass_answers(&mut self, frames: &mut Vec<ClientFrame>) {
        while let Some(Work::Answer(_)) = self.completed.front() {
            if let Some(Work::Answer(frame)) = self.completed.pop_front() {
                frames.push(frame);
            }
        }
    }
}
