//! One run of the service, from an accepted sealed state to the end of the control connection: what the host's messages do to it.
//!
//! Invariant: a hello is answered only after every verifier thread will know the session before it looks at any later piece of its log.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;

use zetakv_verifier::clocks::{Clocks, THREADS_MAX};
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::{Crypto as _, Mac};
use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::machine::Role;
use zetakv_verifier::request::{MacDomain, Rejection};
use zetakv_verifier::standard_crypto::{StandardCrypto, Sum};
use zetakv_verifier::thread::{Snapshot, ThreadConfig, Verifier};
use zetakv_verifier::value::Node;
use zetakv_verifier::violation::{NO_THREAD, ViolationCode};
use zetakv_verifier::{LogConfig, ReplayedSessions, SessionKeys};

use crate::certificate::{Certificate, History};
use crate::clients::{Clients, Operation, Status, UnverifiedAdminRequest};
use crate::control::Event;
use crate::epochs::{Epochs, Fault};
use crate::error::Error;
use crate::failpoints::failpoint;
use crate::failure::violation;
use crate::handshake::{ClientHello, Exchange, FormerAnswer, Refusal, SessionSecrets, Welcome};
use crate::identity::{IncarnationId, InstanceId, Run, Secret, random};
use crate::monitor::Monitor;
use crate::overrides::Overrides;
use crate::register::{Commitment, TrustedRegister};
use crate::replay::Replay;
use crate::sealed::{NotStarted, SealedState, accept, sealed_hash};
use crate::seats::{Seat, SessionChange, SessionChanges};
use crate::sessions::{EndedSession, EndedSessions, LiveSession, Sessions};
use crate::ticket;
use crate::wire::kind;

/// Bytes of operations that may wait in a thread's queue: what one batch of the host may hold.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Slots of a thread's cache at the most: about 4 GiB of memory.
const SLOTS_MAX: u32 = 1 << 24;

/// Flag of `start`: the host keeps a write-ahead log.
const FLAG_LOG: u8 = 1;

/// What a host wants to start with.
pub struct Start<'a> {
    /// Number of verifier threads.
    pub threads: ThreadId,
    /// Slots of each thread's cache.
    pub slots: u32,
    /// Whether it keeps a write-ahead log.
    pub has_log: bool,
    /// The sealed state; empty at the very first start.
    pub sealed: &'a [u8],
}

impl<'a> Start<'a> {
    /// Read a `start` message.
    pub fn decode(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (threads, slots, flags) = (reader.u16().ok()?, reader.u32().ok()?, reader.u8().ok()?);
        let fits = threads.is_power_of_two()
            && usize::from(threads) <= THREADS_MAX
            && slots <= SLOTS_MAX
            && flags & !FLAG_LOG == 0;
        fits.then_some(Self {
            threads,
            slots,
            has_log: flags & FLAG_LOG != 0,
            sealed: reader.rest(),
        })
    }
}

/// A message to the host: its type and body.
pub type Reply = (u8, Vec<u8>);

/// The running incarnation.
pub struct Incarnation<'a> {
    monitor: &'a Monitor,
    register: &'a mut dyn TrustedRegister,
    /// Its name, and its store's.
    pub run: Run,
    /// Set when it ends.
    pub over: Arc<AtomicBool>,
    crypto: StandardCrypto,
    clocks: Arc<Clocks>,
    changes: Vec<Arc<SessionChanges>>,
    sessions: Sessions,
    clients: Clients,
    epochs: Epochs,
    has_log: bool,
    /// With a write-ahead log, until it is live.
    replay: Option<Replay>,
}

/// What a thread's write-ahead log goes on from: this state, where the register holds `latest`, which may have made it and so its tags.
fn log_config(
    state: &SealedState,
    latest: IncarnationId,
    thread: ThreadId,
    threads: ThreadId,
    key: &Secret,
    run: &Run,
) -> LogConfig {
    let of_as_many = state.tags.len() == usize::from(threads);
    let tag = state.tags.get(usize::from(thread)).copied().filter(|_| of_as_many);
    let has_mark = tag.is_some() && state.incarnation == latest;
    LogConfig {
        key: key.clone(),
        threads,
        instance: run.instance,
        incarnation: run.incarnation,
        sealed_by: state.incarnation,
        tag,
        latest: (!has_mark).then_some(latest),
    }
}

impl<'a> Incarnation<'a> {
    /// Start, and offer the seats of its verifier threads. Returns the `started` message, too.
    pub fn start(
        monitor: &'a Monitor,
        register: &'a mut dyn TrustedRegister,
        start: &Start<'_>,
        events: &SyncSender<Event>,
    ) -> Result<(Self, Reply), NotStarted> {
        let incarnation: IncarnationId = random()?;
        let (committed, state) = accept(start.sealed, monitor.identity(), register)?;
        let (state, (last_certificate, history)) = match state {
            Some(state) => {
                let certified = state.certify(monitor.identity())?;
                (state, certified)
            }
            None => {
                let genesis = SealedState::genesis(monitor.identity().first_instance, monitor.state.first_admin()?);
                (genesis, (None, History::default()))
            }
        };
        let sealed = sealed_hash(start.sealed);
        let begun = Commitment { sealed, incarnation };
        // with a log, the latest incarnation stays the one that the replay must have in it; but `started` has the state's certificate
        let latest = Commitment { sealed, ..committed };
        let next = if start.has_log { latest } else { begun };
        if next != committed {
            register.commit(&committed, &next)?;
        }
        let run = Run {
            instance: state.instance,
            incarnation,
        };
        let certified_epoch = history.epoch;
        let clocks = Arc::new(Clocks::new(certified_epoch).ok_or(Error::NoMoreEpochs)?);
        let over = Arc::new(AtomicBool::new(false));
        let secret = &monitor.identity().multiset_secret;

        let mut seats = Vec::new();
        let mut changes = Vec::new();
        for thread in 0..start.threads {
            let first = thread == 0;
            let config = ThreadConfig {
                thread,
                slots: start.slots,
                certified_epoch,
                root: first.then_some(state.root),
                queue_bytes: QUEUE_BYTES,
            };
            let carried = if first { state.carried.clone() } else { Sum::default() };
            let mut verifier = Verifier::new(config, StandardCrypto::new(**secret), carried, Arc::clone(&clocks))
                .ok_or_else(|| {
                    NotStarted::Refused(
                        ViolationCode::BadHostMessage,
                        "the cache needs at least one slot".to_owned(),
                    )
                })?;
            if start.has_log {
                let log_key = &monitor.identity().log_key;
                verifier.keep_log(log_config(
                    &state,
                    committed.incarnation,
                    thread,
                    start.threads,
                    log_key,
                    &run,
                ));
            }
            let own_changes = Arc::new(SessionChanges::default());
            changes.push(Arc::clone(&own_changes));
            seats.push(Seat {
                thread,
                verifier,
                changes: own_changes,
                events: events.clone(),
                run,
                over: Arc::clone(&over),
            });
        }

        let _ = failpoint!("monitor.in_start");
        let epochs = Epochs::new(run, state.overrides, start.threads, history, begun)?;
        let incarnation = Self {
            monitor,
            register,
            run,
            over,
            crypto: StandardCrypto::new(**secret),
            clocks,
            changes,
            sessions: Sessions::new(incarnation, state.sessions),
            clients: state.clients,
            epochs,
            has_log: start.has_log,
            replay: start.has_log.then(|| Replay::new(latest, begun, start.threads)),
        };
        let started = incarnation.started(last_certificate.as_ref());
        monitor.seats.offer(seats);
        Ok((incarnation, started))
    }

    fn started(&self, last_certificate: Option<&Certificate>) -> Reply {
        let identity = self.monitor.identity();
        let mut body = Vec::new();
        body.extend_from_slice(&self.run.instance);
        body.extend_from_slice(&self.run.incarnation);
        body.extend_from_slice(&identity.public_key());
        body.extend_from_slice(&self.epochs.covering_epoch().to_le_bytes());
        body.push(u8::from(self.monitor.open));
        body.extend_from_slice(last_certificate.map_or(&[], Certificate::as_slice));
        (kind::STARTED, body)
    }

    /// What to say of a message that is not allowed here.
    pub fn bad_host_message(&self) -> Fault {
        let epoch = self.epochs.covering_epoch();
        Fault::Violation(violation(ViolationCode::BadHostMessage, NO_THREAD, epoch))
    }

    /// What a message of the host brings about.
    pub fn answer(&mut self, message: u8, body: &[u8]) -> Result<Option<Reply>, Fault> {
        if self.replay.is_some() {
            return self.answer_before_live(message, body);
        }
        let mut reader = Reader::new(body);
        match message {
            kind::HELLO => {
                let token = reader.u32().map_err(|_| self.bad_host_message())?;
                self.hello(token, reader.rest()).map(Some).map_err(Fault::Error)
            }
            kind::ADMIN => {
                let token = reader.u32().map_err(|_| self.bad_host_message())?;
                Ok(Some(self.admin(token, reader.rest())))
            }
            kind::DURABLE => {
                let epoch = body
                    .try_into()
                    .map(u32::from_le_bytes)
                    .map_err(|_| self.bad_host_message())?;
                self.durable(epoch).map(Some)
            }
            kind::CLOSE_SESSION => {
                let session = body
                    .try_into()
                    .map(u64::from_le_bytes)
                    .map_err(|_| self.bad_host_message())?;
                if self.sessions.close(session) {
                    self.tell_threads(|| SessionChange::Close(session));
                }
                Ok(None)
            }
            _ => Err(self.bad_host_message()),
        }
    }

    fn answer_before_live(&mut self, message: u8, body: &[u8]) -> Result<Option<Reply>, Fault> {
        let bad_host_message = self.bad_host_message();
        let epoch = self.epochs.covering_epoch();
        match (message, &mut self.replay) {
            (kind::TICKET, Some(replay)) => {
                let taken = replay.take_ticket(body, &self.monitor.identity().sealing_key);
                taken.map(|()| None).map_err(|_| bad_host_message)
            }
            (kind::LIVE, replay) if body.is_empty() => {
                let ended = replay.take_if(|replay| replay.has_ended()).ok_or(bad_host_message)?;
                ended.go_live(self.register, &mut self.sessions, epoch)?;
                Ok(Some((kind::IS_LIVE, Vec::new())))
            }
            _ => Err(bad_host_message),
        }
    }

    /// A thread has ended its replay.
    pub fn replayed(&mut self, thread: ThreadId, replayed: ReplayedSessions) -> Result<(), Fault> {
        let bad_host_message = self.bad_host_message();
        self.replay
            .as_mut()
            .ok_or(bad_host_message)?
            .thread_ended(thread, replayed);
        Ok(())
    }

    /// A thread has handed an epoch over: when it was the last one, the sealed state.
    pub fn handed_over(&mut self, snapshot: Snapshot<Sum>) -> Result<Option<Reply>, Fault> {
        if self.replay.is_some() {
            return Err(self.bad_host_message());
        }
        let identity = self.monitor.identity();
        let sealed = self
            .epochs
            .take_snapshot(snapshot, identity, &self.crypto, &mut self.sessions, &self.clients)?;
        if sealed.is_some() {
            let _ = failpoint!("monitor.after_seal");
        }
        Ok(sealed.map(|(epoch, state)| (kind::SEALED, [epoch.to_le_bytes().as_slice(), &state].concat())))
    }

    fn durable(&mut self, epoch: u32) -> Result<Reply, Fault> {
        let certificate = match self.epochs.certify(epoch, self.monitor.identity(), self.register)? {
            Ok(certificate) => certificate,
            Err(error) => {
                let text = error.to_string();
                return Ok((kind::NOT_COMMITTED, [&epoch.to_le_bytes(), text.as_bytes()].concat()));
            }
        };
        let _ = failpoint!("monitor.before_certificate");
        self.clocks.certify(epoch); // before the host can see the certificate, and close the next epoch
        Ok((kind::CERTIFICATE, certificate.to_vec()))
    }

    fn tell_threads(&self, change: impl Fn() -> SessionChange) {
        for changes in &self.changes {
            changes.push(change());
        }
    }

    fn hello(&mut self, token: u32, hello: &[u8]) -> Result<Reply, Error> {
        Ok(match self.welcome(hello)? {
            Ok((message, answer)) => (message, [&token.to_le_bytes(), answer.as_slice()].concat()),
            Err(refusal) => refused(token, refusal),
        })
    }

    /// Open a session: the type of the answer, and what follows the token.
    fn welcome(&mut self, hello: &[u8]) -> Result<Result<Reply, Refusal>, Error> {
        let identity = self.monitor.identity();
        let opened = ClientHello::verify(hello, &identity.public_key()).and_then(|hello| {
            let role = self.role_of(&hello)?;
            let session = self.sessions.next().ok_or(Refusal::TooManySessions)?;
            Ok((hello, role, session))
        });
        let (hello, role, session) = match opened {
            Ok(opened) => opened,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let exchange = match Exchange::with(&hello)? {
            Ok(exchange) => exchange,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let former = hello.former.map_or(FormerAnswer::NotAsked, |claim| {
            self.sessions.answer_former(&claim, &self.crypto)
        });
        let welcome = Welcome {
            role,
            threads: self.changes.len() as ThreadId, // at most THREADS_MAX
            run: self.run,
            session,
            epoch: self.epochs.history().epoch,
            head: self.epochs.history().head,
            former,
            overrides: self.epochs.overrides().clone(),
        };
        let (server_hello, secrets) = exchange.answer(&hello, identity, &welcome);
        let _ = failpoint!("monitor.in_handshake");
        let ending = EndedSession {
            incarnation: self.run.incarnation,
            former_key: secrets.former_key(),
            last_sequences: vec![0; self.changes.len()],
        };
        let answer = if self.has_log {
            let ticket = ticket::seal(session, &ending, &identity.sealing_key)?;
            (kind::HELLO_OK_WITH_TICKET, [ticket, server_hello].concat())
        } else {
            (kind::HELLO_OK, server_hello)
        };
        self.open_session(session, role, hello.client_key.copied(), ending, &secrets);
        Ok(Ok(answer))
    }

    fn role_of(&self, hello: &ClientHello<'_>) -> Result<Role, Refusal> {
        match hello.client_key {
            Some(key) => self.clients.role(key).ok_or(Refusal::UnknownClientKey),
            None if self.monitor.open => Ok(Role::Write),
            None => Err(Refusal::KeyRequired),
        }
    }

    fn open_session(
        &mut self,
        session: u64,
        role: Role,
        client_key: Option<[u8; 32]>,
        ending: EndedSession,
        secrets: &SessionSecrets,
    ) {
        self.sessions.open(LiveSession {
            ending,
            client_key,
            role: Some(role),
            admin_key: secrets.admin_key(),
            admin_sequence: 0,
        });
        for (thread, changes) in (0..).zip(&self.changes) {
            changes.push(SessionChange::Open(SessionKeys {
                session,
                role,
                request_key: secrets.request_key(thread),
                receipt_key: secrets.receipt_key(thread),
            }));
        }
    }

    fn admin(&mut self, token: u32, request: &[u8]) -> Reply {
        match self.answer_admin(request) {
            Ok(answer) => (kind::ADMIN_ANSWER, [&token.to_le_bytes(), answer.as_slice()].concat()),
            Err(rejection) => {
                let mut body = token.to_le_bytes().to_vec();
                body.push(rejection as u8);
                (kind::ADMIN_REJECTED, body)
            }
        }
    }

    fn answer_admin(&mut self, request: &[u8]) -> Result<Vec<u8>, Rejection> {
        // what cannot be split has no MAC that could be right
        let request = UnverifiedAdminRequest::split(request).map_err(|_| Rejection::BadMac)?;
        let session = self.sessions.authenticate(&request, &self.crypto)?;
        let (role, admin_key): (_, Secret) = (session.role, session.admin_key.clone());
        let mut payload = Vec::new();
        let status = if role == Some(Role::Admin) {
            self.run_admin(request.operation, &mut payload)
        } else {
            Status::Forbidden
        };
        let mut answer = Vec::new();
        answer.extend_from_slice(&request.session.to_le_bytes());
        answer.extend_from_slice(&request.sequence.to_le_bytes());
        answer.push(status as u8);
        answer.extend_from_slice(&self.epochs.covering_epoch().to_le_bytes());
        answer.extend_from_slice(&payload);
        let mac = self
            .crypto
            .mac(&admin_key, MacDomain::AdminAnswer, &[&answer, request.mac]);
        answer.extend_from_slice(&mac);
        Ok(answer)
    }

    fn run_admin(&mut self, operation: &[u8], payload: &mut Vec<u8>) -> Status {
        match Operation::decode(operation) {
            Err(_) => Status::Malformed,
            Ok(Operation::Add(client)) => self.clients.add(client),
            Ok(Operation::Remove(key)) => {
                let status = self.clients.remove(&key);
                if status == Status::Done {
                    for session in self.sessions.take_role(&key) {
                        self.tell_threads(|| SessionChange::SetRole(session, None));
                    }
                }
                status
            }
            Ok(Operation::List) => {
                self.clients.encode(payload);
                Status::Done
            }
        }
    }
}

/// The refusal of a hello.
pub fn refused(token: u32, refusal: Refusal) -> Reply {
    let mut body = token.to_le_bytes().to_vec();
    body.extend_from_slice(&(refusal as u16).to_le_bytes());
    body.extend_from_slice(refusal.text().as_bytes());
    (kind::HELLO_REFUSED, body)
}
