//! Requests on their way through the monitor: submitted, asked, admitted, run, answered.
//!
//! Only the monitor can check a client's MAC. So a request is first *asked* about; when its outcome is known, it is either done with, or
//! *admitted*: then its operations are planned, their rows are read, and the next log runs them. Invariant: what is in `admitted` is what
//! is in the queue of the verifier thread, in the same order, but for the answers that wait there for the turn of their session.

use std::collections::{BTreeSet, VecDeque};

use zetakv_verifier::crypto::Mac;
use zetakv_verifier::key::{Key, LEAF_DEPTH};
use zetakv_verifier::machine::Role;
use zetakv_verifier::output::Output;
use zetakv_verifier::request::Rejection;
use zetakv_verifier::time::Timestamp;

use crate::error::Error;
use crate::frames::{
    ClientOperation, ClientRequest, ClientResume, FrameRules, ResultValues, receipt_frame, rejected_frame,
    resumed_frame,
};
use crate::mirror::Mirror;
use crate::reading::Wanted;
use crate::records::{LOOKED_AT_TOGETHER, RecordId};
use crate::walk::Need;
use crate::write_ahead::{Item, Record};

/// Operations that are planned, and read, at once: bounds the rows in memory for one batch.
const BATCH_OPERATIONS: usize = 4096;

/// Requests that are asked about in one log, and bytes of them: two logs' worth fit into the queue of a verifier thread.
const ASKED_REQUESTS: usize = 1024;
const ASKED_BYTES: usize = 1 << 20;

/// Bytes of values that go with the receipts of one log, before no further operation is begun: many small requests may ask for one long value.
const VALUE_BYTES: usize = 64 << 20;

/// Bytes of one log before no further operation is begun, far below the longest message.
const LOG_BYTES: usize = 4 << 20;

const NO_OPERATIONS: Error = Error::Engine("a request has no operations");
const OUT_OF_ORDER: Error = Error::Monitor("the monitor's outputs are not those of the last log");

/// A frame for a client: where it goes, and its bytes.
pub type ClientFrame = (u64, Vec<u8>);

#[derive(Debug)]
enum Incoming {
    Request(ClientRequest),
    Resume(ClientResume),
    /// Before all others.
    Replay(Item),
    /// After all that is replayed, with its last tag.
    EndReplay(Mac),
}

#[derive(Debug)]
struct Admitted {
    request: ClientRequest,
    role: Role,
    /// Nobody waits for its answer.
    is_replayed: bool,
    operations_run: usize,
    /// For each operation that is planned, where its record is in memory, if it is.
    found: Vec<Option<RecordId>>,
    values: ResultValues,
}

impl Work {
    /// Bytes of it that are in the queue of the verifier thread.
    fn queued_bytes(&self) -> usize {
        match self {
            Self::Request(admitted) => admitted.request.request().len(),
            Self::Resume(_) | Self::Answer(_) => 0,
        }
    }
}

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

#[derive(Debug)]
enum Work {
    Request(Admitted),
    /// A resume, whose answer comes when all before it has run.
    Resume(ClientResume),
    /// An answer that is known, and waits for those before it.
    Answer(ClientFrame),
}

/// All requests of a thread that are not answered.
#[derive(Debug)]
pub struct Rounds {
    rules: FrameRules,
    records_at_once: usize,
    submitted: VecDeque<Incoming>,
    /// Authentic, but too early; with all later requests of their sessions.
    held: Vec<ClientRequest>,
    held_sessions: BTreeSet<u64>,
    /// In the last log, in its order. A resume is always its last entry.
    asked: VecDeque<Incoming>,
    admitted: VecDeque<Work>,
    /// Completed by the last log, in its order.
    completed: VecDeque<Work>,
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
            held: Vec::new(),
            held_sessions: BTreeSet::new(),
            asked: VecDeque::new(),
            admitted: VecDeque::new(),
            completed: VecDeque::new(),
            planned: 0,
            unplanned: Vec::new(),
            path: Vec::new(),
            record: has_log.then(Record::default),
        }
    }

    pub fn submit(&mut self, request: ClientRequest) {
        self.submitted.push_back(Incoming::Request(request));
    }

    pub fn submit_resume(&mut self, resume: ClientResume) {
        self.submitted.push_back(Incoming::Resume(resume));
    }

    /// Queue what was admitted before a crash.
    pub fn submit_replay(&mut self, item: Item) {
        self.submitted.push_back(Incoming::Replay(item));
    }

    /// Queue the end of the replay.
    pub fn submit_end_of_replay(&mut self, tag: Mac) {
        self.submitted.push_back(Incoming::EndReplay(tag));
    }

    /// Whether something is submitted that can be asked about.
    pub fn has_submitted(&self) -> bool {
        !self.submitted.is_empty()
    }

    /// Whether something is admitted and not answered.
    pub fn has_admitted(&self) -> bool {
        !self.admitted.is_empty()
    }

    /// Whether all that was planned is run, so that memory may be swept.
    pub const fn is_between_plans(&self) -> bool {
        self.planned == 0
    }

    // --- running what is admitted ---

    /// Ask for the rows that the next operations need.
    pub fn plan(&mut self, mirror: &Mirror, wanted: &mut Wanted) -> Result<(), Error> {
        if self.planned == 0 {
            self.choose_batch();
            wanted.begin_batch();
        } else if wanted.batch_is_full() {
            self.cut_batch_short();
        }
        let mut unplanned = core::mem::take(&mut self.unplanned);
        let mut records = 0;
        'batch: for together in unplanned.chunks_mut(LOOKED_AT_TOGETHER) {
            let mut found = [None; LOOKED_AT_TOGETHER];
            for (unplanned, found) in together.iter().zip(&mut found) {
                if unplanned.reached.is_none() {
                    let operation = self.operation(unplanned)?.operation;
                    *found = mirror.records.find(&Key::leaf(operation.key));
                }
            }
            mirror.records.look_at(found.iter().flatten().copied());
            for (unplanned, found) in together.iter_mut().zip(found) {
                if records >= self.records_at_once {
                    break 'batch;
                }
                let operation = self.operation(unplanned)?.operation;
                match mirror.needs_of_operation(operation, found, &mut unplanned.reached)? {
                    Need::Row(key) => {
                        records += usize::from(key.depth() == LEAF_DEPTH);
                        wanted.push(key, Key::leaf(operation.key));
                    }
                    Need::Nothing(found) => {
                        unplanned.is_ready = true;
                        if let Some(Work::Request(admitted)) = self.admitted.get_mut(unplanned.index) {
                            admitted.found[unplanned.operation] = found;
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
        for (index, work) in self.admitted.iter().enumerate() {
            if let Work::Request(admitted) = work {
                let room = BATCH_OPERATIONS - self.unplanned.len();
                let operations = admitted.operations_run..admitted.request.count();
                self.unplanned.extend(operations.take(room).map(|operation| Unplanned {
                    index,
                    operation,
                    reached: None,
                    is_ready: false,
                }));
            }
            if self.unplanned.len() == BATCH_OPERATIONS {
                break;
            }
        }
        self.planned = self.unplanned.len();
    }

    /// End the batch before the first operation that is not ready; or after it, if there is none before.
    fn cut_batch_short(&mut self) {
        let Some(first) = self.unplanned.first() else {
            return;
        };
        let operations_left = |work: &Work| match work {
            Work::Request(admitted) => admitted.request.count() - admitted.operations_run,
            Work::Resume(_) | Work::Answer(_) => 0,
        };
        let run_already = match self.admitted.get(first.index) {
            Some(Work::Request(admitted)) => admitted.operations_run,
            _ => 0,
        };
        let before: usize = self.admitted.iter().take(first.index).map(operations_left).sum();
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
            if admitted.operations_run < admitted.request.count() {
                continue;
            }
            value_bytes += admitted.values.bytes();
            self.completed.extend(self.admitted.pop_front());
            // what needs no entries is completed with what is before it
            while let Some(Work::Resume(_) | Work::Answer(_)) = self.admitted.front() {
                self.completed.extend(self.admitted.pop_front());
            }
        }
        Ok(())
    }

    // --- asking about what is submitted ---

    /// Write the log that asks about what is submitted, as far as it fits. Nothing, while the queue of the verifier thread holds as much.
    pub fn ask(&mut self, mirror: &mut Mirror) {
        if self.admitted.iter().map(Work::queued_bytes).sum::<usize>() >= ASKED_BYTES {
            return;
        }
        let mut bytes = 0;
        while self.asked.len() < ASKED_REQUESTS && bytes < ASKED_BYTES && self.admitted.len() < ASKED_REQUESTS {
            match self.submitted.pop_front() {
                None => break,
                Some(Incoming::Request(request)) if self.held_sessions.contains(&request.header.session) => {
                    self.held.push(request);
                }
                Some(Incoming::Request(request)) => {
                    bytes += request.request().len();
                    mirror.request(request.request());
                    self.asked.push_back(Incoming::Request(request));
                }
                Some(Incoming::Resume(resume)) => {
                    mirror.resume(&resume.resume);
                    self.asked.push_back(Incoming::Resume(resume));
                    break; // one that is accepted may get no answer yet: nothing after it could be told from it
                }
                Some(Incoming::Replay(Item::Mark(incarnation))) => mirror.replay_mark(&incarnation),
                Some(Incoming::Replay(Item::Request(role, request))) => {
                    bytes += request.request().len();
                    mirror.replay(role, request.request());
                    // its outcome is known
                    self.admitted
                        .extend(role.map(|role| Work::Request(Admitted::new(request, role, true))));
                }
                Some(Incoming::EndReplay(tag)) => mirror.end_replay(&tag),
            }
        }
    }

    /// An epoch has begun: ask again about what was too early.
    pub fn release_held(&mut self) {
        self.held_sessions.clear();
        for request in self.held.drain(..).rev() {
            self.submitted.push_front(Incoming::Request(request));
        }
    }

    // --- the monitor's answers ---

    /// One output of the monitor that concerns requests.
    pub fn absorb(&mut self, output: &Output<'_>, frames: &mut Vec<ClientFrame>) -> Result<(), Error> {
        match output {
            Output::Receipt(receipt) => {
                let Some(Work::Request(done)) = self.completed.pop_front() else {
                    return Err(OUT_OF_ORDER);
                };
                if !done.is_replayed {
                    frames.push((done.request.origin, receipt_frame(&self.rules, receipt, &done.values)));
                }
                self.pass_answers(frames);
            }
            Output::Resumed(resumed) => {
                let origin = match (self.completed.pop_front(), self.asked.front()) {
                    (Some(Work::Resume(done)), _) => done.origin,
                    (None, Some(Incoming::Resume(asked))) => {
                        let origin = asked.origin;
                        self.asked.pop_front();
                        origin
                    }
                    _ => return Err(OUT_OF_ORDER),
                };
                frames.push((origin, resumed_frame(resumed)));
                self.pass_answers(frames);
            }
            Output::Admitted(role) => {
                let request = self.take_asked_request()?;
                self.logged(Some(*role), &request);
                self.admitted
                    .push_back(Work::Request(Admitted::new(request, *role, false)));
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

    fn rejected(&mut self, reason: u8, frames: &mut Vec<ClientFrame>) -> Result<(), Error> {
        let thread = self.rules.thread;
        match self.asked.pop_front() {
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

    /// The outputs of a log have ended.
    pub fn finish_absorbing(&mut self) -> Result<(), Error> {
        match self.asked.pop_front() {
            None => {}
            // accepted: its answer comes after those of what is admitted
            Some(Incoming::Resume(resume)) => self.admitted.push_back(Work::Resume(resume)),
            Some(_) => return Err(OUT_OF_ORDER),
        }
        let starts_with_request = matches!(self.admitted.front(), None | Some(Work::Request(_)));
        if self.asked.is_empty() && self.completed.is_empty() && starts_with_request {
            Ok(())
        } else {
            Err(OUT_OF_ORDER)
        }
    }

    fn take_asked_request(&mut self) -> Result<ClientRequest, Error> {
        match self.asked.pop_front() {
            Some(Incoming::Request(request)) => Ok(request),
            _ => Err(OUT_OF_ORDER),
        }
    }

    /// Answer in the order of requests.
    fn answer(&mut self, frame: ClientFrame, frames: &mut Vec<ClientFrame>) {
        if self.admitted.is_empty() {
            frames.push(frame);
        } else {
            self.admitted.push_back(Work::Answer(frame));
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

impl Admitted {
    fn new(request: ClientRequest, role: Role, is_replayed: bool) -> Self {
        Self {
            found: vec![None; request.count()],
            request,
            role,
            is_replayed,
            operations_run: 0,
            values: ResultValues::default(),
        }
    }

    fn run_next(
        &mut self,
        mirror: &mut Mirror,
        response_bytes_max: usize,
        path: &mut Vec<RecordId>,
    ) -> Result<(), Error> {
        let Some(operation) = self.request.operation(self.operations_run) else {
            return Err(NO_OPERATIONS);
        };
        let is_first = self.operations_run == 0 && !self.is_replayed; // what is replayed waits for no moment
        let after_ts = is_first.then(|| Timestamp::from_u64(self.request.header.after_ts));
        if let Some(value) =
            mirror.run_operation(operation, self.role, after_ts, self.found[self.operations_run], path)?
        {
            self.values.push(value, response_bytes_max);
        }
        self.operations_run += 1;
        Ok(())
    }
}
