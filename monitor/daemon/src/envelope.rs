//! What the monitor encrypts for itself, and the host keeps: `nonce: b[24]`, then XChaCha20-Poly1305.
//!
//! Each purpose has associated data of its own, so that what was sealed for one is never taken for another. The nonce is random: the same
//! thing can be sealed again after a crash with other content, so it must not be derived from anything.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;
use zetakv_verifier::codec::Malformed;

use crate::error::Error;
use crate::identity::{Secret, random};

const NONCE_BYTES: usize = 24;
/// Bytes that an envelope has more than its content.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + 16;

/// What is sealed.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// A sealed state.
    State,
    /// A session's ticket.
    Ticket,
}

impl Purpose {
    const fn associated_data(self) -> &'static [u8] {
        match self {
            Self::State => b"zetakv/1 sealed state",
            Self::Ticket => b"zetakv/1 ticket",
        }
    }
}

/// Encrypt for the monitor itself.
pub fn seal(key: &Secret, purpose: Purpose, content: &[u8]) -> Result<Vec<u8>, Error> {
    let nonce: [u8; NONCE_BYTES] = random()?;
    let payload = Payload {
        msg: content,
        aad: purpose.associated_data(),
    };
    let encrypted = XChaCha20Poly1305::new((&**key).into())
        .encrypt(&XNonce::from(nonce), payload)
        .expect("what is sealed is far below the cipher's limit of 256 GiB");
    Ok([nonce.as_slice(), &encrypted].concat())
}

/// Decrypt what this monitor sealed for this purpose; anything else is malformed.
pub fn open(key: &Secret, purpose: Purpose, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let (nonce, encrypted) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(Malformed)?;
    let payload = Payload {
        msg: encrypted,
        aad: purpose.associated_data(),
    };
    XChaCha20Poly1305::new((&**key).into())
        .decrypt(&XNonce::from(*nonce), payload)
        .map(Zeroizing::new)
        .map_err(|_| Malformed)
}
