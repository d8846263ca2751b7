//! The operator's program: inspect, override, check.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use zetakv_monitor::identity::to_hex;
use zetakv_monitor::overrides::Override;
use zetakv_verifier::key::Key;
use zetakv_verifier::value::Value;

use crate::client::Client;
use crate::host::{Control, Log, add_carried, add_first, evict, evict_first, leaf, value};
use crate::monitor_process::{MonitorProcess, Scratch};
use crate::service::{ROLLBACK, certificate_hash, cut_with, put_and_get};

/// Run the operator's program with a command; what it printed, or its complaint.
fn ask(scratch: &Scratch, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_zetakv-monitor-operator"))
        .args(arguments)
        .arg("--state")
        .arg(scratch.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // refused when the monitor has complained before it read
    let _ = child.stdin.take().expect("piped").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn ask_json(scratch: &Scratch, command: &str, input: &[u8]) -> serde_json::Value {
    let answer = ask(scratch, &[command], input).expect("it answers");
    serde_json::from_slice(&answer).expect("one line of JSON")
}

fn standing(scratch: &Scratch, sealed: &[u8]) -> String {
    let standing = ask_json(scratch, "inspect", sealed)["standing"].clone();
    standing.as_str().expect("a name").to_owned()
}

pub fn override_with(scratch: &Scratch, key: &Path, more: &[&str], sealed: &[u8]) -> Result<Vec<u8>, String> {
    let key = key.to_str().expect("UTF-8");
    let arguments = [&["override", "--admin-key", key, "--reason", "disk lost"], more].concat();
    ask(scratch, &arguments, sealed)
}

/// The service after two epochs, stopped: the sealed states and certificates of both. A record `k` is `one`, then `two`.
fn two_epochs(scratch: &Scratch) -> [(Vec<u8>, Vec<u8>); 2] {
    let monitor = MonitorProcess::start(scratch, &[]);
    let (mut control, _) = Control::start(&monitor, 1, &[]);
    let mut log = Log::open(&monitor, 0);
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&scratch.admin_key()), None).expect("the admin");
    log.process(&[add_first(leaf(b"k"))]);
    put_and_get(&mut log, &client, 0, 1, b"k", b"one");
    cut_with(&mut log, 1, evict_first(1), b"one");
    let first = (control.sealed(1), control.durable(1));
    log.process(&[add_carried(2, 0, b"one")]);
    put_and_get(&mut log, &client, 0, 2, b"k", b"two");
    cut_with(&mut log, 2, evict(2), b"two");
    [first, (control.sealed(2), control.durable(2))]
}

#[test]
fn an_override_continues_an_old_state_as_another_instance_once() {
    let scratch = Scratch::new();
    let [(first, first_certificate), (second, _)] = two_epochs(&scratch);
    let key = scratch.state().join("admin.key");
    assert_eq!(standing(&scratch, &second), "latest");
    assert_eq!(standing(&scratch, &first), "rolled_back");
    let old = ask_json(&scratch, "inspect", &first);
    assert_eq!(old["head"], to_hex(&*certificate_hash(&first_certificate)));
    assert_eq!((&old["epoch"], &old["clients"]), (&1.into(), &1.into()));

    let complaint = override_with(&scratch, &key, &[], &second).expect_err("nothing to override");
    assert!(complaint.contains("nothing to override"), "{complaint}");
    let complaint = override_with(&scratch, &key, &["--register-lost"], &first).expect_err("not lost");
    assert!(complaint.contains("can be read"), "{complaint}");
    let new = override_with(&scratch, &key, &[], &first).expect("the admin signs");
    let unused = override_with(&scratch, &key, &[], &first).expect("again");
    assert_eq!(standing(&scratch, &new), "override");
    let overridden = ask_json(&scratch, "inspect", &new);
    assert_eq!(
        (&overridden["epoch"], &overridden["head"]),
        (&old["epoch"], &old["head"])
    );
    assert_ne!(overridden["instance"], old["instance"]);

    // nothing has happened yet: the latest would still start. What is started from is what counts
    assert_eq!(standing(&scratch, &second), "latest");
    let monitor = MonitorProcess::start(&scratch, &[]);
    assert_eq!(Control::start_refused(&monitor, &first), ROLLBACK);
    let complaint = ask(&scratch, &["inspect"], &first).expect_err("locked");
    assert!(complaint.contains("another monitor runs"), "{complaint}");
    let (mut control, started) = Control::start(&monitor, 1, &new);
    assert_eq!(to_hex(&started.instance), overridden["instance"].as_str().expect("hex"));
    assert_eq!(started.epoch, 2);
    assert!(started.certificate.is_empty(), "that of epoch 1 is the old instance's");
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&scratch.admin_key()), None).expect("the admin");
    let [statement] = &client.overrides[..] else {
        panic!("{} overrides", client.overrides.len());
    };
    let told = Override::verify(statement).expect("signed");
    assert_eq!(told.new_instance(), started.instance);
    assert_eq!(
        started.overrides.iter().collect::<Vec<_>>(),
        [&told],
        "the host is told, too"
    );
    assert_eq!(told.admin_key, scratch.admin_key().verifying_key().to_bytes());
    assert_eq!(told.decision.reason, "disk lost");

    // epoch 2, again, from the record as it was: its certificate continues the chain, in the new instance's name
    let mut log = Log::open(&monitor, 0);
    log.process(&[add_carried(2, 0, b"one")]);
    put_and_get(&mut log, &client, 0, 1, b"k", b"three");
    cut_with(&mut log, 2, evict(2), b"three");
    let next = control.sealed(2);
    let certificate = control.durable(2);
    assert_eq!(certificate[4..20], started.instance);
    assert_eq!(certificate[36..40], 2u32.to_le_bytes());
    assert_eq!(certificate[40..72], *certificate_hash(&first_certificate));
    drop((control, log));
    for lost in [&first, &second, &new, &unused] {
        assert_eq!(Control::start_refused(&monitor, lost), ROLLBACK);
    }
    let (_control, again) = Control::start(&monitor, 1, &next);
    assert_eq!((again.instance, again.certificate), (started.instance, certificate));
    assert_eq!(again.overrides, started.overrides);
}

#[test]
fn only_an_admin_of_the_old_state_overrides_and_the_key_is_kept_from_others() {
    let scratch = Scratch::new();
    let [(first, _), _] = two_epochs(&scratch);
    let key = scratch.state().join("admin.key");
    let other = scratch.state().join("other.key");
    let complaint = override_with(&scratch, &other, &[], &first).expect_err("no file");
    assert!(complaint.contains("no such file"), "{complaint}");
    std::fs::copy(&key, &other).expect("a copy");
    std::fs::write(&other, format!("zetakv-key-1 {}\n", "11".repeat(32))).expect("written");
    let complaint = override_with(&scratch, &other, &[], &first).expect_err("not an admin");
    assert!(complaint.contains("not that of an admin"), "{complaint}");
    let mut changed = first.clone();
    changed[60] ^= 1;
    let complaint = override_with(&scratch, &key, &[], &changed).expect_err("changed");
    assert!(complaint.contains("not of this monitor"), "{complaint}");
    Command::new("chmod").arg("644").arg(&key).status().expect("chmod");
    let complaint = override_with(&scratch, &key, &[], &first).expect_err("readable by all");
    assert!(complaint.contains("chmod 600"), "{complaint}");
}

#[test]
fn a_lost_register_is_set_up_again_for_one_state_only() {
    let scratch = Scratch::new();
    let [(first, _), (second, _)] = two_epochs(&scratch);
    let key = scratch.state().join("admin.key");
    std::fs::remove_file(scratch.state().join("register")).expect("it is a file");
    let lost = ask_json(&scratch, "inspect", &second);
    assert_eq!(
        (&lost["standing"], &lost["register"]),
        (&"register_unreadable".into(), &serde_json::Value::Null)
    );
    let complaint = override_with(&scratch, &key, &[], &second).expect_err("the register is missing");
    assert!(complaint.contains("register is missing"), "{complaint}");
    let new = override_with(&scratch, &key, &["--register-lost"], &second).expect("the admin signs");

    let monitor = MonitorProcess::start(&scratch, &[]);
    for other in [&[], &first[..], &second] {
        assert_eq!(Control::start_refused(&monitor, other), ROLLBACK);
    }
    let (_control, started) = Control::start(&monitor, 1, &new);
    assert_eq!(started.epoch, 3);
    assert!(started.certificate.is_empty());
}

#[test]
fn a_copy_is_checked_against_what_its_sealed_state_carries_over() {
    let scratch = Scratch::new();
    let [(first, _), (second, _)] = two_epochs(&scratch);
    let copy = |sealed: &[u8], records: &[(Key, u16, Value)]| {
        let mut input = (sealed.len() as u32).to_le_bytes().to_vec();
        input.extend_from_slice(sealed);
        input.extend_from_slice(&1u16.to_le_bytes());
        for (key, thread, value) in records {
            input.extend_from_slice(&key.encode());
            input.extend_from_slice(&thread.to_le_bytes());
            value.encode(&mut input);
        }
        input
    };
    let record = |bytes: &[u8]| (leaf(b"k"), 0, value(bytes));
    let check = |input: &[u8]| ask_json(&scratch, "check", input);
    let good = check(&copy(&second, &[record(b"two")]));
    assert_eq!(
        (&good["blum_matches"], &good["is_latest"]),
        (&true.into(), &true.into())
    );
    assert_eq!(good["epoch"], 2);
    assert!(good["root"].as_str().is_some_and(|root| !root.is_empty()), "{good}");
    let old = check(&copy(&first, &[record(b"one")]));
    assert_eq!((&old["blum_matches"], &old["is_latest"]), (&true.into(), &false.into()));

    let wrong: [&[(Key, u16, Value)]; 4] = [
        &[],
        &[record(b"one")],
        &[record(b"two"), record(b"two")],
        &[record(b"two"), (leaf(b"l"), 0, value(b"two"))],
    ];
    for records in wrong {
        assert_eq!(check(&copy(&second, records))["blum_matches"], false);
    }
    // many records, so that they do not come in one piece
    let many: Vec<_> = (0..5000u32)
        .map(|i| (leaf(&i.to_le_bytes()), 0, value(b"two")))
        .collect();
    assert_eq!(check(&copy(&second, &many))["blum_matches"], false);
    let whole = copy(&second, &[record(b"two")]);
    for malformed in [
        copy(&second, &[(leaf(b"k"), 1, value(b"two"))]),
        copy(&second, &[(Key::ROOT, 0, value(b"two"))]),
        whole[..whole.len() - 1].to_vec(),
        whole[..second.len() + 5].to_vec(),
        [0xff; 5].to_vec(),
    ] {
        assert!(ask(&scratch, &["check"], &malformed).is_err());
    }
}
