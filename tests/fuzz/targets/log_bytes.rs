//! A verifier thread that is fed with bytes, in pieces: it answers or fails, and stays so.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zetakv_fuzz::{Input, decoder_bytes_max, service, within};
use zetakv_verifier::Progress;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::entry::Entry;
use zetakv_verifier::machine::Role;
use zetakv_verifier::output::Output;

/// Entries that can be read are written as the same bytes.
fn check_encoding(log: &[u8]) {
    let mut reader = Reader::new(log);
    let mut again = Vec::new();
    while reader.remaining() > 0 {
        let Ok(entry) = Entry::decode(&mut reader) else { break };
        entry.encode(&mut again);
        assert_eq!(again, log[..log.len() - reader.remaining()]);
    }
}

fuzz_target!(|bytes: &[u8]| {
    check_encoding(bytes);
    let clocks = service::clocks();
    let mut verifier = service::verifier(Role::Admin, &clocks);
    let mut input = Input(bytes);
    within(decoder_bytes_max(bytes), || {
        while !input.is_empty() {
            let mut outputs = Vec::new();
            let progress = verifier.process(input.counted(), &mut outputs);
            if let Progress::Failed(violation) = progress {
                assert!(outputs.is_empty(), "nothing leaves with a violation");
                assert_eq!(
                    verifier.process(&[8], &mut outputs),
                    Progress::Failed(violation),
                    "it is final"
                );
                assert!(
                    verifier
                        .take_snapshot()
                        .is_none_or(|snapshot| snapshot.epoch < violation.epoch)
                );
            }
            let mut reader = Reader::new(&outputs);
            while reader.remaining() > 0 {
                Output::decode(&mut reader).expect("outputs are well-formed");
            }
            if verifier.take_snapshot().is_some() {
                clocks.certify(verifier.clock().epoch - 1);
            }
        }
    });
});
