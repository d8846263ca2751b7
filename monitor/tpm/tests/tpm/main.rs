//! The register in a TPM, against `swtpm`: honest use, crashes between every two steps, and those who delete, swap, put back and lie.

mod swtpm;

use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};
use swtpm::{Fault, INDEX, SoftwareTpm, faulty, interrupted};
use zetakv_monitor::error::Error;
use zetakv_monitor::register::{Commitment, TrustedRegister};

/// Commands of a commit: start a session, read, extend, read, end the session.
const COMMIT_COMMANDS: usize = 5;

const fn to(byte: u8) -> Commitment {
    Commitment {
        sealed: [byte; 32],
        incarnation: [byte; 16],
    }
}

fn text<T>(result: Result<T, Error>) -> String {
    result.err().expect("refused").to_string()
}

#[test]
fn it_holds_the_last_commitment_and_tpm2_tools_see_the_same() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let mut register = tpm.register(1, "file");
    assert!(text(register.read()).contains("does not exist"));
    register.initialize(&to(0)).expect("defined");
    let mut digest = Vec::from([0; 32]);
    for byte in 0..4 {
        if byte > 0 {
            register.commit(&to(byte - 1), &to(byte)).expect("committed");
        }
        assert_eq!(tpm.register(1, "file").read().expect("readable"), to(byte));
        let mut domain = [0; 32];
        domain[..17].copy_from_slice(b"zetakv/1 register");
        let data = blake3::keyed_hash(&domain, &[byte; 48]);
        digest = Sha256::digest([digest.as_slice(), data.as_bytes()].concat()).to_vec();
        assert_eq!(tpm.digest(), digest);
    }
    assert!(matches!(register.commit(&to(1), &to(9)), Err(Error::RegisterChanged)));
    assert_eq!(register.read().expect("readable"), to(3));
    let public = String::from_utf8(tpm.tool("tpm2_nvreadpublic", &[])).expect("text");
    for attribute in [
        "0x1800100",
        "authwrite",
        "value: 0x22060044",
        "ownerread",
        "authread",
        "no_da",
        "written",
    ] {
        assert!(public.contains(attribute), "{attribute} in {public}");
    }
    assert!(
        !public.contains("ownerwrite") && !public.contains("policywrite"),
        "{public}"
    );
}

#[test]
fn a_crash_between_any_two_steps_leaves_the_old_or_the_new() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    tpm.register(1, "file").initialize(&to(0)).expect("defined");
    let mut present = to(0);
    let (mut kept, mut moved) = (0, 0);
    for step in 0..COMMIT_COMMANDS {
        for fault in [Fault::CrashBefore(step), Fault::CrashAfter(step)] {
            let next = to(10 + 2 * step as u8 + u8::from(matches!(fault, Fault::CrashAfter(_))));
            let connect = faulty(tpm.connect(), fault);
            let result = tpm.register_through(connect, 1, "file").commit(&present, &next);
            // after it, another process; which finds room for its session though the one before left its own behind
            let found = tpm.register(1, "file").read().expect("readable after a crash");
            assert!(found == present || found == next, "{fault:?}");
            assert!(
                result.is_err() || found == next,
                "{fault:?}: what was said to be committed is"
            );
            kept += usize::from(found == present);
            moved += usize::from(found == next);
            present = found;
            let again = to(100 + 2 * step as u8 + u8::from(matches!(fault, Fault::CrashAfter(_))));
            tpm.register(1, "file").commit(&present, &again).expect("it goes on");
            present = again;
        }
    }
    assert_eq!((kept, moved), (5, 5), "crashes on both sides of the extension");
}

#[test]
fn a_crash_in_the_setting_up_can_be_done_again_with_the_same_key() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    for step in 0..7 {
        let connect = faulty(tpm.connect(), Fault::CrashAfter(step));
        // the last ones have done all that matters
        let _ = tpm.register_through(connect, 1, "file").initialize(&to(1));
        tpm.register(1, "file").initialize(&to(0)).expect("again");
        assert_eq!(tpm.register(1, "file").read().expect("readable"), to(0), "{step}");
        tpm.tool("tpm2_nvundefine", &["-C", "o", &format!("{INDEX:#x}")]);
    }
}

#[test]
fn a_file_that_is_put_back_swapped_changed_or_lost_is_not_believed() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let mut register = tpm.register(1, "file");
    register.initialize(&to(0)).expect("defined");
    register.commit(&to(0), &to(1)).expect("committed");
    let old = std::fs::read(&register.path).expect("written");
    register.commit(&to(1), &to(2)).expect("committed");
    register.commit(&to(2), &to(3)).expect("committed");
    let good = std::fs::read(&register.path).expect("written");

    std::fs::write(&register.path, &old).expect("put back");
    assert!(matches!(register.read(), Err(Error::RegisterPutBack(_))));
    assert!(matches!(
        register.commit(&to(1), &to(9)),
        Err(Error::RegisterPutBack(_))
    ));
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1;
        std::fs::write(&register.path, &bad).expect("changed");
        if let Ok(found) = register.read() {
            assert_eq!(
                found,
                to(3),
                "byte {index}: of the commitment before, which does not matter"
            );
            assert!(index < 4 + 80, "byte {index}");
        }
    }
    std::fs::write(&register.path, &good[..good.len() - 1]).expect("cut");
    assert!(matches!(register.read(), Err(Error::RegisterPutBack(_))));
    std::fs::remove_file(&register.path).expect("lost");
    assert!(text(register.read()).contains("missing"));

    // another index's file, of the same monitor
    let mut other = tpm.register(1, "other");
    other.index = INDEX + 1;
    other.initialize(&to(3)).expect("defined");
    std::fs::copy(&other.path, &register.path).expect("swapped");
    assert!(matches!(register.read(), Err(Error::RegisterPutBack(_))));

    // an operator decides to go on: from what the TPM holds, whatever that was
    register.initialize(&to(7)).expect("set up again");
    assert_eq!(register.read().expect("readable"), to(7));
    std::fs::write(&register.path, &good).expect("put back");
    assert!(matches!(register.read(), Err(Error::RegisterPutBack(_))));
}

#[test]
fn of_two_copies_of_a_directory_one_at_the_most_commits() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let mut one = tpm.register(1, "one");
    one.initialize(&to(0)).expect("defined");
    let mut two = tpm.register(1, "two");
    std::fs::copy(&one.path, &two.path).expect("copied");
    one.commit(&to(0), &to(1)).expect("the first");
    assert!(matches!(two.commit(&to(0), &to(2)), Err(Error::RegisterPutBack(_))));

    // the other one comes between the steps of the first
    let mut first_ones = 0;
    for step in 0..COMMIT_COMMANDS {
        let present = one.read().expect("readable");
        std::fs::copy(&one.path, &two.path).expect("copied");
        let second = Arc::new(Mutex::new((tpm.register(1, "two"), None)));
        let other = Arc::clone(&second);
        let connect = interrupted(tpm.connect(), step, move || {
            let (two, committed) = &mut *other.lock().expect("ours");
            *committed = Some(two.commit(&present, &to(200)).is_ok());
        });
        let first = tpm.register_through(connect, 1, "one").commit(&present, &to(100));
        let second = second.lock().expect("ours").1.expect("it was tried");
        assert!(!(first.is_ok() && second), "step {step}: both have committed");
        first_ones += usize::from(first.is_ok());
        one.initialize(&to(step as u8)).expect("set up again");
    }
    assert_eq!(first_ones, 2, "only when the other came after the extension");
}

#[test]
fn an_index_that_is_deleted_redefined_or_of_another_key_is_noticed() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    let name = format!("{INDEX:#x}");
    let mut register = tpm.register(1, "file");
    register.initialize(&to(0)).expect("defined");
    assert!(text(tpm.register(2, "file").read()).contains("another authorization value"));
    assert!(text(tpm.register(2, "new").initialize(&to(0))).contains("another authorization value"));
    assert_eq!(register.read().expect("no harm was done"), to(0));

    tpm.tool("tpm2_nvundefine", &["-C", "o", &name]);
    assert!(text(register.read()).contains("does not exist"));
    assert!(register.commit(&to(0), &to(1)).is_err());
    // the same kind again, by somebody who does not know the authorization value
    let attributes = "authwrite|authread|ownerread|no_da|nt=extend";
    let define = |attributes: &str, auth: &str| {
        tpm.tool(
            "tpm2_nvdefine",
            &[&name, "-C", "o", "-g", "sha256", "-a", attributes, "-p", auth],
        );
    };
    define(attributes, "hex:0202");
    assert!(register.read().is_err());
    assert!(text(register.initialize(&to(0))).contains("another authorization value"));
    tpm.tool("tpm2_nvundefine", &["-C", "o", &name]);
    // of the same authorization value, but never extended
    let known = format!("hex:{}", "01".repeat(32));
    define(attributes, &known);
    assert!(register.read().is_err());
    tpm.tool("tpm2_nvundefine", &["-C", "o", &name]);
    // another kind: an ordinary one, which its owner could write to
    tpm.tool(
        "tpm2_nvdefine",
        &[
            &name,
            "-C",
            "o",
            "-s",
            "32",
            "-a",
            "authwrite|authread|ownerwrite|ownerread",
            "-p",
            &known,
        ],
    );
    assert!(register.read().is_err());
    assert!(text(register.initialize(&to(0))).contains("of another kind"));
    tpm.tool("tpm2_nvundefine", &["-C", "o", &name]);

    register.initialize(&to(5)).expect("an operator sets it up again");
    tpm.tool("tpm2_clear", &[]);
    assert!(text(register.read()).contains("the TPM was cleared"));
}

#[test]
fn whoever_sits_between_can_stop_but_not_lie() {
    let Some(tpm) = SoftwareTpm::start() else { return };
    tpm.register(1, "file").initialize(&to(0)).expect("defined");
    tpm.register(1, "file").commit(&to(0), &to(1)).expect("committed");
    // every byte of each response to a read: session, digest; the end of the session is of no interest
    for (command, bytes) in [(0, 48), (1, 10 + 4 + 34 + 34 + 1 + 34)] {
        for byte in 0..bytes {
            let connect = faulty(tpm.connect(), Fault::ChangeResponse(command, byte));
            if let Ok(found) = tpm.register_through(connect, 1, "file").read() {
                assert_eq!(found, to(1), "response {command}, byte {byte}");
            }
        }
    }
    // every byte of the commands that a commit needs: it may fail, but whatever is said to be committed is
    let mut present = to(1);
    let mut committed = 0;
    for command in 0..4 {
        for byte in (0..140).step_by(3) {
            let next = to(if present == to(2) { 3 } else { 2 });
            let connect = faulty(tpm.connect(), Fault::ChangeCommand(command, byte));
            let result = tpm.register_through(connect, 1, "file").commit(&present, &next);
            let found = tpm.register(1, "file").read().expect("readable");
            assert!(found == present || found == next, "command {command}, byte {byte}");
            if result.is_ok() {
                assert_eq!(found, next, "command {command}, byte {byte}");
                committed += 1;
            }
            present = found;
        }
    }
    assert!(committed > 0, "bytes beyond the end of a command change nothing");
}
