//! The trusted register: files with anything in them, and a TPM that says anything. Nothing is believed that is not authentic.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use hmac::{Hmac, KeyInit as _, Mac as _};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};
use zetakv_fuzz::{Input, scratch};
use zetakv_monitor::identity::Secret;
use zetakv_monitor::register::file::FileRegister;
use zetakv_monitor::register::{Commitment, TrustedRegister as _};
use zetakv_monitor_tpm::error::Error;
use zetakv_monitor_tpm::register::TpmRegister;
use zetakv_monitor_tpm::stream::Transport;

const AUTHORIZATION: [u8; 32] = [4; 32];
const FILE_KEY: [u8; 32] = [5; 32];
/// Commands that are answered at the most: a busy TPM is asked again, after a pause.
const ANSWERS_MAX: usize = 12;

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(scratch);

/// A TPM whose responses are made from the input; some have the HMAC that the session wants.
struct Tpm {
    input: Vec<u8>,
    answers: usize,
}

impl Transport for Tpm {
    fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, Error> {
        self.answers += 1;
        if self.input.is_empty() || self.answers > ANSWERS_MAX {
            return Err(Error::Connection(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let mut input = Input(&self.input);
        let choice = input.u8();
        let body = input.counted();
        let response = match choice % 4 {
            0 => body.to_vec(),
            1 => with_header(command, u32::from(choice), &[]), // a code
            2 => with_header(command, 0, body),
            _ => authentic(command, body),
        };
        self.input = input.0.to_vec();
        Ok(response)
    }
}

fn with_header(command: &[u8], code: u32, body: &[u8]) -> Vec<u8> {
    let length = (10 + body.len()) as u32;
    [&command[..2], &length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

/// A response to a command with a session: these parameters, and the HMAC over them and the command's nonce.
fn authentic(command: &[u8], parameters: &[u8]) -> Vec<u8> {
    // header, two handles, bytes of the session, its handle, the nonce's length, the nonce
    let Some(nonce) = command.get(10 + 8 + 4 + 4 + 2..10 + 8 + 4 + 4 + 2 + 32) else {
        return with_header(command, 0, parameters);
    };
    let nonce_tpm = [6; 32];
    let hash = Sha256::new()
        .chain_update([0; 4])
        .chain_update(&command[6..10])
        .chain_update(parameters)
        .finalize();
    let mut mac = Hmac::<Sha256>::new_from_slice(&AUTHORIZATION).expect("any length will do");
    for part in [&hash[..], &nonce_tpm, nonce, &[1]] {
        mac.update(part);
    }
    let mac = mac.finalize().into_bytes();
    let session = [&[0, 32][..], &nonce_tpm, &[1], &[0, 32], &mac].concat();
    let length = (parameters.len() as u32).to_be_bytes();
    with_header(command, 0, &[&length[..], parameters, &session].concat())
}

fn file(content: &[u8]) {
    let path = DIRECTORY.join("register");
    fs::write(&path, content).expect("a file");
    let mut register = FileRegister::new(path.clone(), Secret::new(FILE_KEY));
    if let Ok(held) = register.read() {
        register.initialize(&held).expect("a file");
        assert_eq!(
            fs::read(&path).expect("a file"),
            content,
            "one encoding for each commitment"
        );
        panic!("a file is believed that nobody authentic has written");
    }
    assert!(register.commit(&Commitment::default(), &Commitment::default()).is_err());
}

fn tpm(input: &mut Input<'_>) {
    let path = DIRECTORY.join("register.tpm");
    let content = [b"ZKT1", input.counted()].concat();
    fs::write(&path, content).expect("a file");
    let task = input.u8() % 3;
    let bytes = input.0.to_vec();
    let mut register = TpmRegister {
        connect: Box::new(move || {
            let input = bytes.clone();
            Ok(Box::new(Tpm { input, answers: 0 }))
        }),
        index: 0x0180_0100,
        auth: Secret::new(AUTHORIZATION),
        path,
    };
    match task {
        0 => drop(register.read()),
        1 => drop(register.initialize(&Commitment::default())),
        _ => drop(register.commit(&Commitment::default(), &Commitment::default())),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    match input.u8() % 4 {
        0 => file(input.0),
        _ => tpm(&mut input),
    }
});
