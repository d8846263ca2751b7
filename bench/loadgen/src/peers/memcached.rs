//! Memcached: pipelined get and set of its text protocol.

use std::net::TcpStream;
use std::sync::Arc;

use crate::failure::Failure;
use crate::options::Options;
use crate::peers::pipeline::{Commands, Pipeline};
use crate::peers::{connect, parse_number, split_line};
use crate::records::{Records, text_key};
use crate::target::{ServerFacts, Target};
use crate::workload::{Action, Operation};

/// What follows a value.
const END: &[u8] = b"\r\nEND\r\n";

/// A memcached server.
pub struct Memcached {
    address: String,
    frame: usize,
    records: Arc<Records>,
}

impl Memcached {
    /// As the options say.
    pub fn new(options: &Options, records: Records) -> Self {
        Self {
            address: options.server.clone(),
            frame: usize::from(options.frame),
            records: Arc::new(records),
        }
    }
}

impl Target for Memcached {
    type Connection = Pipeline<Text>;

    fn open(&mut self) -> Result<(TcpStream, Self::Connection), Failure> {
        Ok((connect(&self.address)?, Pipeline::new(self.records.clone(), self.frame)))
    }

    fn server(&self) -> ServerFacts {
        ServerFacts::default()
    }
}

/// Memcached's text protocol.
pub struct Text;

impl Commands for Text {
    fn encode(operation: &Operation, records: &Records, out: &mut Vec<u8>) {
        let key = text_key(operation.record);
        if let Action::Put(variant) = operation.action {
            let value = &records.value(operation.record, variant).bytes;
            out.extend_from_slice(b"set ");
            out.extend_from_slice(&key);
            out.extend_from_slice(format!(" 0 0 {}\r\n", value.len()).as_bytes());
            out.extend_from_slice(value);
        } else {
            out.extend_from_slice(b"get ");
            out.extend_from_slice(&key);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn check_reply(input: &[u8], operation: &Operation, records: &Records) -> Result<Option<usize>, Failure> {
        let Some((line, start)) = split_line(input) else {
            return Ok(None);
        };
        let wrong = || {
            let line = String::from_utf8_lossy(line);
            Failure::check(format!("{operation:?} is answered by {line:?}"))
        };
        if matches!(operation.action, Action::Put(_)) {
            return if line == b"STORED" {
                Ok(Some(start))
            } else {
                Err(wrong())
            };
        }
        // VALUE <key> <flags> <bytes>
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [b"VALUE", key, _, length] = words.as_slice() else {
            return Err(wrong());
        };
        if **key != text_key(operation.record) {
            return Err(wrong());
        }
        let end = start + parse_number(length)?;
        let Some(after) = input.get(end..end + END.len()) else {
            return Ok(None);
        };
        if after != END {
            return Err(wrong());
        }
        records.check(operation.record, &input[start..end], None)?;
        Ok(Some(end + END.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_checked_when_they_are_whole() {
        let records = Records::new(10, 20, false, false);
        let operation = |action| Operation { record: 5, action };
        let check = |input: &[u8], action| Text::check_reply(input, &operation(action), &records);
        let reply = |head: &[u8], record| [head, &records.value(record, 0).bytes, END].concat();
        let value = reply(b"VALUE 00000005 0 20\r\n", 5);
        for length in 0..value.len() {
            assert!(matches!(check(&value[..length], Action::Get), Ok(None)));
        }
        assert!(matches!(check(&value, Action::Get), Ok(Some(length)) if length == value.len()));
        assert!(matches!(check(b"STORED\r\n", Action::Put(0)), Ok(Some(8))));
        let of_another_key = reply(b"VALUE 00000006 0 20\r\n", 5);
        let of_another_record = reply(b"VALUE 00000005 0 20\r\n", 6);
        for wrong in [
            &of_another_key,
            &of_another_record,
            b"END\r\n".as_slice(),
            b"STORED\r\n",
        ] {
            assert!(check(wrong, Action::Get).is_err());
        }
    }
}
