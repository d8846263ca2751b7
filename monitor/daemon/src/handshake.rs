//! The handshake: a signed Diffie-Hellman exchange between a client and the monitor, carried by the host.
//!
//! The client's hello may be signed with its own key; the server hello is signed over both. The session's secret depends on every byte
//! of both hellos, so whoever changes one of them, or plays the monitor, does not get to know a key.

use ed25519_dalek::{Signature as Ed25519Signature, VerifyingKey};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey as X25519PublicKey, StaticSecret};
use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::crypto::Mac;
use zetakv_verifier::entry::ThreadId;
use zetakv_verifier::machine::Role;
use zetakv_verifier::value::Hash;

use crate::identity::{Identity, IncarnationId, PublicKey, Run, Secret};
use crate::overrides::Overrides;

/// Bytes of a client hello.
pub const CLIENT_HELLO_BYTES: usize = SIGNED_BYTES + 64;
const PROVED_BYTES: usize = 2 + 2 + 32 + 32 + 16 + 8;
const SIGNED_BYTES: usize = PROVED_BYTES + 16;
const VERSION: u16 = 1;
const FLAG_SIGNED: u16 = 1;
const CLIENT_HELLO_DOMAIN: &[u8] = b"zetakv/1 client hello";
const SERVER_HELLO_DOMAIN: &[u8] = b"zetakv/1 server hello";

/// Why a hello is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not what the protocol allows.
    Malformed = 1,
    /// Not signed by the key that it names.
    BadSignature = 2,
    /// The key is not that of an authorized client.
    UnknownClientKey = 3,
    /// This monitor serves authorized clients only.
    KeyRequired = 4,
    /// There are as many sessions as there can be.
    TooManySessions = 5,
    /// The monitor has failed, and answers nobody any more.
    MonitorFailed = 6,
}

impl Refusal {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Malformed => "the hello is malformed or of another version",
            Self::BadSignature => "the hello is not signed by the client key that it names",
            Self::UnknownClientKey => "the client key is not authorized: ask an admin to add it",
            Self::KeyRequired => "this store serves authorized clients only: give a client key",
            Self::TooManySessions => "too many sessions are open: try again later",
            Self::MonitorFailed => "the monitor has found a violation and has stopped",
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A claim to have been the client of a former session.
#[derive(Clone, Copy, Debug)]
pub struct FormerClaim<'a> {
    /// The incarnation that the session was of.
    pub incarnation: &'a IncarnationId,
    /// The session.
    pub session: u64,
    /// All that the proof covers.
    pub covered: &'a [u8],
    /// MAC under the former key of that session.
    pub proof: &'a Mac,
}

/// A client hello whose signature, if it has one, is right.
#[derive(Clone, Copy, Debug)]
pub struct ClientHello<'a> {
    bytes: &'a [u8],
    ephemeral: &'a PublicKey,
    /// The client's key, which signed; `None` without one.
    pub client_key: Option<&'a PublicKey>,
    /// The session that the new one replaces.
    pub former: Option<FormerClaim<'a>>,
}

impl<'a> ClientHello<'a> {
    /// Parse a hello to the monitor with this public key, and check its signature.
    pub fn verify(bytes: &'a [u8], monitor: &PublicKey) -> Result<Self, Refusal> {
        let mut reader = Reader::new(bytes);
        let (version, flags) = (reader.u16()?, reader.u16()?);
        let ephemeral = reader.array()?;
        let client_key: &PublicKey = reader.array()?;
        let incarnation: &IncarnationId = reader.array()?;
        let session = reader.u64()?;
        let proof: &Mac = reader.array()?;
        let signature: &[u8; 64] = reader.array()?;
        reader.end()?;
        if version != VERSION || flags & !FLAG_SIGNED != 0 {
            return Err(Refusal::Malformed);
        }

        let client_key = if flags & FLAG_SIGNED == 0 {
            if *client_key != [0; 32] || *signature != [0; 64] {
                return Err(Refusal::Malformed);
            }
            None
        } else {
            let signed = [CLIENT_HELLO_DOMAIN, monitor, &bytes[..SIGNED_BYTES]].concat();
            VerifyingKey::from_bytes(client_key)
                .and_then(|key| key.verify_strict(&signed, &Ed25519Signature::from_bytes(signature)))
                .map_err(|_| Refusal::BadSignature)?;
            Some(client_key)
        };
        let former = if session == 0 {
            if *incarnation != [0; 16] || *proof != [0; 16] {
                return Err(Refusal::Malformed);
            }
            None
        } else {
            Some(FormerClaim {
                incarnation,
                session,
                covered: &bytes[..PROVED_BYTES],
                proof,
            })
        };
        Ok(Self {
            bytes,
            ephemeral,
            client_key,
            former,
        })
    }
}

/// The last sequences of a former session, for each thread that there was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerSequences {
    /// That took effect, and are certified.
    pub last: Vec<u64>,
    /// That took effect again when the write-ahead log was replayed; as above where none did.
    pub replayed: Vec<u64>,
    /// The epoch whose certificate certifies those; 0 if there are none.
    pub replay_epoch: u32,
}

/// What the monitor tells about a former session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormerAnswer {
    /// The client did not ask.
    NotAsked,
    /// What took effect.
    Known(FormerSequences),
    /// There is no such session to tell about, or the proof is wrong.
    Unknown,
    /// The same; and what only a former incarnation admitted may have been replayed since, in this incarnation or one before.
    UnknownMayBeReplayed,
}

/// What the server hello says, besides who says it.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// What the client may do.
    pub role: Role,
    /// Number of verifier threads.
    pub threads: ThreadId,
    /// This run.
    pub run: Run,
    /// The new session.
    pub session: u64,
    /// The last certified epoch.
    pub epoch: u32,
    /// Hash of its certificate.
    pub head: Hash,
    /// About the session before.
    pub former: FormerAnswer,
    /// What the operator has overridden.
    pub overrides: Overrides,
}

/// The monitor's half of the exchange.
pub struct Exchange {
    ephemeral: X25519PublicKey,
    shared: Secret,
}

impl Exchange {
    /// Agree on a secret with the client, under the ephemeral key with this secret half.
    pub fn with(client: &ClientHello<'_>, secret: Secret) -> Result<Self, Refusal> {
        let secret = StaticSecret::from(*secret);
        let shared = secret.diffie_hellman(&X25519PublicKey::from(*client.ephemeral));
        if !shared.was_contributory() {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            ephemeral: X25519PublicKey::from(&secret),
            shared: Secret::new(shared.to_bytes()),
        })
    }

    /// The server hello, and the keys of the session that it opens.
    pub fn answer(self, client: &ClientHello<'_>, identity: &Identity, welcome: &Welcome) -> (Vec<u8>, SessionSecrets) {
        let (former_status, former) = match &welcome.former {
            FormerAnswer::NotAsked => (0, None),
            FormerAnswer::Known(former) => (1, Some(former)),
            FormerAnswer::Unknown => (2, None),
            FormerAnswer::UnknownMayBeReplayed => (3, None),
        };
        let former_threads = former.map_or(0, |former| former.last.len() as u16); // at most THREADS_MAX
        let mut hello = Vec::with_capacity(256);
        hello.extend_from_slice(&VERSION.to_le_bytes());
        hello.push(welcome.role as u8);
        hello.push(former_status);
        hello.extend_from_slice(&welcome.threads.to_le_bytes());
        hello.extend_from_slice(&former_threads.to_le_bytes());
        hello.extend_from_slice(&welcome.run.instance);
        hello.extend_from_slice(&welcome.run.incarnation);
        hello.extend_from_slice(&welcome.session.to_le_bytes());
        hello.extend_from_slice(&welcome.epoch.to_le_bytes());
        hello.extend_from_slice(&welcome.head);
        hello.extend_from_slice(self.ephemeral.as_bytes());
        if let Some(former) = former {
            for sequence in former.last.iter().chain(&former.replayed) {
                hello.extend_from_slice(&sequence.to_le_bytes());
            }
            hello.extend_from_slice(&former.replay_epoch.to_le_bytes());
        }
        welcome.overrides.encode(&mut hello);
        let signed = [SERVER_HELLO_DOMAIN, client.bytes, &hello].concat();
        hello.extend_from_slice(&identity.sign(&signed));

        let mut transcript = blake3::Hasher::new();
        transcript.update(client.bytes).update(&hello);
        let salt = transcript.finalize();
        let mut secret = Secret::default();
        expand(
            &Hkdf::new(Some(salt.as_bytes()), self.shared.as_slice()),
            &[b"zetakv/1 session"],
            &mut secret,
        );
        (hello, SessionSecrets(secret))
    }
}

/// The secret of a session, from which all its keys come.
pub struct SessionSecrets(Secret);

impl SessionSecrets {
    /// Authenticates requests to a thread.
    pub fn request_key(&self, thread: ThreadId) -> Secret {
        self.derive(&[b"zetakv/1 request", &thread.to_le_bytes()])
    }

    /// Authenticates receipts of a thread.
    pub fn receipt_key(&self, thread: ThreadId) -> Secret {
        self.derive(&[b"zetakv/1 receipt", &thread.to_le_bytes()])
    }

    /// Authenticates admin requests and their answers.
    pub fn admin_key(&self) -> Secret {
        self.derive(&[b"zetakv/1 admin"])
    }

    /// Proves, in a later incarnation, to have been the client of this session.
    pub fn former_key(&self) -> Secret {
        self.derive(&[b"zetakv/1 former"])
    }

    fn derive(&self, info: &[&[u8]]) -> Secret {
        let mut key = Secret::default();
        let hkdf = Hkdf::from_prk(self.0.as_slice()).expect("32 bytes are a pseudorandom key for SHA-256");
        expand(&hkdf, info, &mut key);
        key
    }
}

fn expand(hkdf: &Hkdf<Sha256>, info: &[&[u8]], key: &mut Secret) {
    hkdf.expand_multi_info(info, key.as_mut_slice())
        .expect("32 bytes are within what HKDF-SHA256 can give");
}
