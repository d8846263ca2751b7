//! ZetaKV's own protocol: sessions with the monitor, requests and receipts, certificates. Or none of these, for an unverified server.

mod chain;
mod frames;
mod handshake;
mod lane;
mod uncertified;

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::failure::Failure;
use crate::measurement::Measurement;
use crate::options::Options;
use crate::records::Records;
use crate::target::{Connection, Nanos, ServerFacts, Target};
use crate::workload::Source;
use chain::{Chain, Followed};
use frames::{CERTIFICATE, CERTIFICATES, CHECKPOINT, Frame, GREETING, Greeting, HELLO, HELLO_OK, RECEIPT};
use handshake::Hello;
use lane::Lane;
use uncertified::Uncertified;

/// How long a greeting or the answer to a hello may take.
const HANDSHAKE_SECONDS: u64 = 30;

/// What all connections share.
struct Shared {
    records: Records,
    frame: usize,
    /// `None` of an unverified server.
    chain: Option<Mutex<Chain>>,
}

impl Shared {
    fn chain(&self) -> Option<MutexGuard<'_, Chain>> {
        let locked = self.chain.as_ref().map(Mutex::lock)?;
        Some(locked.expect("who holds the chain does not panic"))
    }
}

/// A ZetaKV server.
pub struct ZetaKv {
    address: String,
    monitor: Option<VerifyingKey>,
    client: Option<SigningKey>,
    shared: Arc<Shared>,
    facts: ServerFacts,
}

impl ZetaKv {
    /// As the options say.
    pub fn new(options: &Options, records: Records) -> Result<Self, Failure> {
        let monitor = options.monitor.as_deref().map(parse_fingerprint).transpose()?;
        let client = options.key.as_deref().map(read_key).transpose()?;
        Ok(Self {
            address: options.server.clone(),
            monitor,
            client,
            shared: Arc::new(Shared {
                records,
                frame: usize::from(options.frame),
                chain: monitor.map(|monitor| Mutex::new(Chain::new(monitor))),
            }),
            facts: ServerFacts::default(),
        })
    }

    /// Certificates that were checked, on all connections.
    pub fn certificates_checked(&self) -> u64 {
        self.shared.chain().map_or(0, |chain| chain.checked)
    }

    fn open_lanes(&self, stream: &mut TcpStream, greeting: &Greeting) -> Result<Vec<Lane>, Failure> {
        let Some(monitor) = &self.monitor else {
            return Ok((0..greeting.workers).map(|thread| Lane::new(0, thread, None)).collect());
        };
        let hello = Hello::new(monitor.as_bytes(), self.client.as_ref())?;
        let mut frame = Vec::new();
        let start = frames::begin_frame(HELLO, &mut frame);
        frame.extend_from_slice(hello.bytes());
        frames::end_frame(start, &mut frame);
        stream
            .write_all(&frame)
            .map_err(|error| Failure::Io("the server ended the connection", error))?;
        let session = match frames::read_frame(stream)? {
            (HELLO_OK, answer) => hello.answered(&answer, monitor)?,
            (kind, body) => return Err(frames::failure_of(kind, &body)),
        };
        if let Some(mut chain) = self.shared.chain() {
            chain.hello(session.instance, session.incarnation, session.head)?;
        }
        let lanes = (0..).zip(session.keys);
        Ok(lanes
            .map(|(thread, keys)| Lane::new(session.session, thread, Some(keys)))
            .collect())
    }
}

impl Target for ZetaKv {
    type Connection = ZetaKvConnection;

    fn open(&mut self) -> Result<(TcpStream, ZetaKvConnection), Failure> {
        let cannot = |error| Failure::Io("cannot connect", error);
        let mut stream = TcpStream::connect(&self.address).map_err(cannot)?;
        stream.set_nodelay(true).map_err(cannot)?;
        let timeout = Some(Duration::from_secs(HANDSHAKE_SECONDS));
        stream.set_read_timeout(timeout).map_err(cannot)?;
        let greeting = match frames::read_frame(&mut stream)? {
            (GREETING, body) => Greeting::decode(&body)?,
            (kind, body) => return Err(frames::failure_of(kind, &body)),
        };
        if greeting.unverified != self.monitor.is_none() {
            return Err(Failure::Refused(if greeting.unverified {
                "it has no monitor: nothing that it answers could be checked".into()
            } else {
                "it has a monitor: give its fingerprint, in place of --unverified".into()
            }));
        }
        self.facts = ServerFacts {
            workers: Some(greeting.workers),
            write_ahead_log: Some(greeting.write_ahead_log),
        };
        let lanes = self.open_lanes(&mut stream, &greeting)?;
        let connection = ZetaKvConnection {
            shared: self.shared.clone(),
            lanes,
            after_ts: 0,
            in_flight: 0,
            certified_epoch: 0,
            uncertified: Uncertified::default(),
        };
        Ok((stream, connection))
    }

    fn server(&self) -> ServerFacts {
        self.facts.clone()
    }
}

/// One connection, with one session.
pub struct ZetaKvConnection {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    /// The highest timestamp that was seen.
    after_ts: u64,
    in_flight: usize,
    /// The last epoch whose certificate came here.
    certified_epoch: u32,
    uncertified: Uncertified,
}

impl ZetaKvConnection {
    fn send_lane(&mut self, thread: usize, due: Nanos, out: &mut Vec<u8>) -> u32 {
        let epoch_min = self.shared.chain().map_or(0, |chain| chain.epoch() + 1);
        let lane = &mut self.lanes[thread];
        let operations = lane.waiting.len() as u32;
        lane.send(&self.shared.records, due, self.after_ts, epoch_min, out);
        self.in_flight += 1;
        operations
    }

    fn receipt(&mut self, body: &[u8], measurement: &mut Measurement) -> Result<(), Failure> {
        let short = || Failure::check("a receipt is cut short");
        let (length, rest) = body.split_first_chunk().ok_or_else(short)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (receipt, payload) = rest.split_at_checked(length).ok_or_else(short)?;
        let thread: &[u8; 2] = receipt.get(12..).and_then(<[u8]>::first_chunk).ok_or_else(short)?;
        let lane = self.lanes.get_mut(usize::from(u16::from_le_bytes(*thread)));
        let lane = lane.ok_or_else(|| Failure::check("a receipt of a thread that does not exist"))?;
        let answered = lane.receive(receipt, payload, &self.shared.records)?;
        self.in_flight -= 1;
        self.after_ts = self.after_ts.max(answered.ts);
        measurement.answered(answered.due, u32::from(answered.operations));
        let epoch = (answered.ts >> 32) as u32;
        let operations = u64::from(answered.operations);
        if epoch <= self.certified_epoch {
            // a receipt that was forwarded from another worker came after the certificate
            measurement.certified(measurement.now, operations);
        } else {
            self.uncertified.add(epoch, measurement.now, operations);
        }
        Ok(())
    }

    fn certificate(&mut self, body: &[u8], out: &mut Vec<u8>, measurement: &mut Measurement) -> Result<(), Failure> {
        let followed = match self.shared.chain() {
            Some(mut chain) => chain.follow(body)?,
            None => return Err(Failure::check("an unverified server sent a certificate")),
        };
        match followed {
            Followed::Certified(epoch) => self.certified(epoch, measurement),
            Followed::Missing { from, to } => {
                let frame = frames::begin_frame(CERTIFICATES, out);
                out.extend_from_slice(&from.to_le_bytes());
                let count = u16::try_from(to - from + 1).unwrap_or(u16::MAX);
                out.extend_from_slice(&count.to_le_bytes());
                frames::end_frame(frame, out);
            }
        }
        Ok(())
    }

    fn certified(&mut self, epoch: u32, measurement: &mut Measurement) {
        self.certified_epoch = self.certified_epoch.max(epoch);
        self.uncertified.certify(epoch, |answered, operations| {
            measurement.certified(answered, operations)
        });
    }
}

impl Connection for ZetaKvConnection {
    /// Draws operations until there is a full frame for one verifier thread. Those for other threads stay for later frames, so that every
    /// frame has the same size, and keys their distribution.
    fn send(&mut self, source: &mut Source, due: Nanos, out: &mut Vec<u8>) -> u32 {
        let threads = self.lanes.len();
        for operation in source {
            let first = usize::from(self.shared.records.key_hash(operation.record)[0]);
            let thread = (first * threads) >> 8;
            self.lanes[thread].waiting.push(operation);
            if self.lanes[thread].waiting.len() == self.shared.frame {
                return self.send_lane(thread, due, out);
            }
        }
        match (0..threads).find(|thread| !self.lanes[*thread].waiting.is_empty()) {
            Some(thread) => self.send_lane(thread, due, out),
            None => 0,
        }
    }

    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>, measurement: &mut Measurement) -> Result<usize, Failure> {
        let mut done = 0;
        while let Some(Frame { kind, body, length }) = frames::split_frame(&input[done..])? {
            match kind {
                RECEIPT => self.receipt(body, measurement)?,
                CERTIFICATE => self.certificate(body, out, measurement)?,
                CHECKPOINT if self.shared.chain.is_none() => {
                    let epoch: [u8; 4] = body.try_into().map_err(|_| Failure::check("a malformed checkpoint"))?;
                    self.certified(u32::from_le_bytes(epoch), measurement);
                }
                kind => return Err(frames::failure_of(kind, body)),
            }
            done += length;
        }
        Ok(done)
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn uncertified(&self) -> Option<u32> {
        self.uncertified.first()
    }
}

fn parse_fingerprint(text: &str) -> Result<VerifyingKey, Failure> {
    let bytes = blake3::Hash::from_hex(text).ok();
    bytes
        .and_then(|bytes| VerifyingKey::from_bytes(bytes.as_bytes()).ok())
        .ok_or_else(|| Failure::Options("--monitor: a fingerprint has 64 hex digits, and is a public key".into()))
}

/// A key file, as `zetakv client add --new-key` writes it: `zetakv-key-1` and the seed in hex.
fn read_key(path: &Path) -> Result<SigningKey, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::Io("--key", error))?;
    let seed = text
        .trim()
        .strip_prefix("zetakv-key-1 ")
        .and_then(|hex| blake3::Hash::from_hex(hex).ok());
    seed.map(|seed| SigningKey::from_bytes(seed.as_bytes()))
        .ok_or_else(|| Failure::Options("--key: not a key file (zetakv-key-1)".into()))
}
