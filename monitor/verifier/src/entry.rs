//! Entries of the verifier log: what the prover writes and a verifier thread reads.

use alloc::vec::Vec;

use crate::chain::Incarnation;
use crate::codec::{Malformed, Reader};
use crate::crypto::Mac;
use crate::key::Key;
use crate::machine::{KEYS_PER_OPERATION_MAX, Role};
use crate::request::RESUME_BYTES;
use crate::time::Timestamp;
use crate::value::Value;

/// Index into a thread's verified cache.
pub type Slot = u32;

/// Number of a verifier thread.
pub type ThreadId = u16;

/// The slots that a `run` names, one for each key of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    count: u8,
    slots: [Slot; KEYS_PER_OPERATION_MAX],
}

impl Slots {
    /// `None` if there are none, or more than [`KEYS_PER_OPERATION_MAX`].
    pub fn new(named: &[Slot]) -> Option<Self> {
        let mut slots = [0; KEYS_PER_OPERATION_MAX];
        slots.get_mut(..named.len())?.copy_from_slice(named);
        (!named.is_empty()).then_some(Self {
            count: named.len() as u8, // at most KEYS_PER_OPERATION_MAX, or get_mut had failed
            slots,
        })
    }

    /// The slots, in the order of the operation's keys.
    pub fn as_slice(&self) -> &[Slot] {
        &self.slots[..usize::from(self.count)]
    }
}

/// One entry of the verifier log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are those of the protocol's table
pub enum Entry<'a> {
    /// Add a record that its parent in the cache proves.
    AddMerkle {
        slot: Slot,
        parent: Slot,
        key: Key,
        value: Value,
    },
    /// Evict a record, and write its hash into its parent.
    EvictMerkle { slot: Slot, parent: Slot },
    /// Add a record that was evicted to Blum at `ts` by `thread`.
    AddBlum {
        slot: Slot,
        ts: Timestamp,
        thread: ThreadId,
        key: Key,
        value: Value,
    },
    /// Evict to Blum a record that was added from Blum.
    EvictBlum { slot: Slot, ts: Timestamp },
    /// Evict to Blum a record that was added by Merkle, and note it in its parent.
    EvictBlumMerkle { slot: Slot, parent: Slot, ts: Timestamp },
    /// Begin to close the epoch. Nothing is cached.
    NextEpoch,
    /// Take a record over that was evicted to Blum at `ts` by `thread`, from the closing epoch to the start of the next.
    CarryOver {
        ts: Timestamp,
        thread: ThreadId,
        key: Key,
        value: Value,
    },
    /// Hand the closing epoch over.
    VerifyEpoch,
    /// Move the clock by one.
    Tick,
    /// Admit a client's request.
    Request(&'a [u8]),
    /// Run the next operation on the records in these slots.
    Run(Slots),
    /// Run the next operation, which leaves null what is null, on a key that is not in the tree, as this parent proves.
    RunAbsent { parent: Slot },
    /// Admit a client's resume.
    Resume(&'a [u8; RESUME_BYTES]),
    /// What is replayed next was admitted by this incarnation.
    ReplayMark(&'a Incarnation),
    /// Replay a request that an earlier incarnation admitted in this role, or refused.
    Replay { role: Option<Role>, request: &'a [u8] },
    /// End the replay, whose last tag is this.
    EndReplay(&'a Mac),
}

impl<'a> Entry<'a> {
    /// Read one entry.
    #[inline(always)] // the verifier reads it once for each entry: what is read is not copied on its way, a tenth of its time
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match reader.u8()? {
            1 => Self::AddMerkle {
                slot: reader.u32()?,
                parent: reader.u32()?,
                key: Key::decode(reader)?,
                value: Value::decode(reader)?,
            },
            2 => Self::EvictMerkle {
                slot: reader.u32()?,
                parent: reader.u32()?,
            },
            3 => Self::AddBlum {
                slot: reader.u32()?,
                ts: Timestamp::from_u64(reader.u64()?),
                thread: reader.u16()?,
                key: Key::decode(reader)?,
                value: Value::decode(reader)?,
            },
            4 => Self::EvictBlum {
                slot: reader.u32()?,
                ts: Timestamp::from_u64(reader.u64()?),
            },
            5 => Self::EvictBlumMerkle {
                slot: reader.u32()?,
                parent: reader.u32()?,
                ts: Timestamp::from_u64(reader.u64()?),
            },
            6 => Self::NextEpoch,
            7 => Self::VerifyEpoch,
            8 => Self::Tick,
            9 => {
                let length = reader.u32()? as usize;
                Self::Request(reader.take(length)?)
            }
            10 => {
                let count = usize::from(reader.u8()?);
                let mut slots = [0; KEYS_PER_OPERATION_MAX];
                for slot in slots.get_mut(..count).ok_or(Malformed)? {
                    *slot = reader.u32()?;
                }
                Self::Run(Slots::new(&slots[..count]).ok_or(Malformed)?)
            }
            11 => Self::RunAbsent { parent: reader.u32()? },
            12 => Self::Resume(reader.array()?),
            13 => Self::ReplayMark(reader.array()?),
            14 => {
                let role = match reader.u8()? {
                    0 => None,
                    role => Some(Role::from_u8(role).ok_or(Malformed)?),
                };
                let length = reader.u32()? as usize;
                Self::Replay {
                    role,
                    request: reader.take(length)?,
                }
            }
            15 => Self::EndReplay(reader.array()?),
            16 => Self::CarryOver {
                ts: Timestamp::from_u64(reader.u64()?),
                thread: reader.u16()?,
                key: Key::decode(reader)?,
                value: Value::decode(reader)?,
            },
            _ => return Err(Malformed),
        })
    }

    /// Append the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::AddMerkle {
                slot,
                parent,
                key,
                value,
            } => {
                start(out, 1, &[*slot, *parent]);
                out.extend_from_slice(&key.encode());
                value.encode(out);
            }
            Self::EvictMerkle { slot, parent } => start(out, 2, &[*slot, *parent]),
            Self::AddBlum {
                slot,
                ts,
                thread,
                key,
                value,
            } => {
                start(out, 3, &[*slot]);
                evicted(out, *ts, *thread, key, value);
            }
            Self::EvictBlum { slot, ts } => {
                start(out, 4, &[*slot]);
                out.extend_from_slice(&ts.to_u64().to_le_bytes());
            }
            Self::EvictBlumMerkle { slot, parent, ts } => {
                start(out, 5, &[*slot, *parent]);
                out.extend_from_slice(&ts.to_u64().to_le_bytes());
            }
            Self::NextEpoch => out.push(6),
            Self::VerifyEpoch => out.push(7),
            Self::Tick => out.push(8),
            Self::Request(request) => {
                // a request is bounded far below 4 GiB by whoever received it
                start(out, 9, &[request.len() as u32]);
                out.extend_from_slice(request);
            }
            Self::Run(slots) => {
                out.extend_from_slice(&[10, slots.count]);
                for slot in slots.as_slice() {
                    out.extend_from_slice(&slot.to_le_bytes());
                }
            }
            Self::RunAbsent { parent } => start(out, 11, &[*parent]),
            Self::Resume(resume) => {
                out.push(12);
                out.extend_from_slice(*resume);
            }
            Self::ReplayMark(incarnation) => {
                out.push(13);
                out.extend_from_slice(*incarnation);
            }
            Self::Replay { role, request } => {
                out.extend_from_slice(&[14, role.map_or(0, |role| role as u8)]);
                out.extend_from_slice(&(request.len() as u32).to_le_bytes()); // as for a request
                out.extend_from_slice(request);
            }
            Self::EndReplay(tag) => {
                out.push(15);
                out.extend_from_slice(*tag);
            }
            Self::CarryOver { ts, thread, key, value } => {
                out.push(16);
                evicted(out, *ts, *thread, key, value);
            }
        }
    }
}

fn evicted(out: &mut Vec<u8>, ts: Timestamp, thread: ThreadId, key: &Key, value: &Value) {
    out.extend_from_slice(&ts.to_u64().to_le_bytes());
    out.extend_from_slice(&thread.to_le_bytes());
    out.extend_from_slice(&key.encode());
    value.encode(out);
}

fn start(out: &mut Vec<u8>, kind: u8, fields: &[u32]) {
    out.push(kind);
    for field in fields {
        out.extend_from_slice(&field.to_le_bytes());
    }
}
