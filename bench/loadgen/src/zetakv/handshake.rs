//! The client's half of the handshake (section 4 of docs/protocol.md), with the crates that the monitor uses.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zetakv_verifier::codec::Reader;

use crate::failure::Failure;

const VERSION: u16 = 1;
const CLIENT_HELLO_DOMAIN: &[u8] = b"zetakv/1 client hello";
const SERVER_HELLO_DOMAIN: &[u8] = b"zetakv/1 server hello";
const SIGNATURE_BYTES: usize = 64;
const ROLE_WRITE: u8 = 2;

/// Keys of one verifier thread.
pub struct ThreadKeys {
    /// Authenticates requests.
    pub request: [u8; 32],
    /// Authenticates receipts.
    pub receipt: [u8; 32],
}

/// An open session.
pub struct Session {
    /// Its number.
    pub session: u64,
    /// One for each verifier thread.
    pub keys: Vec<ThreadKeys>,
    /// The store.
    pub instance: [u8; 16],
    /// This run of the service.
    pub incarnation: [u8; 16],
    /// The last certified epoch, and the hash of its certificate.
    pub head: (u32, [u8; 32]),
}

/// A hello that is not answered yet.
pub struct Hello {
    secret: StaticSecret,
    bytes: Vec<u8>,
}

impl Hello {
    /// To the monitor with this public key; signed, if the client has a key.
    pub fn new(monitor: &[u8; 32], client: Option<&SigningKey>) -> Result<Self, Failure> {
        let mut secret = [0; 32];
        let no_numbers =
            |error: getrandom::Error| Failure::Io("random numbers", std::io::Error::other(error.to_string()));
        getrandom::fill(&mut secret).map_err(no_numbers)?;
        Ok(Self::with_secret(secret, monitor, client))
    }

    fn with_secret(secret: [u8; 32], monitor: &[u8; 32], client: Option<&SigningKey>) -> Self {
        let secret = StaticSecret::from(secret);
        let mut bytes = VERSION.to_le_bytes().to_vec();
        bytes.extend_from_slice(&u16::from(client.is_some()).to_le_bytes());
        bytes.extend_from_slice(PublicKey::from(&secret).as_bytes());
        let public = client.map_or([0; 32], |key| key.verifying_key().to_bytes());
        bytes.extend_from_slice(&public);
        bytes.extend_from_slice(&[0; 16 + 8 + 16]); // it replaces no former session
        let signature = client.map_or([0; SIGNATURE_BYTES], |key| {
            key.sign(&[CLIENT_HELLO_DOMAIN, monitor, &bytes].concat()).to_bytes()
        });
        bytes.extend_from_slice(&signature);
        Self { secret, bytes }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The session that the monitor's answer opens. The signature is checked before anything else is read.
    pub fn answered(self, answer: &[u8], monitor: &VerifyingKey) -> Result<Session, Failure> {
        let split = answer.len().checked_sub(SIGNATURE_BYTES);
        let (body, signature) = split
            .map(|at| answer.split_at(at))
            .ok_or_else(|| Failure::check("a short hello"))?;
        let signed = [SERVER_HELLO_DOMAIN, &self.bytes, body].concat();
        let signature = Signature::from_slice(signature).map_err(|_| Failure::check("a short signature"))?;
        monitor
            .verify_strict(&signed, &signature)
            .map_err(|_| Failure::check("the server does not talk for the pinned monitor"))?;

        let mut reader = Reader::new(body);
        let (version, role, _former_status) = (reader.u16()?, reader.u8()?, reader.u8()?);
        let (threads, former_count) = (reader.u16()?, reader.u16()?);
        let (instance, incarnation) = (*reader.array()?, *reader.array()?);
        let (session, epoch, head) = (reader.u64()?, reader.u32()?, *reader.array()?);
        let ephemeral = PublicKey::from(*reader.array::<32>()?);
        if version != VERSION || !threads.is_power_of_two() || threads > 64 || former_count != 0 || session == 0 {
            return Err(Failure::check("a field of the monitor's hello is out of range"));
        }
        if role < ROLE_WRITE {
            return Err(Failure::Refused("this client's key may only read".into()));
        }
        let shared = self.secret.diffie_hellman(&ephemeral);
        if !shared.was_contributory() {
            return Err(Failure::check("the monitor's ephemeral key is useless"));
        }
        let mut transcript = blake3::Hasher::new();
        transcript.update(&self.bytes).update(answer);
        let salt = transcript.finalize();
        let extracted = Hkdf::<Sha256>::new(Some(salt.as_bytes()), shared.as_bytes());
        let secret = expand(&extracted, &[b"zetakv/1 session"]);
        let keys = Hkdf::<Sha256>::from_prk(&secret).map_err(|_| Failure::check("no session secret"))?;
        let of_thread = |thread: u16| ThreadKeys {
            request: expand(&keys, &[b"zetakv/1 request", &thread.to_le_bytes()]),
            receipt: expand(&keys, &[b"zetakv/1 receipt", &thread.to_le_bytes()]),
        };
        Ok(Session {
            session,
            keys: (0..threads).map(of_thread).collect(),
            instance,
            incarnation,
            head: (epoch, head),
        })
    }
}

fn expand(hkdf: &Hkdf<Sha256>, info: &[&[u8]]) -> [u8; 32] {
    let mut key = [0; 32];
    hkdf.expand_multi_info(info, &mut key)
        .expect("32 bytes are within what HKDF-SHA256 can give");
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn bytes(value: &Value) -> Vec<u8> {
        let hex = value.as_str().expect("hex digits");
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    fn key(value: &Value) -> [u8; 32] {
        bytes(value).try_into().expect("32 bytes")
    }

    #[test]
    fn golden_handshakes() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../../../tests/vectors/handshake.json")).expect("JSON");
        let monitor = VerifyingKey::from_bytes(&key(&vectors["identity"])).expect("a public key");
        let cases = vectors["cases"].as_array().expect("cases").iter();
        let mut opened = 0;
        for case in cases.filter(|case| case["former_session"].is_null()) {
            let client = case["client_seed"]
                .as_str()
                .map(|_| SigningKey::from_bytes(&key(&case["client_seed"])));
            let secret = key(&vectors["client_ephemeral_secret"]);
            let hello = || Hello::with_secret(secret, monitor.as_bytes(), client.as_ref());
            assert_eq!(hello().bytes(), bytes(&case["client_hello"]), "{}", case["name"]);
            let answer = bytes(&case["server_hello"]);
            for changed in 0..answer.len() {
                let mut forged = answer.clone();
                forged[changed] ^= 1;
                assert!(matches!(hello().answered(&forged, &monitor), Err(Failure::Check(_))));
            }
            if case["role"] == 1 {
                assert!(matches!(hello().answered(&answer, &monitor), Err(Failure::Refused(_))));
                continue;
            }
            let session = hello().answered(&answer, &monitor).expect("a session");
            assert_eq!(Value::from(session.session), vectors["session"]);
            assert_eq!(Value::from(session.head.0), vectors["epoch"]);
            assert_eq!(session.head.1, key(&vectors["head"]));
            for (thread, keys) in session.keys.iter().enumerate() {
                assert_eq!(keys.request, key(&case["request_keys"][thread]));
                assert_eq!(keys.receipt, key(&case["receipt_keys"][thread]));
            }
            opened += 1;
        }
        assert!(opened >= 2, "one without and one with a client key");
    }
}
