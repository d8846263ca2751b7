//! Rows of the store: what can be read is written as the same bytes, and the audit of a store takes anything.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zetakv_fuzz::{Input, decoder_bytes_max, within};
use zetakv_prover::Audit;
use zetakv_prover::rows::{
    HOT_PREFIX, Marked, RecordRow, decode_hot_key, decode_node, decode_node_key, encode_node, hot_key, node_key,
};

fn record(row: &[u8]) {
    if let Ok(record) = RecordRow::decode(row) {
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(again, row, "one encoding for each record");
    }
}

fn node(store_key: &[u8], row: &[u8]) {
    let Ok(key) = decode_node_key(store_key) else { return };
    assert_eq!(node_key(&key), store_key, "one store key for each node");
    if let Ok((node, _)) = decode_node(&key, row) {
        let mut again = Vec::new();
        encode_node(&key, &node, &mut again);
        let _ = decode_node(&key, &again).expect("what is written can be read");
    }
}

fn hot(store_key: &[u8]) {
    match decode_hot_key(store_key) {
        Ok(Marked::Node(key)) => assert_eq!(hot_key(&key, false), store_key, "one marker for each node"),
        Ok(Marked::Record(record)) => {
            let marker = [&[HOT_PREFIX], &record[1..], &[0]].concat();
            assert_eq!(marker, store_key, "one marker for each record");
        }
        Err(_) => {}
    }
}

fn audit(input: &mut Input<'_>) {
    let threads = 1 << (input.u8() % 7);
    let root = input.counted();
    let Ok(mut audit) = Audit::new(threads, (!root.is_empty()).then_some(root)) else {
        return;
    };
    let mut rows = || -> Vec<_> {
        let count = input.u8() % 8;
        (0..count).map(|_| (input.counted(), input.counted())).collect()
    };
    let (nodes, markers) = (rows(), rows());
    let markers: Vec<_> = markers.into_iter().map(|(key, _)| key).collect();
    audit.begin(&nodes, &markers);
    audit.records(&rows());
    audit.end();
    let _ = audit.take_blum();
    let _ = audit.findings();
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    within(4 * decoder_bytes_max(bytes), || match input.u8() % 4 {
        0 => record(input.0),
        1 => node(input.counted(), input.0),
        2 => hot(input.0),
        _ => audit(&mut input),
    });
});
