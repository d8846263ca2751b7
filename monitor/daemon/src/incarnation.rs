//! One run of the service, from an accepted sealed state to the end of the control connection: what the host's messages do to it.
//!
//! Invariant: a hello is answered only after every verifier thread will know the session before it looks at any later piece of its log.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;

use zetakv_verifier::clocks::{Clocks, THREADS_MAX};
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Crypto as _;
use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::machine::Role;
use zetakv_verifier::request::{MacDomain, Rejection};
use zetakv_verifier::standard_crypto::{StandardCrypto, Sum};
use zetakv_verifier::thread::{Snapshot, ThreadConfig, Verifier};
use zetakv_verifier::violation::{NO_THREAD, ViolationCode};
use zetakv_verifier::{LogConfig, ReplayedSessions, SessionKeys};

use crate::certificate::{Certificate, History};
use crate::clients::{Clients, Operation, Status, UnverifiedAdminRequest};
use crate::control::Event;
use crate::epochs::{Epochs, Fault};
use crate::error::Error;
use crate::failpoints::failpoint;
use crate::failure::violation;
use crate::handshake::{ClientHello, Exchange, FormerAnswer, Refusal, Welcome};
use crate::identity::{IncarnationId, Run, Secret, random};
use crate::monitor::Monitor;
use crate::register::{Commitment, TrustedRegister};
use crate::replay::Replay;
use crate::sealed::{NotStarted, SealedState, accept, sealed_hash};
use crate::seats::{Seat, SessionChange, SessionChanges};
use crate::sessions::{EndedSession, LiveSession, Sessions};
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

/// A message whose body has these parts.
fn reply(message: u8, parts: &[&[u8]]) -> Reply {
    (message, parts.concat())
}

/// The refusal of a hello with this token.
pub fn refused(token: &[u8; 4], refusal: Refusal) -> Reply {
    let (code, text) = (refusal as u16, refusal.text());
    reply(kind::HELLO_REFUSED, &[token, &code.to_le_bytes(), text.as_bytes()])
}

/// A hello that opens a session.
struct Admitted<'h> {
    hello: ClientHello<'h>,
    role: Role,
    session: u64,
    exchange: Exchange,
}

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
        let mut overrides = Vec::new();
        self.epochs.overrides().encode(&mut overrides);
        let parts: [&[u8]; 7] = [
            &self.run.instance,
            &self.run.incarnation,
            &self.monitor.identity().public_key(),
            &self.epochs.covering_epoch().to_le_bytes(),
            &[u8::from(self.monitor.open)],
            &overrides,
            last_certificate.map_or(&[], Certificate::as_slice),
        ];
        reply(kind::STARTED, &parts)
    }

    /// What to say of a message that is not allowed here.
    pub fn bad_host_message(&self) -> Fault {
        let epoch = self.epochs.covering_epoch();
        Fault::Violation(violation(ViolationCode::BadHostMessage, NO_THREAD, epoch))
    }

    /// What a message of the host brings about.
    pub fn answer(&mut self, message: u8, body: &[u8]) -> Result<Option<Reply>, Fault> {
        let bad = self.bad_host_message();
        match (message, &mut self.replay) {
            (kind::TICKET, Some(replay)) => {
                let taken = replay.take_ticket(body, &self.monitor.identity().sealing_key);
                taken.map(|()| None).map_err(|_| bad)
            }
            (kind::LIVE, replay) if body.is_empty() => {
                let ended = replay.take_if(|replay| replay.has_ended()).ok_or(bad)?;
                ended.go_live(self.register, &mut self.sessions, self.epochs.covering_epoch())?;
                Ok(Some(reply(kind::IS_LIVE, &[])))
            }
            (kind::HELLO, None) => {
                let (token, hello) = body.split_first_chunk().ok_or(bad)?;
                self.hello(token, hello).map(Some).map_err(Fault::Error)
            }
            (kind::ADMIN, None) => {
                let (token, request) = body.split_first_chunk().ok_or(bad)?;
                Ok(Some(self.admin(token, request)))
            }
            (kind::DURABLE, None) => {
                let epoch = body.try_into().map(u32::from_le_bytes).map_err(|_| bad)?;
                self.durable(epoch).map(Some)
            }
            (kind::CLOSE_SESSION, None) => {
                let session = body.try_into().map(u64::from_le_bytes).map_err(|_| bad)?;
                if self.sessions.close(session) {
                    self.tell_threads(|| SessionChange::Close(session));
                }
                Ok(None)
            }
            _ => Err(bad),
        }
    }

    /// A thread has ended its replay.
    pub fn replayed(&mut self, thread: ThreadId, replayed: ReplayedSessions) -> Result<(), Fault> {
        let bad = self.bad_host_message();
        self.replay.as_mut().ok_or(bad)?.thread_ended(thread, replayed);
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
        Ok(sealed.map(|(epoch, state)| reply(kind::SEALED, &[&epoch.to_le_bytes(), &state])))
    }

    fn durable(&mut self, epoch: u32) -> Result<Reply, Fault> {
        let certificate = match self.epochs.certify(epoch, self.monitor.identity(), self.register)? {
            Ok(certificate) => certificate,
            Err(error) => {
                let text = error.to_string();
                return Ok(reply(kind::NOT_COMMITTED, &[&epoch.to_le_bytes(), text.as_bytes()]));
            }
        };
        let _ = failpoint!("monitor.before_certificate");
        self.clocks.certify(epoch); // before the host can see the certificate, and close the next epoch
        Ok(reply(kind::CERTIFICATE, &[&certificate]))
    }

    fn tell_threads(&self, change: impl Fn() -> SessionChange) {
        for changes in &self.changes {
            changes.push(change());
        }
    }

    fn hello(&mut self, token: &[u8; 4], hello: &[u8]) -> Result<Reply, Error> {
        let ephemeral = Secret::new(random()?);
        match self.admit(hello, ephemeral) {
            Ok(admitted) => self.welcome(token, admitted),
            Err(refusal) => Ok(refused(token, refusal)),
        }
    }

    /// Whether a hello opens a session.
    fn admit<'h>(&self, hello: &'h [u8], ephemeral: Secret) -> Result<Admitted<'h>, Refusal> {
        let hello = ClientHello::verify(hello, &self.monitor.identity().public_key())?;
        let role = match hello.client_key {
            Some(key) => self.clients.role(key).ok_or(Refusal::UnknownClientKey)?,
            None if self.monitor.open => Role::Write,
            None => return Err(Refusal::KeyRequired),
        };
        Ok(Admitted {
            role,
            session: self.sessions.next().ok_or(Refusal::TooManySessions)?,
            exchange: Exchange::with(&hello, ephemeral)?,
            hello,
        })
    }

    /// Open a session.
    fn welcome(&mut self, token: &[u8; 4], admitted: Admitted<'_>) -> Result<Reply, Error> {
        let Admitted {
            hello,
            role,
            session,
            exchange,
        } = admitted;
        let identity = self.monitor.identity();
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
            reply(kind::HELLO_OK_WITH_TICKET, &[token, &ticket, &server_hello])
        } else {
            reply(kind::HELLO_OK, &[token, &server_hello])
        };
        self.sessions.open(LiveSession {
            ending,
            client_key: hello.client_key.copied(),
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
        Ok(answer)
    }

    fn admin(&mut self, token: &[u8; 4], request: &[u8]) -> Reply {
        match self.answer_admin(request) {
            Ok(answer) => reply(kind::ADMIN_ANSWER, &[token, &answer]),
            Err(rejection) => reply(kind::ADMIN_REJECTED, &[token, &[rejection as u8]]),
        }
    }

    fn answer_admin(&mut self, request: &[u8]) -> Result<Vec<u8>, Rejection> {
        // what cannot be split has no MAC that could be right
        let request = UnverifiedAdminRequest::split(request).map_err(|_| Rejection::BadMac)?;
        let session = self.sessions.authenticate(&request, &self.crypto)?;
        let (role, admin_key): (_, Secret) = (session.role, session.admin_key.clone());
        let mut payload = Vec::new();
        let status = match role {
            Some(Role::Admin) => self.run_admin(request.operation, &mut payload),
            _ => Status::Forbidden,
        };
        let parts: [&[u8]; 5] = [
            &request.session.to_le_bytes(),
            &request.sequence.to_le_bytes(),
            &[status as u8],
            &self.epochs.covering_epoch().to_le_bytes(),
            &payload,
        ];
        let mut answer = parts.concat();
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
