//! The state of the model: what the host has, what the register holds, the monitor's incarnation if there is one, and one client.
//!
//! Small numbers name everything. Incarnations count from 1 (0: before the first); sealed states, sessions, requests and so on are their
//! places in the lists of what was ever made, so that two of the same content are still two, as random nonces and keys make them.

use std::collections::BTreeMap;

/// Operations that the client wants done.
pub const OPS_MAX: usize = 2;

/// An operation: a write of its own record.
pub type Op = u8;
/// An operation of somebody else, which may be the host.
pub const STRANGE: Op = OPS_MAX as Op;
/// A run of the service.
pub type Inc = u8;
/// An epoch.
pub type Epoch = u8;
/// A place in a list.
pub type Id = u8;
/// A place in the order of a session's requests.
pub type Sequence = u8;

/// The empty sealed state.
pub const GENESIS: Id = 0;

/// How often each operation has taken effect.
pub type Effects = [u8; OPS_MAX];

/// A step of the chain of the write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The mark of an incarnation.
    Mark(Inc),
    /// An admitted request.
    Request(Id),
}

/// A tag: as nobody else can make it, it is the whole chain that it proves.
pub type Tag = Vec<Step>;

/// What the monitor knows of an ended session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ended {
    /// Which session.
    pub session: Id,
    /// The last sequence that took effect.
    pub last: Sequence,
}

/// Ended sessions by number, the next number, and a bound of those that were replayed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndedSessions {
    /// By number.
    pub by_number: BTreeMap<u8, Ended>,
    /// Of the next session.
    pub next_number: u8,
    /// No session of this number or a higher one was ever replayed.
    pub replayed_end: u8,
}

/// A sealed state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seal {
    /// The one before.
    pub previous: Id,
    /// Who sealed it.
    pub incarnation: Inc,
    /// The epoch that it is the end of.
    pub epoch: Epoch,
    /// Sessions, as if the incarnation had ended here.
    pub ended: EndedSessions,
    /// What has taken effect.
    pub effects: Effects,
    /// The tag of the write-ahead log, if there was one.
    pub tag: Option<Tag>,
}

/// A session that was ever opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// Its incarnation.
    pub incarnation: Inc,
    /// Its number, which may be given again.
    pub number: u8,
    /// Whether there is a ticket of it: with a write-ahead log.
    pub has_ticket: bool,
}

/// A request, as the client signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Its session.
    pub session: Id,
    /// Its generation.
    pub generation: u8,
    /// Its sequence.
    pub sequence: Sequence,
    /// What it does.
    pub op: Op,
}

/// A receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// What it answers.
    pub request: Id,
    /// When that ran.
    pub epoch: Epoch,
}

/// A resume. Its place in the list is its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resume {
    /// Its session.
    pub session: Id,
    /// The new generation.
    pub generation: u8,
}

/// The answer to a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resumed {
    /// What it answers.
    pub resume: Id,
    /// The last request that ran.
    pub last: Sequence,
    /// The epoch of the answer.
    pub epoch: Epoch,
}

/// A client hello: which former session it asks about. Its place in the list is its ephemeral key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// The former session.
    pub former: Option<Id>,
}

/// What the monitor says of a former session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Former {
    /// Nothing, as none was named.
    NotAsked,
    /// What took effect.
    Known {
        /// Certified.
        last: Sequence,
        /// Run again.
        replayed: Sequence,
        /// In this epoch, if any were.
        replay_epoch: Epoch,
    },
    /// There is none such.
    Unknown,
    /// There is none such, but it may have been replayed.
    MayBeReplayed,
}

/// A server hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Welcome {
    /// What it answers.
    pub hello: Id,
    /// The new session.
    pub session: Id,
    /// The sealed state whose certificate is the head.
    pub head: Id,
    /// About the former session.
    pub former: Former,
}

/// What waits in the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queued {
    /// A request.
    Request(Id),
    /// A resume, and the last sequence at its admission.
    Resume(Id, Sequence),
}

/// A session that the monitor serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Live {
    /// Which.
    pub session: Id,
    /// Whether it is open still.
    pub open: bool,
    /// Its generation.
    pub generation: u8,
    /// Its last sequence that was admitted.
    pub sequence: Sequence,
    /// The last sequence that was handed over.
    pub handed_over: Sequence,
}

/// What was replayed of a session, in one incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replayed {
    /// By number.
    pub number: u8,
    /// The incarnation whose mark was before it.
    pub incarnation: Inc,
    /// Up to this.
    pub sequence: Sequence,
}

/// A running incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Monitor {
    /// Its name.
    pub incarnation: Inc,
    /// Whether it answers clients: with a write-ahead log not at once.
    pub live: bool,
    /// What it holds the register to hold.
    pub committed: (Id, Inc),
    /// The epoch that is open.
    pub epoch: Epoch,
    /// Sealed, and not committed to.
    pub pending: Option<Id>,
    /// Committed to, and its certificate not released.
    pub unsigned: Option<Id>,
    /// The state whose certificate is the head.
    pub head: Id,
    /// Sessions that it has opened.
    pub sessions: Vec<Live>,
    /// Ended ones.
    pub ended: EndedSessions,
    /// Of sessions that were replayed, as clients are told: the last sequence that is certified, and that was replayed.
    pub told_replayed: BTreeMap<u8, (Sequence, Sequence)>,
    /// The epoch that it was replayed in.
    pub replay_epoch: Epoch,
    /// Admitted, and not run.
    pub queue: Vec<Queued>,
    /// What has taken effect.
    pub effects: Effects,
    /// The chain of the write-ahead log, if there is one.
    pub tag: Option<Tag>,
    /// What was replayed and is not handed over.
    pub replayed: Vec<Replayed>,
}

/// A request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sent {
    /// The request.
    pub request: Id,
    /// It cannot run before this epoch.
    pub epoch_min: Epoch,
}

/// What the client holds of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// To be sent.
    Waiting,
    /// Sent.
    InFlight,
    /// Answered, and certified when this epoch of this incarnation is.
    Provisional {
        /// The incarnation.
        incarnation: Inc,
        /// The first epoch that it can have run in.
        first: Epoch,
        /// The last.
        epoch: Epoch,
        /// The session that it was sent in.
        session: Id,
        /// Its sequence there.
        sequence: Sequence,
    },
    /// Certified: for ever.
    Certified,
    /// Told to be lost: for ever.
    Lost,
    /// Nobody can say.
    Unknown,
}

/// Where a client's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has none, and no session.
    New,
    /// It may send requests.
    Ready,
    /// It waits for the answer to this resume. True: what has not run then fails, because the host said that it refuses changes.
    Resuming(Id, bool),
    /// It waits for the answer to this hello, and knew of certificates up to this epoch.
    Greeting(Id, Epoch),
    /// It has proof that the host or the monitor is wrong.
    Alarmed,
}

/// The session that a client sends in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Current {
    /// Which.
    pub session: Id,
    /// Its generation.
    pub generation: u8,
    /// The last sequence that was sent.
    pub sequence: Sequence,
    /// What was sent now runs in this epoch or later.
    pub epoch_min: Epoch,
    /// In order.
    pub in_flight: Vec<Sent>,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Its connection.
    pub phase: Phase,
    /// Its session.
    pub current: Option<Current>,
    /// The certified states that it knows, from epoch 1 on.
    pub chain: Vec<Id>,
    /// Of each operation.
    pub verdicts: [Verdict; OPS_MAX],
}

/// What an honest host has on its disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    /// The stored sealed state.
    pub stored: Id,
    /// The write-ahead log, as the chain of all steps.
    pub log: Tag,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Sealed states; the first is the empty one.
    pub seals: Vec<Seal>,
    /// Sessions.
    pub sessions: Vec<Session>,
    /// Requests.
    pub requests: Vec<Request>,
    /// Receipts.
    pub receipts: Vec<Receipt>,
    /// Resumes.
    pub resumes: Vec<Resume>,
    /// Their answers.
    pub resumed: Vec<Resumed>,
    /// Client hellos.
    pub hellos: Vec<Hello>,
    /// Server hellos.
    pub welcomes: Vec<Welcome>,
    /// Tags that were told.
    pub tags: Vec<Tag>,
    /// States whose certificates were released.
    pub certificates: Vec<Id>,
    /// The trusted register: sealed state and latest incarnation.
    pub register: (Id, Inc),
    /// Incarnations so far.
    pub incarnations: Inc,
    /// How often a session was closed or forgotten.
    pub closings: u8,
    /// Sessions of somebody else.
    pub strangers: u8,
    /// The incarnation that runs.
    pub monitor: Option<Monitor>,
    /// The client.
    pub client: Client,
    /// Of an honest host.
    pub disk: Disk,
}

impl State {
    /// Before anything.
    pub fn first(ops: usize) -> Self {
        let ended = EndedSessions {
            by_number: BTreeMap::new(),
            next_number: 1,
            replayed_end: 0,
        };
        let genesis = Seal {
            previous: GENESIS,
            incarnation: 0,
            epoch: 0,
            ended,
            effects: Effects::default(),
            tag: None,
        };
        Self {
            seals: vec![genesis],
            sessions: Vec::new(),
            requests: Vec::new(),
            receipts: Vec::new(),
            resumes: Vec::new(),
            resumed: Vec::new(),
            hellos: Vec::new(),
            welcomes: Vec::new(),
            tags: Vec::new(),
            certificates: Vec::new(),
            register: (GENESIS, 0),
            incarnations: 0,
            closings: 0,
            strangers: 0,
            monitor: None,
            client: Client {
                phase: Phase::New,
                current: None,
                chain: Vec::new(),
                verdicts: std::array::from_fn(|op| if op < ops { Verdict::Waiting } else { Verdict::Unknown }),
            },
            disk: Disk {
                stored: GENESIS,
                log: Tag::new(),
            },
        }
    }

    /// The sealed state of that place.
    pub fn seal(&self, id: Id) -> &Seal {
        &self.seals[usize::from(id)]
    }

    /// The session of that place.
    pub fn session(&self, id: Id) -> Session {
        self.sessions[usize::from(id)]
    }

    /// The request of that place.
    pub fn request(&self, id: Id) -> Request {
        self.requests[usize::from(id)]
    }
}

/// Append, and return the place.
pub fn put<T>(list: &mut Vec<T>, item: T) -> Id {
    list.push(item);
    (list.len() - 1) as Id // lists are short: the bounds of a search see to that
}
