//! What clients and admins send to the monitor's control side, signed with the right keys.

#![no_main]

use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;
use zetakv_fuzz::{Input, decoder_bytes_max, within};
use zetakv_monitor::clients::{Client, Clients, Operation, UnverifiedAdminRequest};
use zetakv_monitor::handshake::{CLIENT_HELLO_BYTES, ClientHello, Exchange};
use zetakv_monitor::identity::Secret;
use zetakv_monitor::incarnation::Start;
use zetakv_monitor::overrides::{Override, Overrides};
use zetakv_monitor::wire::{read_cut_message, read_message};
use zetakv_monitor_operator::override_rollback::sign;
use zetakv_verifier::codec::Reader;

const MONITOR: [u8; 32] = [9; 32];
const SIGNATURE_BYTES: usize = 64;

fn hello(input: &mut Input<'_>, key: &SigningKey) {
    let is_signed = input.u8() % 2 == 0;
    let mut hello = input.take(CLIENT_HELLO_BYTES).to_vec();
    if is_signed && hello.len() == CLIENT_HELLO_BYTES {
        hello[2] = 1;
        hello[36..68].copy_from_slice(key.verifying_key().as_bytes());
        let signed = CLIENT_HELLO_BYTES - SIGNATURE_BYTES;
        let message = [b"zetakv/1 client hello", MONITOR.as_slice(), &hello[..signed]].concat();
        hello[signed..].copy_from_slice(&key.sign(&message).to_bytes());
    }
    if let Ok(hello) = ClientHello::verify(&hello, &MONITOR) {
        let _ = Exchange::with(&hello, Secret::new([7; 32])); // refused where the key is of low order
    }
}

fn statement(input: &mut Input<'_>, key: &SigningKey) {
    let mut statement = input.counted().to_vec();
    if statement.len() >= 145 {
        statement[..4].copy_from_slice(b"ZKO1");
        statement[112..144].copy_from_slice(key.verifying_key().as_bytes());
    }
    let signature = key.sign(&[b"zetakv/1 override", statement.as_slice()].concat());
    statement.extend_from_slice(&signature.to_bytes());
    if let Ok(verified) = Override::verify(&statement) {
        assert_eq!(verified.statement(), statement);
        let again = sign(&verified.decision, key).expect("what was verified can be signed");
        assert_eq!(again.statement(), statement, "one encoding for each decision");
    }
}

fn lists(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    if let Ok(clients) = Clients::decode(&mut reader) {
        let mut again = Vec::new();
        clients.encode(&mut again);
        assert_eq!(
            again,
            bytes[..bytes.len() - reader.remaining()],
            "one encoding for each list"
        );
    }
    let mut reader = Reader::new(bytes);
    if let Ok(overrides) = Overrides::decode(&mut reader) {
        let mut again = Vec::new();
        overrides.encode(&mut again);
        assert_eq!(again, bytes[..bytes.len() - reader.remaining()]);
    }
}

fn admin(bytes: &[u8]) {
    if let Ok(request) = UnverifiedAdminRequest::split(bytes) {
        let _ = Operation::decode(request.operation);
    }
    if let Ok(Operation::Add(client)) = Operation::decode(bytes) {
        let mut again = vec![1];
        Client::encode(&client, &mut again);
        assert_eq!(again, bytes);
    }
}

fn messages(mut stream: &[u8], bytes_max: usize) {
    let mut body = Vec::new();
    let mut cut = stream;
    while let Ok(Some(_)) = read_message(&mut stream, &mut body, bytes_max) {
        assert!(body.len() <= bytes_max);
        let _ = Start::decode(&body);
    }
    while let Ok(Some(_)) = read_cut_message(&mut cut, &mut body, bytes_max) {
        assert!(body.len() <= bytes_max);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let key = SigningKey::from_bytes(&[5; 32]);
    let mut input = Input(bytes);
    within(decoder_bytes_max(bytes), || match input.u8() % 6 {
        0 => hello(&mut input, &key),
        1 => statement(&mut input, &key),
        2 => lists(input.0),
        3 => admin(input.0),
        4 => messages(input.0, 1 << input.below(16)),
        _ => drop(Start::decode(input.0)),
    });
});
