//! The offline check of a copy's records in Blum: whether they are those that a sealed state carries over to the next epoch.
//!
//! The records in Merkle are pinned by the root's value, which this prints, and are checked by whoever walks the tree. Those in Blum are
//! pinned only by a secret sum: so this needs the monitor's keys. It says yes or no, and never shows a sum; it is an oracle for nobody but
//! who has `root.key`.

use std::io::Read;

use zetakv_verifier::codec::{Malformed, Reader};
use zetakv_verifier::crypto::{Crypto as _, Element};
use zetakv_verifier::key::{Key, LEAF_DEPTH};
use zetakv_verifier::standard_crypto::{StandardCrypto, Sum};
use zetakv_verifier::time::Timestamp;
use zetakv_verifier::value::Value;

use zetakv_monitor::error as monitor;
use zetakv_monitor::identity::to_hex;
use zetakv_monitor::sealed::{SealedState, Standing, sealed_hash};
use zetakv_monitor::state_dir::StateDirectory;
use zetakv_monitor::wire::LOG_BYTES_MAX;

use crate::{Error, sealed_states};

/// Bytes of one record at the most: its key, thread and the value of a node with two sides.
const RECORD_BYTES_MAX: usize = 256;
/// Bytes of input that are read at once.
const INPUT_BYTES: usize = 64 * 1024;
const MALFORMED: &str = "the input of the check is cut off or malformed";

/// Check the copy that `input` describes: one line of JSON.
pub fn check(directory: &StateDirectory, mut input: impl Read) -> Result<String, Error> {
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(|_| MALFORMED)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LOG_BYTES_MAX {
        return Err(MALFORMED.into());
    }
    let mut sealed = vec![0; length];
    input.read_exact(&mut sealed).map_err(|_| MALFORMED)?;
    let state = sealed_states::open(directory, &sealed)?;
    let committed = directory.register().read()?;
    let is_latest = Standing::of(&state, &sealed_hash(&sealed), &committed) == Standing::Latest;
    let mut root = Vec::new();
    Value::Node(state.root).encode(&mut root);
    let blum_matches = blum_matches(directory, &state, input)?;
    Ok(format!(
        "{{\"instance\": \"{}\", \"epoch\": {}, \"root\": \"{}\", \"blum_matches\": {blum_matches}, \"is_latest\": {is_latest}}}\n",
        to_hex(&state.instance),
        state.epoch()?,
        to_hex(&root),
    ))
}

/// Whether the records that `input` lists, after the number of threads, are those that the state carries over.
fn blum_matches(directory: &StateDirectory, state: &SealedState, mut input: impl Read) -> Result<bool, Error> {
    let epoch = state.epoch()?.checked_add(1).ok_or(monitor::Error::NoMoreEpochs)?;
    let mut crypto = StandardCrypto::new(*directory.identity.multiset_secret);
    crypto.prepare_epoch(epoch);
    let mut sum = Sum::default();
    let mut threads = [0; 2];
    input.read_exact(&mut threads).map_err(|_| MALFORMED)?;
    let threads = u16::from_le_bytes(threads);
    let mut add = |record: &mut Reader<'_>| -> Result<(), Malformed> {
        let (key, thread, value) = (Key::decode(record)?, record.u16()?, Value::decode(record)?);
        if thread >= threads || value.is_leaf() != (key.depth() == LEAF_DEPTH) {
            return Err(Malformed);
        }
        let element = Element {
            key: &key,
            value: &value,
            ts: Timestamp::new(epoch, 0),
            thread,
        };
        crypto.add_element(epoch, &mut sum, &element);
        Ok(())
    };
    let mut records = Vec::with_capacity(INPUT_BYTES + RECORD_BYTES_MAX);
    loop {
        let read = input.by_ref().take(INPUT_BYTES as u64).read_to_end(&mut records)?;
        let at_end = read == 0;
        let mut reader = Reader::new(&records);
        while reader.remaining() >= RECORD_BYTES_MAX || (at_end && reader.remaining() > 0) {
            add(&mut reader).map_err(|Malformed| MALFORMED)?;
        }
        let rest = records.len() - reader.remaining();
        records.drain(..rest);
        if at_end {
            return Ok(crypto.equal(&sum, &state.carried));
        }
    }
}
