//! A client: opens a session, signs, and believes only what has the right MAC or signature.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zetakv_monitor::identity::random;
use zetakv_monitor::ticket::TICKET_BYTES;
use zetakv_monitor::wire::kind;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Crypto as _;
use zetakv_verifier::machine::OperationResult;
use zetakv_verifier::receipt::{ReceiptHeader, Resumed};
use zetakv_verifier::request::{MacDomain, RESUME_BYTES, RequestHeader};
use zetakv_verifier::standard_crypto::StandardCrypto;
use zetakv_verifier::value::Commitment;

use crate::host::Control;

pub const TOKEN: [u8; 4] = [0xfe, 0xed, 0xbe, 0xef];

/// A session of a former incarnation.
pub struct Former {
    pub incarnation: [u8; 16],
    pub session: u64,
    pub key: [u8; 32],
}

pub struct Client {
    pub session: u64,
    pub incarnation: [u8; 16],
    pub role: u8,
    pub epoch: u32,
    pub head: [u8; 32],
    pub former_status: u8,
    pub former_last: Vec<u64>,
    /// Statements.
    pub overrides: Vec<Vec<u8>>,
    pub former_replayed: Vec<u64>,
    pub replay_epoch: u32,
    /// With a write-ahead log.
    pub ticket: Vec<u8>,
    secret: [u8; 32],
    admin_sequence: u64,
}

fn crypto() -> StandardCrypto {
    StandardCrypto::new([0; 32]) // for MACs only
}

fn hello(monitor: &[u8; 32], ephemeral: &StaticSecret, key: Option<&SigningKey>, former: Option<&Former>) -> Vec<u8> {
    let mut hello = vec![1, 0, u8::from(key.is_some()), 0];
    hello.extend_from_slice(PublicKey::from(ephemeral).as_bytes());
    hello.extend_from_slice(&key.map_or([0; 32], |key| key.verifying_key().to_bytes()));
    hello.extend_from_slice(&former.map_or([0; 16], |former| former.incarnation));
    hello.extend_from_slice(&former.map_or(0, |former| former.session).to_le_bytes());
    let proof = former.map_or([0; 16], |former| {
        crypto().mac(&former.key, MacDomain::Former, &[&hello])
    });
    hello.extend_from_slice(&proof);
    let signed = [b"zetakv/1 client hello", monitor.as_slice(), &hello].concat();
    hello.extend_from_slice(&key.map_or([0; 64], |key| key.sign(&signed).to_bytes()));
    hello
}

/// Check a signature of the monitor.
pub fn assert_signed(monitor: &[u8; 32], covered: &[u8], signature: &[u8]) {
    let signature = Signature::from_slice(signature).expect("64 bytes");
    let key = VerifyingKey::from_bytes(monitor).expect("a key");
    key.verify_strict(covered, &signature).expect("signed by the monitor");
}

impl Client {
    /// Open a session; `Err` has the code of the refusal.
    pub fn open(
        control: &mut Control,
        monitor: &[u8; 32],
        key: Option<&SigningKey>,
        former: Option<&Former>,
    ) -> Result<Self, u16> {
        let ephemeral = StaticSecret::from(random::<32>().expect("random bytes"));
        let client_hello = hello(monitor, &ephemeral, key, former);
        control.connection.send(kind::HELLO, &[&TOKEN, &client_hello]);
        let (answer, body) = control.connection.receive().expect("an answer");
        assert_eq!(body[..4], TOKEN);
        let server_hello = &body[4..];
        if answer == kind::HELLO_REFUSED {
            return Err(u16::from_le_bytes([server_hello[0], server_hello[1]]));
        }
        let ticket_bytes = match answer {
            kind::HELLO_OK => 0,
            kind::HELLO_OK_WITH_TICKET => TICKET_BYTES,
            other => panic!("a message of type {other:#x}"),
        };
        let (ticket, server_hello) = server_hello.split_at(ticket_bytes);

        let (covered, signature) = server_hello.split_at(server_hello.len() - 64);
        let signed = [b"zetakv/1 server hello", client_hello.as_slice(), covered].concat();
        assert_signed(monitor, &signed, signature);
        let their_ephemeral: [u8; 32] = covered[84..116].try_into().expect("32");
        let shared = ephemeral.diffie_hellman(&PublicKey::from(their_ephemeral));
        let salt = blake3::hash(&[client_hello.as_slice(), server_hello].concat());
        let mut secret = [0; 32];
        Hkdf::<Sha256>::new(Some(salt.as_bytes()), shared.as_bytes())
            .expand(b"zetakv/1 session", &mut secret)
            .expect("short");
        let former_count = usize::from(u16::from_le_bytes([covered[6], covered[7]]));
        let mut lists = Reader::new(&covered[116..]);
        let mut sequences = || (0..former_count).map(|_| lists.u64().expect("8")).collect();
        let (former_last, former_replayed) = (sequences(), sequences());
        let replay_epoch = if covered[3] == 1 { lists.u32().expect("4") } else { 0 };
        let overrides = (0..lists.u8().expect("1"))
            .map(|_| {
                let length = lists.u16().expect("2");
                lists.take(usize::from(length)).expect("a statement").to_vec()
            })
            .collect();
        lists.end().expect("nothing else");
        Ok(Self {
            role: covered[2],
            former_status: covered[3],
            incarnation: covered[24..40].try_into().expect("16"),
            session: u64::from_le_bytes(covered[40..48].try_into().expect("8")),
            epoch: u32::from_le_bytes(covered[48..52].try_into().expect("4")),
            head: covered[52..84].try_into().expect("32"),
            former_last,
            former_replayed,
            replay_epoch,
            ticket: ticket.to_vec(),
            overrides,
            secret,
            admin_sequence: 0,
        })
    }

    fn key(&self, info: &[&[u8]]) -> [u8; 32] {
        let mut key = [0; 32];
        Hkdf::<Sha256>::from_prk(&self.secret)
            .expect("32 bytes")
            .expand_multi_info(info, &mut key)
            .expect("short");
        key
    }

    /// What to show to a later incarnation.
    pub fn former(&self) -> Former {
        Former {
            incarnation: self.incarnation,
            session: self.session,
            key: self.key(&[b"zetakv/1 former"]),
        }
    }

    /// A request with these encoded operations.
    pub fn request(&self, thread: u16, sequence: u64, operations: &[Vec<u8>]) -> Vec<u8> {
        self.request_after(thread, sequence, 0, operations)
    }

    /// The same, after a moment.
    pub fn request_after(&self, thread: u16, sequence: u64, after_ts: u64, operations: &[Vec<u8>]) -> Vec<u8> {
        self.request_of(1, thread, sequence, after_ts, operations)
    }

    /// The same, of a generation.
    pub fn request_of(
        &self,
        generation: u32,
        thread: u16,
        sequence: u64,
        after_ts: u64,
        operations: &[Vec<u8>],
    ) -> Vec<u8> {
        let mut request = Vec::new();
        RequestHeader {
            session: self.session,
            generation,
            thread,
            operations: operations.len() as u16,
            sequence,
            after_ts,
        }
        .encode(&mut request);
        for operation in operations {
            request.extend_from_slice(operation);
        }
        let key = self.key(&[b"zetakv/1 request", &thread.to_le_bytes()]);
        request.extend_from_slice(&crypto().mac(&key, MacDomain::Request, &[&request]));
        request
    }

    /// A resume.
    pub fn resume(&self, generation: u32, thread: u16) -> [u8; RESUME_BYTES] {
        let mut resume = Vec::new();
        resume.extend_from_slice(&self.session.to_le_bytes());
        resume.extend_from_slice(&generation.to_le_bytes());
        resume.extend_from_slice(&[thread.to_le_bytes(), [0, 0]].concat());
        resume.extend_from_slice(&random::<16>().expect("random bytes"));
        let key = self.key(&[b"zetakv/1 request", &thread.to_le_bytes()]);
        resume.extend_from_slice(&crypto().mac(&key, MacDomain::Resume, &[&resume]));
        resume.try_into().expect("its length")
    }

    /// Check the answer to a resume: the last sequence that ran.
    pub fn check_resumed(&self, resume: &[u8; RESUME_BYTES], resumed: &[u8]) -> u64 {
        let (covered, mac) = resumed.split_last_chunk().expect("a MAC");
        assert_eq!(covered[..14], resume[..14], "session, generation and thread");
        let key = self.key(&[b"zetakv/1 receipt", &resume[12..14]]);
        assert!(crypto().mac_is(&key, MacDomain::Resumed, &[covered, &resume[16..32]], mac));
        Resumed::decode(&mut Reader::new(covered))
            .expect("a header")
            .last_sequence
    }

    /// Check a receipt of a request: when it ran, and its results.
    pub fn check_receipt(&self, request: &[u8], receipt: &[u8]) -> (u64, Vec<OperationResult>) {
        let mut reader = Reader::new(receipt);
        let header = ReceiptHeader::decode(&mut reader).expect("a header");
        let results = (0..header.count)
            .map(|_| OperationResult::decode(&mut reader).expect("a result"))
            .collect();
        let mac: [u8; 16] = *reader.array().expect("a MAC");
        reader.end().expect("no more");
        assert_eq!((header.session, header.error), (self.session, 0));
        assert_eq!(request[16..24], header.sequence.to_le_bytes());
        let key = self.key(&[b"zetakv/1 receipt", &header.thread.to_le_bytes()]);
        let covered = &receipt[..receipt.len() - 16];
        let request_mac = &request[request.len() - 16..];
        assert!(crypto().mac_is(&key, MacDomain::Receipt, &[covered, request_mac], &mac));
        (header.ts, results)
    }

    /// An admin request: its status, the epoch that makes it durable, and the payload.
    pub fn admin(&mut self, control: &mut Control, operation: &[u8]) -> (u8, u32, Vec<u8>) {
        self.admin_sequence += 1;
        let key = self.key(&[b"zetakv/1 admin"]);
        let mut request = [self.session.to_le_bytes(), self.admin_sequence.to_le_bytes()].concat();
        request.extend_from_slice(operation);
        let mac = crypto().mac(&key, MacDomain::Admin, &[&request]);
        control.connection.send(kind::ADMIN, &[&TOKEN, &request, &mac]);

        let body = control.connection.expect(kind::ADMIN_ANSWER);
        let answer = body.strip_prefix(&TOKEN).expect("the token");
        let (covered, answer_mac) = answer.split_last_chunk().expect("a MAC");
        assert!(crypto().mac_is(&key, MacDomain::AdminAnswer, &[covered, &mac], answer_mac));
        assert_eq!(covered[..16], request[..16]);
        let epoch = u32::from_le_bytes(covered[17..21].try_into().expect("4"));
        (covered[16], epoch, covered[21..].to_vec())
    }
}

pub fn get(key: &[u8]) -> Vec<u8> {
    [&[1], blake3::hash(key).as_bytes().as_slice()].concat()
}

pub fn put(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut operation = [&[2], blake3::hash(key).as_bytes().as_slice()].concat();
    Commitment::of(value).encode(&mut operation);
    operation
}
