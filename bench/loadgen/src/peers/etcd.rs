//! Etcd: one transaction per frame, over HTTP and its JSON gateway. (Its gRPC interface is faster; the gateway adds to its cost.)

use std::collections::{HashSet, VecDeque};
use std::net::TcpStream;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::measurement::Measurement;
use crate::options::Options;
use crate::peers::{connect, parse_number};
use crate::records::{Records, text_key};
use crate::target::{Connection, Nanos, ServerFacts, Target};
use crate::workload::{Action, Operation, Source};

/// An etcd server.
pub struct Etcd {
    address: String,
    frame: usize,
    records: Arc<Records>,
}

impl Etcd {
    /// As the options say.
    pub fn new(options: &Options, records: Records) -> Self {
        Self {
            address: options.server.clone(),
            frame: usize::from(options.frame),
            records: Arc::new(records),
        }
    }
}

impl Target for Etcd {
    type Connection = Transactions;

    fn open(&mut self) -> Result<(TcpStream, Transactions), Failure> {
        let connection = Transactions {
            records: self.records.clone(),
            frame: self.frame,
            in_flight: VecDeque::new(),
        };
        Ok((connect(&self.address)?, connection))
    }

    fn server(&self) -> ServerFacts {
        ServerFacts::default()
    }
}

/// A connection.
pub struct Transactions {
    records: Arc<Records>,
    frame: usize,
    in_flight: VecDeque<(Nanos, Vec<Operation>)>,
}

impl Transactions {
    /// The next operations. Etcd takes no transaction that puts a key twice: such puts are left out.
    fn next_frame(&self, source: &mut Source) -> Vec<Operation> {
        let (mut puts, mut operations) = (HashSet::new(), Vec::new());
        for operation in source {
            if operation.action == Action::Get || puts.insert(operation.record) {
                operations.push(operation);
            }
            if operations.len() == self.frame {
                break;
            }
        }
        operations
    }

    fn check(&self, operations: &[Operation], body: &[u8]) -> Result<(), Failure> {
        let answer: Value = serde_json::from_slice(body).map_err(|_| Failure::check("etcd's answer is no JSON"))?;
        let responses = answer["responses"]
            .as_array()
            .filter(|all| all.len() == operations.len());
        let responses = responses.ok_or_else(|| Failure::check("etcd answers another number of operations"))?;
        for (operation, response) in operations.iter().zip(responses) {
            if operation.action != Action::Get {
                if response["response_put"].is_null() {
                    return Err(Failure::check(format!("{operation:?} is not answered by etcd")));
                }
                continue;
            }
            let value = response["response_range"]["kvs"][0]["value"].as_str();
            let bytes = value.and_then(|value| STANDARD.decode(value).ok());
            let bytes = bytes.ok_or_else(|| Failure::check(format!("{operation:?} finds no value in etcd")))?;
            self.records.check(operation.record, &bytes, None)?;
        }
        Ok(())
    }
}

impl Connection for Transactions {
    fn send(&mut self, source: &mut Source, due: Nanos, out: &mut Vec<u8>) -> u32 {
        let operations = self.next_frame(source);
        if operations.is_empty() {
            return 0;
        }
        let requests: Vec<Value> = operations
            .iter()
            .map(|operation| {
                let key = STANDARD.encode(text_key(operation.record));
                match operation.action {
                    Action::Put(variant) => {
                        let value = STANDARD.encode(&self.records.value(operation.record, variant).bytes);
                        json!({"requestPut": {"key": key, "value": value}})
                    }
                    _ => json!({"requestRange": {"key": key}}),
                }
            })
            .collect();
        let body = json!({ "success": requests }).to_string();
        let head = format!(
            "POST /v3/kv/txn HTTP/1.1\r\nHost: etcd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body.as_bytes());
        let count = operations.len() as u32;
        self.in_flight.push_back((due, operations));
        count
    }

    fn receive(&mut self, input: &[u8], _: &mut Vec<u8>, measurement: &mut Measurement) -> Result<usize, Failure> {
        let mut done = 0;
        while let Some((body, length)) = split_response(&input[done..])? {
            done += length;
            let (due, operations) = self
                .in_flight
                .pop_front()
                .ok_or_else(|| Failure::check("an answer to nothing"))?;
            self.check(&operations, &body)?;
            measurement.answered(due, operations.len() as u32);
        }
        Ok(done)
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn uncertified(&self) -> Option<u32> {
        None
    }
}

/// The body of the first HTTP response, and the bytes of all of it; `None` if it has not come whole.
fn split_response(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Failure> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&input[..end]).to_ascii_lowercase();
    let start = end + 4;
    if !head.starts_with("http/1.1 200") {
        let text = String::from_utf8_lossy(&input[start..]).into_owned();
        return Err(Failure::check(format!(
            "etcd answers {:?}: {text}",
            head.lines().next()
        )));
    }
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    if let Some(length) = header("content-length:") {
        let length = parse_number(length.as_bytes())?;
        let body = input.get(start..start + length);
        return Ok(body.map(|body| (body.to_vec(), start + length)));
    }
    let (mut body, mut at) = (Vec::new(), start);
    while let Some((line, taken)) = super::split_line(&input[at..]) {
        let digits = std::str::from_utf8(line).unwrap_or_default();
        let length = usize::from_str_radix(digits, 16).map_err(|_| Failure::check("etcd's answer is malformed"))?;
        let Some(chunk) = input.get(at + taken..at + taken + length + 2) else {
            return Ok(None);
        };
        at += taken + length + 2;
        if length == 0 {
            return Ok(Some((body, at)));
        }
        body.extend_from_slice(&chunk[..length]);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_split_when_they_are_whole() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{ab}".as_slice();
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{ab\r\n1\r\n}\r\n0\r\n\r\n".as_slice();
        for response in [plain, chunked] {
            for length in 0..response.len() {
                assert!(matches!(split_response(&response[..length]), Ok(None)));
            }
            let (body, length) = split_response(response).expect("well-formed").expect("whole");
            assert_eq!((body.as_slice(), length), (b"{ab}".as_slice(), response.len()));
        }
        assert!(split_response(b"HTTP/1.1 400 Bad Request\r\n\r\n").is_err());
    }
}
