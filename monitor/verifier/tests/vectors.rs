//! The golden bytes in `tests/vectors/` at the root, which the client wrote and its tests read too.

use std::path::Path;

use serde_json::Value as Json;
use zetakv_verifier::StandardCrypto;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::{Crypto, MacKey};
use zetakv_verifier::kv::{Action, KeyValue};
use zetakv_verifier::machine::{OperationResult, StateMachine};
use zetakv_verifier::receipt::{RESUMED_BYTES, ReceiptHeader, Resumed};
use zetakv_verifier::request::{MAC_BYTES, MacDomain, UnverifiedRequest, UnverifiedResume};
use zetakv_verifier::value::Commitment;
use zetakv_verifier::violation::{VIOLATION_BYTES, ViolationCode};

fn read(name: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

fn bytes(json: &Json) -> Vec<u8> {
    let hex = json.as_str().unwrap_or_else(|| panic!("hex digits, not {json}"));
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn mac_key(json: &Json) -> MacKey {
    bytes(json).try_into().expect("32 bytes")
}

fn number(json: &Json) -> u64 {
    json.as_u64().unwrap_or_else(|| panic!("a number, not {json}"))
}

fn commitment(json: &Json) -> Commitment {
    if json.is_null() {
        Commitment::Null
    } else {
        Commitment::of(&bytes(json))
    }
}

fn crypto() -> StandardCrypto {
    StandardCrypto::new([0; 32])
}

#[test]
fn commitments() {
    let cases = read("commitments.json");
    let cases = cases.as_array().expect("a list");
    assert!(cases.len() >= 5, "{} cases", cases.len());
    for case in cases {
        let expected = bytes(&case["commitment"]);
        let mut encoding = Vec::new();
        commitment(&case["value"]).encode(&mut encoding);
        assert_eq!(encoding, expected);
        assert_eq!(
            Commitment::decode(&mut Reader::new(&expected)),
            Ok(commitment(&case["value"]))
        );
    }
}

#[test]
fn requests() {
    let vectors = read("requests.json");
    let expected = &vectors["request"];
    let request = bytes(&expected["request"]);
    let request = UnverifiedRequest::split(&request).expect("well-formed");
    let header = request.header;
    assert_eq!(header.session, number(&expected["session"]));
    assert_eq!(u64::from(header.generation), number(&expected["generation"]));
    assert_eq!(u64::from(header.thread), number(&expected["thread"]));
    assert_eq!(header.sequence, number(&expected["sequence"]));
    assert_eq!(header.after_ts, number(&expected["after_ts"]));
    let key = mac_key(&vectors["request_key"]);
    assert!(crypto().mac_is(&key, MacDomain::Request, &[request.covered], request.mac));
    let mut encoding = Vec::new();
    header.encode(&mut encoding);
    encoding.extend_from_slice(request.operations);
    assert_eq!(encoding, request.covered);

    let operations = vectors["operations"].as_array().expect("a list");
    assert_eq!(usize::from(header.operations), operations.len());
    let mut reader = Reader::new(request.operations);
    for expected in operations {
        let rest = reader.rest();
        let operation = KeyValue::decode(&mut reader).expect("well-formed");
        assert_eq!(rest[..rest.len() - reader.remaining()], bytes(&expected["operation"]));
        assert_eq!(operation.key, *blake3::hash(&bytes(&expected["key"])).as_bytes());
        let new = || commitment(&expected["new"]);
        let action = match expected["name"].as_str().expect("a name") {
            "get" => Action::Get,
            "put" => Action::Put(new()),
            "delete" => Action::Delete,
            "insert" => Action::Insert(new()),
            "compare_and_set" => Action::CompareAndSet(commitment(&expected["expected"]), new()),
            "increment" => Action::Increment(expected["delta"].as_i64().expect("a number")),
            other => panic!("{other}"),
        };
        assert_eq!(operation.action, action);
    }
    assert_eq!(reader.end(), Ok(()));
}

/// A receipt's header and results; its MAC covers the request's.
fn check_receipt(vectors: &Json, expected: &Json) -> (ReceiptHeader, Vec<u8>) {
    let receipt = bytes(&expected["receipt"]);
    let (covered, mac) = receipt.split_last_chunk::<MAC_BYTES>().expect("a MAC");
    let request = bytes(&vectors["request"]["request"]);
    let request_mac = request.last_chunk::<MAC_BYTES>().expect("a MAC");
    let key = mac_key(&vectors["receipt_key"]);
    assert!(crypto().mac_is(&key, MacDomain::Receipt, &[covered, request_mac], mac));
    let mut reader = Reader::new(covered);
    let header = ReceiptHeader::decode(&mut reader).expect("a header");
    assert_eq!([&header.encode()[..], reader.rest()].concat(), covered);
    assert_eq!(header.session, number(&expected["session"]));
    assert_eq!(u64::from(header.generation), number(&expected["generation"]));
    assert_eq!(u64::from(header.thread), number(&expected["thread"]));
    assert_eq!(header.sequence, number(&expected["sequence"]));
    assert_eq!(header.ts, number(&expected["ts"]));
    (header, reader.rest().to_vec())
}

#[test]
fn receipts() {
    let vectors = read("requests.json");
    let expected = &vectors["receipt"];
    let (header, results) = check_receipt(&vectors, expected);
    let expected = expected["results"].as_array().expect("a list");
    assert_eq!((usize::from(header.count), header.error), (expected.len(), 0));
    let mut reader = Reader::new(&results);
    for expected in expected {
        let result = OperationResult::decode(&mut reader).expect("a result");
        let mut encoding = Vec::new();
        result.encode(&mut encoding);
        assert_eq!(encoding, bytes(&expected["result"]));
        assert_eq!(u64::from(encoding[0]), number(&expected["status"]));
        if let OperationResult::Value(found) | OperationResult::Mismatch(found) = result {
            assert_eq!(found, commitment(&expected["value"]));
        }
    }
    assert_eq!(reader.end(), Ok(()));

    let expected = &vectors["error_receipt"];
    let (header, results) = check_receipt(&vectors, expected);
    assert_eq!((header.count, results.len()), (0, 0));
    assert_eq!(u64::from(header.error), number(&expected["error"]));
}

#[test]
fn resumes() {
    let vectors = read("requests.json");
    let expected = &vectors["resume"];
    let resume = bytes(&expected["resume"]).try_into().expect("48 bytes");
    let resume = UnverifiedResume::split(&resume).expect("well-formed");
    assert_eq!(resume.session, number(&expected["session"]));
    assert_eq!(u64::from(resume.generation), number(&expected["generation"]));
    assert_eq!(u64::from(resume.thread), number(&expected["thread"]));
    assert_eq!(resume.nonce[..], bytes(&expected["nonce"]));
    let key = mac_key(&vectors["request_key"]);
    assert!(crypto().mac_is(&key, MacDomain::Resume, &[resume.covered], resume.mac));

    let nonce = resume.nonce;
    let expected = &vectors["resumed"];
    let resumed = bytes(&expected["resumed"]);
    let (covered, mac) = resumed.split_at(RESUMED_BYTES);
    let header = Resumed {
        session: number(&expected["session"]),
        generation: number(&expected["generation"]) as u32,
        thread: number(&expected["thread"]) as u16,
        last_sequence: number(&expected["sequence"]),
        ts: number(&expected["ts"]),
    };
    assert_eq!(header.encode(), covered);
    assert_eq!(Resumed::decode(&mut Reader::new(covered)), Ok(header));
    let key = mac_key(&vectors["receipt_key"]);
    assert_eq!(crypto().mac(&key, MacDomain::Resumed, &[covered, nonce]), mac);
}

#[test]
fn violations() {
    let vectors = read("violations.json");
    for expected in vectors["violations"].as_array().expect("a list") {
        let name = expected["name"].as_str().expect("a name");
        let code = ViolationCode::ALL
            .iter()
            .find(|code| code.name() == name)
            .expect("a code");
        assert_eq!(*code as u64, number(&expected["code"]));
        let violation = bytes(&expected["violation"]);
        assert_eq!(violation.len(), VIOLATION_BYTES);
        assert_eq!(violation[36..38], (*code as u16).to_le_bytes());
    }
}
