//! What is on its way through the monitor: a request, a resume, or an answer that waits for those before it.

use zetakv_verifier::crypto::Mac;
use zetakv_verifier::machine::Role;
use zetakv_verifier::time::Timestamp;

use crate::error::Error;
use crate::frames::{ClientRequest, ClientResume, ResultValues};
use crate::mirror::Mirror;
use crate::records::RecordId;
use crate::write_ahead::Item;

pub const NO_OPERATIONS: Error = Error::Engine("a request has no operations");

/// A frame for a client: where it goes, and its bytes.
pub type ClientFrame = (u64, Vec<u8>);

/// What the monitor has not been asked about, or has not answered.
#[derive(Debug)]
pub enum Incoming {
    Request(ClientRequest),
    Resume(ClientResume),
    /// Before all others.
    Replay(Item),
    /// After all that is replayed, with its last tag.
    EndReplay(Mac),
}

impl Incoming {
    pub fn request(&self) -> Option<&ClientRequest> {
        match self {
            Self::Request(request) | Self::Replay(Item::Request(_, request)) => Some(request),
            Self::Resume(_) | Self::Replay(Item::Mark(_)) | Self::EndReplay(_) => None,
        }
    }

    pub fn operations(&self) -> usize {
        self.request().map_or(0, ClientRequest::count)
    }
}

/// What is admitted, in the order of the queue of the verifier thread.
#[derive(Debug)]
pub enum Work {
    Request(Admitted),
    /// A resume, whose answer comes when all before it has run.
    Resume(ClientResume),
    /// An answer that is known, and waits for those before it.
    Answer(ClientFrame),
}

impl Work {
    pub fn request(&self) -> Option<&Admitted> {
        match self {
            Self::Request(admitted) => Some(admitted),
            Self::Resume(_) | Self::Answer(_) => None,
        }
    }
}

/// A request that is admitted, and how far it has run.
#[derive(Debug)]
pub struct Admitted {
    pub request: ClientRequest,
    role: Role,
    /// Nobody waits for its answer.
    pub is_replayed: bool,
    pub operations_run: usize,
    /// For each operation that is planned, its record, or the last node on the way there.
    pub found: Vec<Option<RecordId>>,
    pub values: ResultValues,
}

impl Admitted {
    pub fn new(request: ClientRequest, role: Role, is_replayed: bool) -> Self {
        Self {
            found: vec![None; request.count()],
            request,
            role,
            is_replayed,
            operations_run: 0,
            values: ResultValues::default(),
        }
    }

    pub fn operations_left(&self) -> usize {
        self.request.count() - self.operations_run
    }

    pub fn run_next(
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
