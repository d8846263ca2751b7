//! The golden examples of the protocol, in `tests/vectors/`: what this monitor writes and accepts is what other implementations do.

use serde_json::Value as Json;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Crypto as _;
use zetakv_verifier::key::Key;
use zetakv_verifier::machine::Role;
use zetakv_verifier::request::MacDomain;
use zetakv_verifier::standard_crypto::StandardCrypto;
use zetakv_verifier::violation::{Violation, ViolationCode};

use crate::certificate::History;
use crate::clients::{Client, Clients, Operation, UnverifiedAdminRequest};
use crate::failure::FailureLatch;
use crate::handshake::{ClientHello, Exchange, FormerAnswer, FormerSequences, Refusal, Welcome};
use crate::identity::{Identity, Run, Secret};
use crate::overrides::{Override, Overrides};

fn load(name: &str) -> Json {
    let path = format!("{}/../../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the golden examples are in the repository");
    serde_json::from_str(&text).expect("golden examples are JSON")
}

fn bytes(json: &Json) -> Vec<u8> {
    let hex = json.as_str().expect("hex");
    (0..hex.len() / 2)
        .map(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).expect("hex"))
        .collect()
}

fn array<const N: usize>(json: &Json) -> [u8; N] {
    bytes(json).try_into().expect("of this length")
}

fn number<T: TryFrom<u64>>(json: &Json) -> T {
    let number = json.as_u64().expect("a number");
    T::try_from(number).ok().expect("in range")
}

fn list(json: &Json) -> &Vec<Json> {
    json.as_array().expect("a list")
}

fn identity(json: &Json) -> Identity {
    let identity = Identity::from_seed(&array(&json["identity_seed"]));
    assert_eq!(identity.fingerprint(), json["identity"].as_str().expect("hex"));
    identity
}

fn run(golden: &Json, incarnation: &Json) -> Run {
    Run {
        instance: array(&golden["instance"]),
        incarnation: array(incarnation),
    }
}

#[test]
fn handshakes() {
    let golden = load("handshake");
    let identity = identity(&golden);
    for case in list(&golden["cases"]) {
        let name = &case["name"];
        let client_hello = bytes(&case["client_hello"]);
        let hello = ClientHello::verify(&client_hello, &identity.public_key()).expect("signed");
        assert_eq!(hello.client_key.is_some(), !case["client_seed"].is_null(), "{name}");
        if let Some(former) = &hello.former {
            assert_eq!(former.incarnation, &array(&case["former_incarnation"]));
            assert_eq!(former.session, number::<u64>(&case["former_session"]));
            let crypto = StandardCrypto::new([0; 32]);
            let key = array(&case["former_key"]);
            assert!(crypto.mac_is(&key, MacDomain::Former, &[former.covered], former.proof));
        } else {
            assert!(case["former_session"].is_null());
        }

        let last_sequences = list(&case["former_last"]).iter().map(number).collect();
        let welcome = Welcome {
            role: Role::from_u8(number(&case["role"])).expect("a role"),
            threads: number(&golden["threads"]),
            run: run(case, &golden["incarnation"]),
            session: number(&golden["session"]),
            epoch: number(&golden["epoch"]),
            head: array(&golden["head"]),
            former: match number::<u8>(&case["former_status"]) {
                0 => FormerAnswer::NotAsked,
                1 => FormerAnswer::Known(FormerSequences {
                    last: last_sequences,
                    replayed: list(&case["former_replayed"]).iter().map(number).collect(),
                    replay_epoch: number(&case["replay_epoch"]),
                }),
                2 => FormerAnswer::Unknown,
                _ => FormerAnswer::UnknownMayBeReplayed,
            },
            overrides: overrides(&case["overrides"]),
        };
        let ephemeral = Secret::new(array(&golden["server_ephemeral_secret"]));
        let exchange = Exchange::with(&hello, ephemeral).expect("contributory");
        let (server_hello, secrets) = exchange.answer(&hello, &identity, &welcome);
        assert_eq!(server_hello, bytes(&case["server_hello"]), "{name}");
        for thread in 0..2u16 {
            let place = usize::from(thread);
            assert_eq!(
                *secrets.request_key(thread),
                array(&case["request_keys"][place]),
                "{name}"
            );
            assert_eq!(
                *secrets.receipt_key(thread),
                array(&case["receipt_keys"][place]),
                "{name}"
            );
        }
        assert_eq!(*secrets.admin_key(), array(&case["admin_key"]), "{name}");
        assert_eq!(
            *secrets.former_key(),
            array(&case["former_key_of_this_session"]),
            "{name}"
        );
    }
}

#[test]
fn changed_hellos_are_refused() {
    let golden = load("handshake");
    let identity = identity(&golden);
    let monitor = identity.public_key();
    let signed = bytes(&golden["cases"][1]["client_hello"]);
    for index in 0..signed.len() {
        let mut changed = signed.clone();
        changed[index] ^= 1;
        assert!(ClientHello::verify(&changed, &monitor).is_err(), "byte {index}");
        assert!(
            ClientHello::verify(&signed[..index], &monitor).is_err(),
            "cut at {index}"
        );
    }
    let elsewhere = ClientHello::verify(&signed, &[1; 32]).err();
    assert_eq!(elsewhere, Some(Refusal::BadSignature), "for another monitor");

    let unsigned = bytes(&golden["cases"][0]["client_hello"]);
    for index in (0..4).chain(36..unsigned.len()) {
        // what is no ephemeral key and no former session must be zero; a former session without an incarnation is unknown later
        let mut changed = unsigned.clone();
        changed[index] ^= 2;
        let refused = ClientHello::verify(&changed, &monitor).is_err();
        assert_eq!(refused, !(84..92).contains(&index), "byte {index}");
    }
    let mut low_order = unsigned;
    low_order[4..36].fill(0);
    let hello = ClientHello::verify(&low_order, &monitor).expect("well-formed");
    let exchange = Exchange::with(&hello, Secret::new([7; 32]));
    assert_eq!(
        exchange.err(),
        Some(Refusal::Malformed),
        "an ephemeral key of low order"
    );
}

fn overrides(statements: &Json) -> Overrides {
    let mut overrides = Overrides::default();
    for statement in list(statements) {
        let verified = Override::verify(&bytes(statement)).expect("signed");
        overrides.push(verified).expect("not too many");
    }
    overrides
}

#[test]
fn certificates() {
    let golden = load("certificates");
    let identity = identity(&golden);
    let mut history = History::default();
    for expected in list(&golden["chain"]) {
        let run = run(&golden, &expected["incarnation"]);
        let (certificate, next) = history.certify(&identity, &run).expect("there are epochs left");
        assert_eq!(
            certificate,
            array(&expected["certificate"]),
            "epoch {}",
            expected["epoch"]
        );
        assert_eq!(next.head, array(&expected["hash"]));
        let peaks: Vec<[u8; 32]> = list(&expected["range_peaks_with_this"]).iter().map(array).collect();
        assert_eq!(next.range.peaks(), peaks);
        history = next;
    }
    assert!(history.epoch > 0);
}

#[test]
fn violations() {
    let golden = load("violations");
    let identity = identity(&golden);
    let run = run(&golden, &golden["incarnation"]);
    for expected in list(&golden["violations"]) {
        let code = number::<u16>(&expected["code"]);
        let violation = Violation {
            code: *ViolationCode::ALL.iter().find(|it| **it as u16 == code).expect("known"),
            thread: number(&expected["thread"]),
            epoch: number(&expected["epoch"]),
            offset: number(&expected["offset"]),
            key: Key::prefix(array(&expected["key_bits"]), number(&expected["key_depth"])),
        };
        assert_eq!(violation.code.name(), expected["name"].as_str().expect("a name"));
        let latch = FailureLatch::default();
        let failure = latch.latch(violation, &identity, &run);
        assert_eq!(failure.signed, bytes(&expected["violation"]));
    }
}

#[test]
fn admin_requests() {
    let golden = load("administration");
    let crypto = StandardCrypto::new([0; 32]);
    let key = array(&golden["admin_key"]);
    let client = Client {
        role: Role::from_u8(number(&golden["client"]["role"])).expect("a role"),
        key: array(&golden["client"]["public_key"]),
        name: golden["client"]["name"].as_str().expect("a name").to_owned(),
    };
    let mut listed = vec![1, 0];
    client.encode(&mut listed);
    for case in list(&golden["cases"]) {
        let request = bytes(&case["request"]);
        let request = UnverifiedAdminRequest::split(&request).expect("long enough");
        assert!(crypto.mac_is(&key, MacDomain::Admin, &[request.covered], request.mac));
        assert_eq!(request.sequence, number::<u64>(&case["sequence"]));
        let (expected, payload) = match number::<u8>(&case["op"]) {
            1 => (Operation::Add(client.clone()), Vec::new()),
            2 => (Operation::Remove(client.key), Vec::new()),
            _ => (Operation::List, listed.clone()),
        };
        assert_eq!(Operation::decode(request.operation), Ok(expected));
        let answer = bytes(&case["answer"]);
        let (covered, mac) = answer.split_last_chunk().expect("long enough");
        assert_eq!(covered[21..], payload, "{}", case["name"]);
        assert!(crypto.mac_is(&key, MacDomain::AdminAnswer, &[covered, request.mac], mac));
    }
    let mut reader = Reader::new(&listed);
    assert!(Clients::decode(&mut reader).is_ok() && reader.end().is_ok());
}
