//! Redis: pipelined GET and SET, as redis-benchmark sends them.

use std::net::TcpStream;
use std::sync::Arc;

use crate::failure::Failure;
use crate::options::Options;
use crate::peers::pipeline::{Commands, Pipeline};
use crate::peers::{connect, parse_number, split_line};
use crate::records::{Records, text_key};
use crate::target::{ServerFacts, Target};
use crate::workload::{Action, Operation};

/// A Redis server.
pub struct Redis {
    address: String,
    frame: usize,
    records: Arc<Records>,
}

impl Redis {
    /// As the options say.
    pub fn new(options: &Options, records: Records) -> Self {
        Self {
            address: options.server.clone(),
            frame: usize::from(options.frame),
            records: Arc::new(records),
        }
    }
}

impl Target for Redis {
    type Connection = Pipeline<Resp>;

    fn open(&mut self) -> Result<(TcpStream, Self::Connection), Failure> {
        Ok((connect(&self.address)?, Pipeline::new(self.records.clone(), self.frame)))
    }

    fn server(&self) -> ServerFacts {
        ServerFacts::default()
    }
}

/// Redis's protocol, version 2.
pub struct Resp;

impl Commands for Resp {
    fn encode(operation: &Operation, records: &Records, out: &mut Vec<u8>) {
        let key = text_key(operation.record);
        if let Action::Put(variant) = operation.action {
            let value = &records.value(operation.record, variant).bytes;
            out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$8\r\n");
            out.extend_from_slice(&key);
            out.extend_from_slice(format!("\r\n${}\r\n", value.len()).as_bytes());
            out.extend_from_slice(value);
        } else {
            out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$8\r\n");
            out.extend_from_slice(&key);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn check_reply(input: &[u8], operation: &Operation, records: &Records) -> Result<Option<usize>, Failure> {
        let Some((line, start)) = split_line(input) else {
            return Ok(None);
        };
        let (kind, rest) = line.split_first().ok_or_else(|| Failure::check("an empty reply"))?;
        match (kind, operation.action) {
            (b'+', Action::Put(_)) if rest == b"OK" => Ok(Some(start)),
            (b'$', Action::Get) if rest != b"-1" => {
                let end = start + parse_number(rest)?;
                if input.len() < end + 2 {
                    return Ok(None);
                }
                records.check(operation.record, &input[start..end], None)?;
                Ok(Some(end + 2))
            }
            _ => Err(Failure::check(format!(
                "{operation:?} is answered by {:?}",
                String::from_utf8_lossy(line)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_checked_when_they_are_whole() {
        let records = Records::new(10, 20, false, false);
        let operation = |action| Operation { record: 5, action };
        let check = |input: &[u8], action| Resp::check_reply(input, &operation(action), &records);
        let value = [b"$20\r\n", records.value(5, 0).bytes.as_slice(), b"\r\n"].concat();
        for length in 0..value.len() {
            assert!(matches!(check(&value[..length], Action::Get), Ok(None)));
        }
        assert!(matches!(check(&value, Action::Get), Ok(Some(27))));
        assert!(matches!(check(b"+OK\r\n", Action::Put(0)), Ok(Some(5))));
        let other = [b"$20\r\n", records.value(6, 0).bytes.as_slice(), b"\r\n"].concat();
        for wrong in [other.as_slice(), b"$-1\r\n", b"-ERR\r\n", b"+OK\r\n"] {
            assert!(check(wrong, Action::Get).is_err());
        }
    }
}
