//! A host that lies in its verifier log: an honest prover's log is changed on its way to the verifier. If the epoch is certified all the
//! same, every receipt in it was right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zetakv_fuzz::Input;
use zetakv_fuzz::service::{Operation, SESSION, Service};
use zetakv_verifier::Progress;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::entry::Entry;
use zetakv_verifier::kv::Action;
use zetakv_verifier::output::Output;
use zetakv_verifier::value::Commitment;

/// Rounds of a run at the most, so that one input cannot take long.
const ROUNDS_MAX: usize = 40;

fn value(input: &mut Input<'_>) -> Commitment {
    Commitment::of(&[input.u8() % 4])
}

fn operation(input: &mut Input<'_>) -> Operation {
    let key = vec![input.u8() % 12];
    let action = match input.u8() % 8 {
        0..3 => Action::Get,
        3 => Action::Put(value(input)),
        4 => Action::Insert(value(input)),
        5 => Action::CompareAndSet(value(input), value(input)),
        6 => Action::Increment(i64::from(input.u8())),
        _ => Action::Delete,
    };
    (key, action)
}

/// The entries of a log, each as its bytes.
fn entries(log: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = Reader::new(log);
    let mut entries = Vec::new();
    while reader.remaining() > 0 {
        let start = log.len() - reader.remaining();
        Entry::decode(&mut reader).expect("the prover writes entries");
        entries.push(log[start..log.len() - reader.remaining()].to_vec());
    }
    entries
}

/// What the liar does to one piece of the log; `seen` is what it has seen before.
fn change(input: &mut Input<'_>, entries: &mut Vec<Vec<u8>>, seen: &[Vec<u8>]) {
    if entries.is_empty() {
        return;
    }
    let at = input.below(entries.len());
    match input.u8() % 8 {
        0 => {
            entries.remove(at);
        }
        1 => entries.insert(at, entries[at].clone()),
        2 => {
            let other = input.below(entries.len());
            entries.swap(at, other);
        }
        3 if !seen.is_empty() => entries.insert(at, seen[input.below(seen.len())].clone()),
        4 if !seen.is_empty() => entries[at] = seen[input.below(seen.len())].clone(),
        5 => entries[at] = input.counted().to_vec(),
        _ => {
            let entry = &mut entries[at];
            let byte = input.below(entry.len());
            entry[byte] ^= input.u8();
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let (mut service, mut seen, mut cut_is_asked) = (Service::default(), Vec::new(), false);
    let mut is_honest = true;
    for round in 0..ROUNDS_MAX {
        if !cut_is_asked && (input.is_empty() || round == ROUNDS_MAX / 2) {
            cut_is_asked = service.prover.start_cut(input.u8() % 2 == 0).is_ok();
        }
        for _ in 0..input.u8() % 3 {
            let count = 1 + input.below(3);
            service.send((0..count).map(|_| operation(&mut input)).collect());
        }
        let Some(log) = service.log() else { return };
        let mut piece = entries(&log);
        for _ in 0..input.u8() % 3 {
            change(&mut input, &mut piece, &seen);
        }
        let changed = piece.concat();
        is_honest &= changed == log;
        seen.extend(entries(&log));
        let mut outputs = Vec::new();
        match service.verifier.process(&changed, &mut outputs) {
            Progress::Done => {}
            Progress::Waiting { .. } | Progress::Failed(_) if !is_honest => return,
            accused => panic!("an honest host is accused: {accused:?}"),
        }
        let mut reader = Reader::new(&outputs);
        while reader.remaining() > 0 {
            if let Output::Receipt(receipt) = Output::decode(&mut reader).expect("outputs are well-formed") {
                service.check_receipt(receipt);
            }
        }
        assert!(service.is_right || !is_honest);
        if let Some(snapshot) = service.verifier.take_snapshot() {
            match service.aggregator.submit(snapshot, &service.crypto) {
                Ok(held) => {
                    let held = held.expect("there is one thread");
                    assert!(service.is_right, "a wrong answer is certified");
                    service.clocks.certify(held.epoch);
                }
                Err(violation) => {
                    assert!(!is_honest, "an honest host is accused: {violation:?}");
                    return;
                }
            }
        }
        // to the prover the monitor seems to lie; it may refuse, and must not panic
        if service.prover.absorb(&outputs).is_err() {
            assert!(!is_honest, "session {SESSION}");
            return;
        }
        if let Some(epoch) = service.prover.handed_over() {
            let Ok(packed) = service.prover.take_checkpoint() else {
                return;
            };
            service.checkpoint(&packed);
            let _ = service.prover.release_checkpoint(epoch);
            cut_is_asked = false;
            if input.is_empty() {
                return;
            }
        }
    }
});
