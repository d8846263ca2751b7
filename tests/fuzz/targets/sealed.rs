//! Sealed states and tickets with anything in them, sealed with the right key: what can be read is what is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zetakv_fuzz::{decoder_bytes_max, within};
use zetakv_monitor::envelope::{self, Purpose};
use zetakv_monitor::identity::{Identity, Secret};
use zetakv_monitor::register::Commitment;
use zetakv_monitor::sealed::{SealedState, Standing, sealed_hash};
use zetakv_monitor::ticket;

fn check_state(content: &[u8], key: &Secret) {
    let sealed = envelope::seal(key, Purpose::State, content).expect("random bytes");
    let Ok(state) = SealedState::open(&sealed, key) else {
        return;
    };
    let again = state.seal(key).expect("random bytes");
    assert_eq!(
        *envelope::open(key, Purpose::State, &again).expect("its own"),
        content,
        "one encoding for each state"
    );
    let _ = state.certify(&Identity::derive(key));
    let _ = Standing::of(&state, &sealed_hash(&sealed), &Commitment::default());
}

fn check_ticket(content: &[u8], key: &Secret) {
    let sealed = envelope::seal(key, Purpose::Ticket, content).expect("random bytes");
    let Ok((number, session)) = ticket::open(&sealed, key) else {
        return;
    };
    let again = ticket::seal(number, &session, key).expect("random bytes");
    assert_eq!(
        *envelope::open(key, Purpose::Ticket, &again).expect("its own"),
        content,
        "one encoding for each ticket"
    );
}

fuzz_target!(|bytes: &[u8]| {
    let key = Secret::new([3; 32]);
    within(decoder_bytes_max(bytes), || {
        let _ = SealedState::open(bytes, &key); // not authentic
        match bytes.split_first() {
            Some((0, content)) => check_ticket(content, &key),
            Some((_, content)) => check_state(content, &key),
            None => {}
        }
    });
});
