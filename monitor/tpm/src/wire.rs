//! The few TPM 2.0 commands that a register needs: to define, extend and read one NV index (TCG TPM 2.0 Library, part 3).
//!
//! Invariant: what [`Session`] returns was said by the TPM that holds the index, in answer to this very command. A session is neither bound nor salted, so its
//! HMAC key is the index's authorization value, 32 secret bytes: nobody without it can make a command that the TPM accepts, or a response
//! that is accepted here. Each covers both sides' latest nonces, so none can be replayed; a command names the index with its attributes.
//! Commands that need no authorization (to look at an index, to start and end a session) are not believed: they only choose what to try.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use std::thread;
use std::time::{Duration, Instant};

use zetakv_monitor::identity::{Secret, random};

use crate::error::Error;
use crate::stream::{HEADER_BYTES, Transport};

/// A SHA-256 digest, as such an index holds it.
pub type Digest = [u8; 32];

const TAG_PLAIN: u16 = 0x8001;
const TAG_SESSIONS: u16 = 0x8002;
const SHA256: u16 = 0x000b;
const NO_ALGORITHM: u16 = 0x0010;
const OWNER: u32 = 0x4000_0001;
const NO_HANDLE: u32 = 0x4000_0007;
const PASSWORD_SESSION: u32 = 0x4000_0009;
const CAPABILITY_HANDLES: u32 = 1;
const LOADED_SESSIONS: u32 = 0x0200_0000;
const CONTINUE_SESSION: u8 = 1;
/// Loaded sessions that are asked for at once; TPMs have room for a few.
const SESSIONS_MAX: u32 = 64;

/// Attributes of the index: written and read with its authorization value (and read by the owner), extended only, and a wrong value does
/// not count towards the dictionary lockout, which would be a way to deny service.
const ATTRIBUTES: u32 = AUTH_WRITE | TYPE_EXTEND | OWNER_READ | AUTH_READ | NO_LOCKOUT;
const AUTH_WRITE: u32 = 1 << 2;
const TYPE_EXTEND: u32 = 4 << 4;
const OWNER_READ: u32 = 1 << 17;
const AUTH_READ: u32 = 1 << 18;
const NO_LOCKOUT: u32 = 1 << 25;
const WRITTEN: u32 = 1 << 29;

/// The commands.
mod code {
    pub const DEFINE_SPACE: u32 = 0x012a;
    pub const EXTEND: u32 = 0x0136;
    pub const READ: u32 = 0x014e;
    pub const FLUSH_CONTEXT: u32 = 0x0165;
    pub const READ_PUBLIC: u32 = 0x0169;
    pub const START_SESSION: u32 = 0x0176;
    pub const GET_CAPABILITY: u32 = 0x017a;
}

/// Response codes, without the number of the handle, session or parameter that they are about.
pub mod response {
    /// There is no such index.
    pub const HANDLE: u32 = 0x08b;
    const AUTHORIZATION_FAILED: u32 = 0x08e;
    const BAD_AUTHORIZATION: u32 = 0x0a2;
    const NOT_STARTED: u32 = 0x100;
    const NV_UNINITIALIZED: u32 = 0x14a;
    const NV_DEFINED: u32 = 0x14c;
    pub(super) const SESSION_MEMORY: u32 = 0x903;
    pub(super) const SESSION_HANDLES: u32 = 0x905;
    /// The TPM is busy with something else: yielded, testing, limiting its writes, or asking to be asked again.
    pub(super) const BUSY: [u32; 4] = [0x908, 0x90a, 0x920, 0x922];

    /// For people: what a code means here, and what to do.
    pub const fn explain(code: u32) -> &'static str {
        match code {
            HANDLE => {
                "the index does not exist: the TPM was cleared, or is another one, or the index was deleted. If this is no attack: \
                 zetakv-monitor-operator override --register-lost"
            }
            AUTHORIZATION_FAILED | BAD_AUTHORIZATION => {
                "the index, or the TPM's owner, has another authorization value. Either the index is not this monitor's (it belongs to \
                 another root.key, was defined again by somebody else, or is left from a first start that was interrupted: then delete \
                 it with tpm2_nvundefine), or the owner has a password, which must be empty when the index is defined"
            }
            NOT_STARTED => {
                "the TPM has not been started (TPM2_Startup): its firmware, or swtpm with --flags startup-clear, does this"
            }
            NV_UNINITIALIZED => "the index was never written: it is not the one that this monitor has used",
            NV_DEFINED => "the index exists already",
            _ => "see tpm2_rc_decode",
        }
    }
}

/// How long a TPM may say that it is busy.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(10);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The answer cannot be what a TPM says.
const fn malformed(doing: &'static str) -> Error {
    Error::Forged { doing }
}

/// Send a command, and return what follows the header of its response.
fn command(tpm: &mut dyn Transport, doing: &'static str, tag: u16, code: u32, body: &[u8]) -> Result<Vec<u8>, Error> {
    let size = (HEADER_BYTES + body.len()) as u32; // a few hundred
    let message = [&tag.to_be_bytes()[..], &size.to_be_bytes(), &code.to_be_bytes(), body].concat();
    let since = Instant::now();
    loop {
        let response = tpm.exchange(&message)?;
        let (header, body) = response.split_first_chunk::<HEADER_BYTES>().ok_or(malformed(doing))?;
        let code = u32::from_be_bytes([header[6], header[7], header[8], header[9]]);
        // the codes of "format one" say in further bits which handle, session or parameter they mean
        let code = if code & 0x80 == 0 { code } else { code & 0xbf };
        if code == 0 {
            let tag_is_right = header[..2] == tag.to_be_bytes();
            return tag_is_right.then(|| body.to_vec()).ok_or(malformed(doing));
        }
        if !response::BUSY.contains(&code) || since.elapsed() > BUSY_WAIT_MAX {
            return Err(Error::Refused { doing, code });
        }
        thread::sleep(BUSY_PAUSE);
    }
}

/// Bytes with their length before them.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat() // at most a hundred
}

/// Take bytes with their length before them.
fn take_sized<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_be_bytes(*take::<2>(bytes)?);
    let (taken, rest) = bytes.split_at_checked(usize::from(length))?;
    *bytes = rest;
    Some(taken)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

/// The register's NV index.
#[derive(Clone, Copy, Debug)]
pub struct NvIndex {
    handle: u32,
    /// Whether it has been extended since it was defined. This is part of its name.
    written: bool,
}

impl NvIndex {
    /// The index with this handle, in use.
    pub const fn written(handle: u32) -> Self {
        Self { handle, written: true }
    }

    /// Look for an index, in use or not; `None` if it does not exist. The answer is not authentic.
    pub fn find(tpm: &mut dyn Transport, handle: u32) -> Result<Option<Self>, Error> {
        const DOING: &str = "look at the NV index";
        let body = match command(tpm, DOING, TAG_PLAIN, code::READ_PUBLIC, &handle.to_be_bytes()) {
            Err(Error::Refused {
                code: response::HANDLE, ..
            }) => return Ok(None),
            answer => answer?,
        };
        let public = take_sized(&mut body.as_slice()).ok_or(malformed(DOING))?;
        [false, true]
            .map(|written| Self { handle, written })
            .into_iter()
            .find(|index| index.public() == public)
            .map(Some)
            .ok_or(Error::OfAnotherKind)
    }

    /// Define it, with the empty password of the TPM's owner.
    pub fn define(tpm: &mut dyn Transport, handle: u32, auth: &Secret) -> Result<Self, Error> {
        let index = Self { handle, written: false };
        // password session: handle, no nonce, no attributes, empty password
        let session = [&PASSWORD_SESSION.to_be_bytes()[..], &[0; 5]].concat();
        let body = [
            &OWNER.to_be_bytes()[..],
            &(session.len() as u32).to_be_bytes(),
            &session,
            &sized(auth.as_slice()),
            &sized(&index.public()),
        ]
        .concat();
        let body = zeroize::Zeroizing::new(body);
        command(tpm, "define the NV index", TAG_SESSIONS, code::DEFINE_SPACE, &body)?;
        Ok(index)
    }

    /// Its public area: handle, name algorithm, attributes, no policy, bytes of data.
    fn public(self) -> Vec<u8> {
        let attributes = if self.written { ATTRIBUTES | WRITTEN } else { ATTRIBUTES };
        [
            &self.handle.to_be_bytes()[..],
            &SHA256.to_be_bytes(),
            &attributes.to_be_bytes(),
            &sized(&[]),
            &(size_of::<Digest>() as u16).to_be_bytes(),
        ]
        .concat()
    }

    /// What stands for it in authenticated commands.
    fn name(self) -> Vec<u8> {
        [&SHA256.to_be_bytes()[..], &Sha256::digest(self.public())].concat()
    }

    /// Whether it has been extended.
    pub const fn is_written(self) -> bool {
        self.written
    }
}

/// An HMAC session under the authorization value of an index. It ends with the value, as far as the TPM can be reached.
pub struct Session<'a> {
    tpm: &'a mut dyn Transport,
    auth: &'a Secret,
    handle: u32,
    nonce_tpm: Vec<u8>,
}

impl<'a> Session<'a> {
    /// Start a session.
    pub fn start(tpm: &'a mut dyn Transport, auth: &'a Secret) -> Result<Self, Error> {
        const DOING: &str = "start a session";
        let nonce: [u8; 32] = random()?;
        let body = [
            &NO_HANDLE.to_be_bytes()[..], // not salted
            &NO_HANDLE.to_be_bytes(),     // not bound
            &sized(&nonce),
            &sized(&[]),
            &[0], // of type HMAC
            &NO_ALGORITHM.to_be_bytes(),
            &SHA256.to_be_bytes(),
        ]
        .concat();
        let mut start = || command(tpm, DOING, TAG_PLAIN, code::START_SESSION, &body);
        let answer = match start() {
            Err(Error::Refused {
                code: response::SESSION_MEMORY | response::SESSION_HANDLES,
                ..
            }) => {
                flush_sessions(tpm)?;
                command(tpm, DOING, TAG_PLAIN, code::START_SESSION, &body)
            }
            answer => answer,
        }?;
        let mut answer = answer.as_slice();
        let handle = take::<4>(&mut answer).ok_or(malformed(DOING))?;
        let nonce_tpm = take_sized(&mut answer).ok_or(malformed(DOING))?;
        Ok(Self {
            handle: u32::from_be_bytes(*handle),
            nonce_tpm: nonce_tpm.to_vec(),
            tpm,
            auth,
        })
    }

    /// What the index holds.
    pub fn read(&mut self, index: NvIndex) -> Result<Digest, Error> {
        const DOING: &str = "read the NV index";
        let size = size_of::<Digest>() as u16;
        let parameters = [size.to_be_bytes(), [0, 0]].concat(); // size, offset
        let answer = self.run(DOING, code::READ, index, &parameters)?;
        let data = take_sized(&mut answer.as_slice()).and_then(|data| data.try_into().ok());
        data.ok_or(malformed(DOING))
    }

    /// Let the index hold SHA-256 of what it holds, zeros at first, and this data.
    pub fn extend(&mut self, index: NvIndex, data: &[u8]) -> Result<(), Error> {
        self.run("extend the NV index", code::EXTEND, index, &sized(data))?;
        Ok(())
    }

    /// Run an authenticated command on an index; the parameters of its response.
    fn run(&mut self, doing: &'static str, code: u32, index: NvIndex, parameters: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce: [u8; 32] = random()?;
        let (name, attributes) = (index.name(), [CONTINUE_SESSION]);
        let command_hash = Sha256::new()
            .chain_update(code.to_be_bytes())
            .chain_update(&name) // of the index that authorizes
            .chain_update(&name) // of the index that is worked on
            .chain_update(parameters)
            .finalize();
        let mac = self
            .hmac(&[&command_hash, &nonce, &self.nonce_tpm, &attributes])
            .finalize()
            .into_bytes();
        let session = [
            &self.handle.to_be_bytes()[..],
            &sized(&nonce),
            &attributes,
            &sized(&mac),
        ]
        .concat();
        let body = [
            &index.handle.to_be_bytes()[..],
            &index.handle.to_be_bytes(),
            &(session.len() as u32).to_be_bytes(),
            &session,
            parameters,
        ]
        .concat();
        let answer = command(self.tpm, doing, TAG_SESSIONS, code, &body)?;
        self.open_answer(code, &nonce, &answer).ok_or(malformed(doing))
    }

    /// The parameters of an answer, if it is authentic.
    fn open_answer(&mut self, code: u32, nonce: &[u8; 32], mut answer: &[u8]) -> Option<Vec<u8>> {
        let size = u32::from_be_bytes(*take::<4>(&mut answer)?);
        let (parameters, mut session) = answer.split_at_checked(size as usize)?;
        let nonce_tpm = take_sized(&mut session)?;
        let attributes = take::<1>(&mut session)?;
        let mac = take_sized(&mut session)?;
        let response_hash = Sha256::new()
            .chain_update([0; 4]) // success
            .chain_update(code.to_be_bytes())
            .chain_update(parameters)
            .finalize();
        self.hmac(&[&response_hash, nonce_tpm, nonce, attributes])
            .verify_slice(mac)
            .ok()?;
        self.nonce_tpm = nonce_tpm.to_vec();
        session.is_empty().then(|| parameters.to_vec())
    }

    fn hmac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.auth.as_slice()).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let _ = flush(self.tpm, self.handle); // else the next monitor makes room
    }
}

fn flush(tpm: &mut dyn Transport, handle: u32) -> Result<(), Error> {
    let doing = "end a session";
    command(tpm, doing, TAG_PLAIN, code::FLUSH_CONTEXT, &handle.to_be_bytes())?;
    Ok(())
}

/// End the sessions that are left in a TPM without a resource manager, by monitors that were killed.
fn flush_sessions(tpm: &mut dyn Transport) -> Result<(), Error> {
    const DOING: &str = "list sessions";
    let body = [CAPABILITY_HANDLES, LOADED_SESSIONS, SESSIONS_MAX]
        .map(u32::to_be_bytes)
        .concat();
    let answer = command(tpm, DOING, TAG_PLAIN, code::GET_CAPABILITY, &body)?;
    let handles = answer.get(1 + 4 + 4..).ok_or(malformed(DOING))?; // after more, capability, count
    for handle in handles.as_chunks().0 {
        flush(tpm, u32::from_be_bytes(*handle))?;
    }
    Ok(())
}
