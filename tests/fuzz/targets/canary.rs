//! A fault that only guidance by coverage finds in a short time: if this target does not fail, nothing that is fuzzed would.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    for expected in *b"ZetaKV" {
        match rest.split_first() {
            Some((byte, others)) if *byte == expected => rest = others,
            _ => return,
        }
    }
    panic!("the canary is found");
});
