//! Records of the write-ahead log: what the host makes durable before answers go out, and gives back at the next start.
//!
//! A record holds what the monitor admitted or refused in one log message, in its order, and the monitor's tag after it. Layout:
//! `docs/storage-format.md`. The host cannot tell records from each other, and need not.

use zetakv_verifier::Incarnation;
use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::crypto::Mac;
use zetakv_verifier::machine::Role;

use crate::error::Error;
use crate::frames::{ClientRequest, FrameRules, parse_request};

const MARK: u8 = 0;
const REQUEST: u8 = 1;

/// What is replayed.
#[derive(Debug)]
pub enum Item {
    /// What follows was admitted by this incarnation.
    Mark(Incarnation),
    /// A request that was admitted in a role, or refused.
    Request(Option<Role>, ClientRequest),
}

/// A record in the making.
#[derive(Debug, Default)]
pub struct Record(Vec<u8>);

impl Record {
    pub fn mark(&mut self, incarnation: &Incarnation) {
        self.0.push(MARK);
        self.0.extend_from_slice(incarnation);
    }

    /// A request was admitted in a role, or refused.
    pub fn request(&mut self, role: Option<Role>, request: &ClientRequest) {
        self.0.extend_from_slice(&[REQUEST, role.map_or(0, |role| role as u8)]);
        let length = request.body.len() as u32; // a frame is far below 4 GiB
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(&request.body);
    }

    /// The record, with the tag after its last item; and a new one begins.
    pub fn finish(&mut self, tag: &Mac) -> Vec<u8> {
        let items = core::mem::take(&mut self.0);
        [tag.as_slice(), &items].concat()
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Read a record: its items, and its tag.
pub fn read_record(rules: &FrameRules, record: &[u8]) -> Result<(Vec<Item>, Mac), Error> {
    let garbled = |_: Malformed| Error::malformed("a record of the write-ahead log is garbled");
    let mut reader = Reader::new(record);
    let tag = *reader.array().map_err(garbled)?;
    let mut items = Vec::new();
    while reader.remaining() > 0 {
        items.push(match reader.u8().map_err(garbled)? {
            MARK => Item::Mark(*reader.array().map_err(garbled)?),
            REQUEST => {
                let role = match reader.u8().map_err(garbled)? {
                    0 => None,
                    role => Some(Role::from_u8(role).ok_or(Malformed).map_err(garbled)?),
                };
                let length = reader.u32().map_err(garbled)? as usize;
                let body = reader.take(length).map_err(garbled)?;
                Item::Request(role, parse_request(rules, 0, body)?)
            }
            _ => return Err(garbled(Malformed)),
        });
    }
    Ok((items, tag))
}
