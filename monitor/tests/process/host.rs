//! An honest host, as far as it goes: each step is one message, and the tests say which.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use zetakv_monitor::overrides::Overrides;
use zetakv_monitor::wire::{kind, read_message, write_message};
use zetakv_verifier::codec::Reader;
use zetakv_verifier::entry::{Entry, Slots};
use zetakv_verifier::key::Key;
use zetakv_verifier::output::Output;
use zetakv_verifier::time::Timestamp;
use zetakv_verifier::value::{Commitment, Value};

use crate::monitor_process::MonitorProcess;

const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A test that waits longer than this for the monitor has failed.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

pub struct Connection(pub UnixStream);

impl Connection {
    pub fn open(monitor: &MonitorProcess) -> Self {
        let stream = UnixStream::connect(monitor.socket()).expect("it listens");
        stream.set_read_timeout(Some(ANSWER_WAIT_MAX)).expect("a timeout");
        Self(stream)
    }

    pub fn send(&mut self, kind: u8, parts: &[&[u8]]) {
        write_message(&mut self.0, kind, parts).expect("it reads");
    }

    /// The next message; `None` at the end.
    pub fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut body = Vec::new();
        let kind = read_message(&mut self.0, &mut body, MESSAGE_BYTES_MAX).expect("a message");
        kind.map(|kind| (kind, body))
    }

    /// The next message, which must be of this kind.
    pub fn expect(&mut self, expected: u8) -> Vec<u8> {
        let (kind, body) = self.receive().expect("a message");
        assert_eq!(kind, expected, "{}", String::from_utf8_lossy(&body));
        body
    }
}

/// What `started` says.
pub struct Started {
    pub instance: [u8; 16],
    pub incarnation: [u8; 16],
    pub epoch: u32,
    pub open: bool,
    pub overrides: Overrides,
    pub certificate: Vec<u8>,
}

pub struct Control {
    pub connection: Connection,
}

impl Control {
    pub fn open(monitor: &MonitorProcess) -> Self {
        let mut connection = Connection::open(monitor);
        connection.send(kind::CONTROL, &[&2u16.to_le_bytes()]);
        Self { connection }
    }

    pub fn send_start(&mut self, threads: u16, sealed: &[u8]) {
        self.send_start_with(threads, false, sealed);
    }

    pub fn send_start_with(&mut self, threads: u16, has_log: bool, sealed: &[u8]) {
        let flags = [u8::from(has_log)];
        let parts: [&[u8]; 4] = [&threads.to_le_bytes(), &16u32.to_le_bytes(), &flags, sealed];
        self.connection.send(kind::START, &parts);
    }

    pub fn start(monitor: &MonitorProcess, threads: u16, sealed: &[u8]) -> (Self, Started) {
        Self::start_with(monitor, threads, false, sealed)
    }

    /// With a write-ahead log: not live yet.
    pub fn start_with(monitor: &MonitorProcess, threads: u16, has_log: bool, sealed: &[u8]) -> (Self, Started) {
        let mut control = Self::open(monitor);
        control.send_start_with(threads, has_log, sealed);
        let body = control.connection.expect(kind::STARTED);
        assert_eq!(body[32..64], monitor.fingerprint);
        let mut reader = Reader::new(&body[69..]);
        let overrides = Overrides::decode(&mut reader).expect("signed");
        let started = Started {
            instance: body[..16].try_into().expect("16"),
            incarnation: body[16..32].try_into().expect("16"),
            epoch: u32::from_le_bytes(body[64..68].try_into().expect("4")),
            open: body[68] == 1,
            certificate: body[69 + overrides.encoded_bytes()..].to_vec(),
            overrides,
        };
        monitor.incarnation.set(started.incarnation);
        (control, started)
    }

    /// Start, and be refused: the violation code.
    pub fn start_refused(monitor: &MonitorProcess, sealed: &[u8]) -> u16 {
        let mut control = Self::open(monitor);
        control.send_start(1, sealed);
        let body = control.connection.expect(kind::NOT_STARTED);
        assert!(body.len() > 10, "a text for people");
        u16::from_le_bytes([body[0], body[1]])
    }

    /// The sealed state that is due.
    pub fn sealed(&mut self, epoch: u32) -> Vec<u8> {
        let body = self.connection.expect(kind::SEALED);
        assert_eq!(body[..4], epoch.to_le_bytes());
        body[4..].to_vec()
    }

    /// Say that an epoch is on disk: its certificate.
    pub fn durable(&mut self, epoch: u32) -> Vec<u8> {
        self.connection.send(kind::DURABLE, &[&epoch.to_le_bytes()]);
        self.connection.expect(kind::CERTIFICATE)
    }

    pub fn close_session(&mut self, session: u64) {
        self.connection.send(kind::CLOSE_SESSION, &[&session.to_le_bytes()]);
    }
}

/// The log connection of a verifier thread.
pub struct Log {
    pub connection: Connection,
}

impl Log {
    pub fn open(monitor: &MonitorProcess, thread: u16) -> Self {
        let mut connection = Connection::open(monitor);
        let incarnation = monitor.incarnation.get();
        let parts: [&[u8]; 3] = [&2u16.to_le_bytes(), &thread.to_le_bytes(), &incarnation];
        connection.send(kind::LOG_CONNECTION, &parts);
        Self { connection }
    }

    pub fn send(&mut self, entries: &[Entry<'_>]) {
        let mut log = Vec::new();
        for entry in entries {
            entry.encode(&mut log);
        }
        self.connection.send(kind::LOG, &[&log]);
    }

    pub fn outputs(&mut self) -> Outputs {
        Outputs(self.connection.expect(kind::OUTPUTS))
    }

    pub fn process(&mut self, entries: &[Entry<'_>]) -> Outputs {
        self.send(entries);
        self.outputs()
    }
}

pub struct Outputs(pub Vec<u8>);

impl Outputs {
    pub fn list(&self) -> Vec<Output<'_>> {
        let mut reader = Reader::new(&self.0);
        let mut list = Vec::new();
        while reader.remaining() > 0 {
            list.push(Output::decode(&mut reader).expect("an output"));
        }
        list
    }

    /// The signed violation that is the only output.
    pub fn violation(&self) -> Vec<u8> {
        match self.list().as_slice() {
            [Output::Failed(violation)] => violation.to_vec(),
            other => panic!("not failed: {other:?}"),
        }
    }
}

pub const fn at(epoch: u32, counter: u32) -> Timestamp {
    Timestamp::new(epoch, counter)
}

pub fn leaf(key: &[u8]) -> Key {
    Key::leaf(*blake3::hash(key).as_bytes())
}

pub fn value(value: &[u8]) -> Value {
    Value::Leaf(Commitment::of(value))
}

/// Add a record that was never written into slot 1, below the root.
pub fn add_first(key: Key) -> Entry<'static> {
    Entry::AddMerkle {
        slot: 1,
        parent: 0,
        key,
        value: Value::initial(true),
    }
}

/// Evict the record in slot 1, which was added by Merkle.
pub const fn evict_first(epoch: u32) -> Entry<'static> {
    Entry::EvictBlumMerkle {
        slot: 1,
        parent: 0,
        ts: evicted_at(epoch),
    }
}

/// Evict the record in slot 1, which was added from Blum.
pub const fn evict(epoch: u32) -> Entry<'static> {
    Entry::EvictBlum {
        slot: 1,
        ts: evicted_at(epoch),
    }
}

/// When [`evict`] does so: later than all that is done before.
const fn evicted_at(epoch: u32) -> Timestamp {
    at(epoch, 100)
}

/// Take the record `k` over, which [`evict`] has evicted on this thread.
pub fn carry_over(epoch: u32, thread: u16, bytes: &[u8]) -> Entry<'static> {
    Entry::CarryOver {
        ts: evicted_at(epoch),
        thread,
        key: leaf(b"k"),
        value: value(bytes),
    }
}

/// Add the record `k` into slot 1, which a thread has carried over into this epoch.
pub fn add_carried(epoch: u32, thread: u16, bytes: &[u8]) -> Entry<'static> {
    Entry::AddBlum {
        slot: 1,
        ts: at(epoch, 0),
        thread,
        key: leaf(b"k"),
        value: value(bytes),
    }
}

pub fn run(slot: u32) -> Entry<'static> {
    Entry::Run(Slots::new(&[slot]).expect("one slot"))
}
