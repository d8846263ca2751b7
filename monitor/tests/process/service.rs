//! The real process under an honest host: sessions, epochs, certificates, restarts.

use crate::client::{Client, TOKEN, assert_signed, get, put};
use crate::host::{
    Connection, Control, Log, add_carried, add_first, at, carry_over, evict, evict_first, leaf, run, value,
};
use crate::monitor_process::{MonitorProcess, Scratch};
use zetakv_monitor::wire::{OCCUPIED, kind};
use zetakv_verifier::entry::Entry;
use zetakv_verifier::machine::{OperationResult, Role};
use zetakv_verifier::output::Output;
use zetakv_verifier::value::Commitment;

pub const ROLLBACK: u16 = 41;
const SEALED_STATE_INVALID: u16 = 42;
const BAD_HOST_MESSAGE: u16 = 43;

/// Run a request with a `put` of `new` and a `get` on the record in slot 1.
pub fn put_and_get(log: &mut Log, client: &Client, thread: u16, sequence: u64, key: &[u8], new: &[u8]) -> u64 {
    let request = client.request(thread, sequence, &[put(key, new), get(key)]);
    let outputs = log.process(&[Entry::Request(&request), run(1), run(1)]);
    let [Output::Admitted(role), Output::Receipt(receipt)] = outputs.list()[..] else {
        panic!("{:?}", outputs.list());
    };
    assert_eq!(role as u8, client.role);
    let (ts, results) = client.check_receipt(&request, receipt);
    let expected = OperationResult::Value(Commitment::of(new));
    assert_eq!(results, [OperationResult::Ok, expected]);
    ts
}

/// Close an epoch on a thread that carries this over.
pub fn cut(log: &mut Log, epoch: u32, carried: &[Entry<'_>]) {
    let entries = [&[Entry::NextEpoch], carried, &[Entry::VerifyEpoch]].concat();
    assert_eq!(log.process(&entries).list(), [Output::HandedOver(epoch)]);
}

/// The same on thread 0, whose only record is `k`, in slot 1: it is evicted so, with this value.
pub fn cut_with(log: &mut Log, epoch: u32, evict: Entry<'_>, bytes: &[u8]) {
    assert!(log.process(&[evict]).list().is_empty());
    cut(log, epoch, &[carry_over(epoch, 0, bytes)]);
}

fn assert_certificate(certificate: &[u8], monitor: &MonitorProcess, client: &Client, epoch: u32) {
    assert_eq!(certificate.len(), 168);
    assert_eq!(certificate[..4], *b"ZKC1");
    assert_eq!(certificate[20..36], client.incarnation);
    assert_eq!(certificate[36..40], epoch.to_le_bytes());
    assert_signed(&monitor.fingerprint, &certificate[..104], &certificate[104..]);
}

#[test]
fn one_thread_through_epochs_restarts_and_rollbacks() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let admin = scratch.admin_key();
    let pinned = std::fs::read_to_string(scratch.state().join("fingerprint")).expect("a file");
    assert_eq!(
        pinned.trim_end(),
        zetakv_monitor::identity::to_hex(&monitor.fingerprint)
    );

    let (mut control, started) = Control::start(&monitor, 1, &[]);
    assert_eq!((started.epoch, started.open), (1, false));
    assert!(started.certificate.is_empty());
    let mut log = Log::open(&monitor, 0);
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&admin), None).expect("the admin");
    assert_eq!((client.role, client.session, client.epoch), (Role::Admin as u8, 1, 0));
    assert_eq!(client.incarnation, started.incarnation);

    // epoch 1: the record is new, and goes to Blum before the cut
    assert!(log.process(&[add_first(leaf(b"k"))]).list().is_empty());
    assert_eq!(put_and_get(&mut log, &client, 0, 1, b"k", b"one") >> 32, 1);
    cut_with(&mut log, 1, evict_first(1), b"one");
    let first = control.sealed(1);

    // no second cut before the certificate
    assert_eq!(log.process(&[Entry::NextEpoch]).list(), [Output::EpochNotYet]);
    assert!(log.process(&[add_carried(2, 0, b"one")]).list().is_empty());
    let first_certificate = control.durable(1);
    assert_certificate(&first_certificate, &monitor, &client, 1);

    // epoch 2
    put_and_get(&mut log, &client, 0, 2, b"k", b"two");
    cut_with(&mut log, 2, evict(2), b"two");
    let second = control.sealed(2);
    let second_certificate = control.durable(2);
    assert_certificate(&second_certificate, &monitor, &client, 2);
    let knows = Client::open(&mut control, &monitor.fingerprint, Some(&admin), None).expect("the admin");
    assert_eq!(knows.epoch, 2);
    assert_eq!(second_certificate[40..72], *certificate_hash(&first_certificate));
    assert_eq!(knows.head, *certificate_hash(&second_certificate));

    // what runs now is lost with the incarnation
    assert!(log.process(&[add_carried(3, 0, b"two")]).list().is_empty());
    put_and_get(&mut log, &client, 0, 3, b"k", b"lost");
    drop((control, log));

    // another process, and the same instance
    drop(monitor);
    std::fs::remove_file(scratch.state().join("admin.key")).expect("the operator moves it away");
    let monitor = MonitorProcess::start(&scratch, &[]);
    assert!(!scratch.state().join("admin.key").exists());
    assert_eq!(Control::start_refused(&monitor, &[]), ROLLBACK);
    assert_eq!(Control::start_refused(&monitor, &first), ROLLBACK);
    let mut changed = second.clone();
    changed[100] ^= 1;
    assert_eq!(Control::start_refused(&monitor, &changed), SEALED_STATE_INVALID);

    let (mut control, again) = Control::start(&monitor, 1, &second);
    assert_eq!((again.instance, again.epoch), (started.instance, 3));
    assert_ne!(again.incarnation, started.incarnation);
    assert_eq!(again.certificate, second_certificate);
    let mut log = Log::open(&monitor, 0);
    let former = client.former();
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&admin), Some(&former)).expect("the admin");
    assert_eq!(
        (client.former_status, &client.former_last[..]),
        (1, &[2][..]),
        "the third request was lost"
    );
    let asks_again = Client::open(&mut control, &monitor.fingerprint, Some(&admin), Some(&former)).expect("the admin");
    assert_eq!(
        (asks_again.former_status, &asks_again.former_last[..]),
        (1, &[2][..]),
        "the answer is final"
    );

    // the record's multiset element was carried over; a crash between sealed and durable certifies at the next start
    assert!(log.process(&[add_carried(3, 0, b"two")]).list().is_empty());
    put_and_get(&mut log, &client, 0, 1, b"k", b"three");
    cut_with(&mut log, 3, evict(3), b"three");
    let third = control.sealed(3);
    drop((control, log));
    let (control, started) = Control::start(&monitor, 1, &third);
    assert_eq!(started.epoch, 4);
    assert_certificate(&started.certificate, &monitor, &client, 3);
    drop(control);
    assert_eq!(Control::start_refused(&monitor, &second), ROLLBACK);
    let (_control, started_again) = Control::start(&monitor, 1, &third);
    assert_eq!(started_again.certificate, started.certificate);
}

#[test]
fn what_runs_while_an_epoch_closes_is_of_the_next() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let admin = scratch.admin_key();
    let (mut control, _) = Control::start(&monitor, 1, &[]);
    let mut log = Log::open(&monitor, 0);
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&admin), None).expect("the admin");
    log.process(&[add_first(leaf(b"k"))]);
    put_and_get(&mut log, &client, 0, 1, b"k", b"before");
    assert!(log.process(&[evict_first(1), Entry::NextEpoch]).list().is_empty());
    log.process(&[add_carried(2, 0, b"before")]);
    assert_eq!(put_and_get(&mut log, &client, 0, 2, b"k", b"after") >> 32, 2);
    let rest = [carry_over(1, 0, b"before"), Entry::VerifyEpoch];
    assert_eq!(log.process(&rest).list(), [Output::HandedOver(1)]);
    let first = control.sealed(1);
    assert_certificate(&control.durable(1), &monitor, &client, 1);
    drop((control, log));

    // the state is that from before any of it ran
    let (mut control, started) = Control::start(&monitor, 1, &first);
    assert_eq!(started.epoch, 2);
    let mut log = Log::open(&monitor, 0);
    let former = client.former();
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&admin), Some(&former)).expect("the admin");
    assert_eq!((client.former_status, &client.former_last[..]), (1, &[1][..]));
    let request = client.request(0, 1, &[get(b"k")]);
    let outputs = log.process(&[add_carried(2, 0, b"before"), Entry::Request(&request), run(1)]);
    let [Output::Admitted(_), Output::Receipt(receipt)] = outputs.list()[..] else {
        panic!("{:?}", outputs.list());
    };
    let expected = OperationResult::Value(Commitment::of(b"before"));
    assert_eq!(client.check_receipt(&request, receipt).1, [expected]);
    cut_with(&mut log, 2, evict(2), b"before");
    control.sealed(2);
}

#[test]
fn a_sealed_state_that_was_kept_back_does_not_come_back() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let admin = scratch.admin_key();
    let (mut control, _) = Control::start(&monitor, 1, &[]);
    let mut log = Log::open(&monitor, 0);
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&admin), None).expect("the admin");
    cut(&mut log, 1, &[]);
    let first = control.sealed(1);
    control.durable(1);
    log.process(&[add_first(leaf(b"k"))]);
    put_and_get(&mut log, &client, 0, 1, b"k", b"v");
    cut_with(&mut log, 2, evict_first(2), b"v");
    let second = control.sealed(2);
    drop((control, log));

    // the host starts without the second, and has the client told that nothing of its session took effect
    let (mut control, _) = Control::start(&monitor, 1, &first);
    let former = client.former();
    let told = Client::open(&mut control, &monitor.fingerprint, Some(&admin), Some(&former)).expect("the admin");
    assert_eq!((told.former_status, &told.former_last[..]), (1, &[0][..]));
    drop(control);
    // so that cannot come back, and be certified
    assert_eq!(Control::start_refused(&monitor, &second), ROLLBACK);
    let (_control, started) = Control::start(&monitor, 1, &first);
    assert_eq!(started.epoch, 2);
}

pub fn certificate_hash(certificate: &[u8]) -> Box<[u8; 32]> {
    let mut key = [0; 32];
    key[..20].copy_from_slice(b"zetakv/1 certificate");
    Box::new(*blake3::keyed_hash(&key, &certificate[..104]).as_bytes())
}

#[test]
fn a_record_moves_between_two_threads() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (mut control, _) = Control::start(&monitor, 2, &[]);
    let (mut zero, mut one) = (Log::open(&monitor, 0), Log::open(&monitor, 1));
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&scratch.admin_key()), None).expect("the admin");

    zero.process(&[add_first(leaf(b"k"))]);
    put_and_get(&mut zero, &client, 0, 1, b"k", b"zero");
    // thread 1 comes too early, and waits until thread 0 has evicted the record and its clock has passed that
    one.send(&[Entry::AddBlum {
        slot: 1,
        ts: at(1, 9),
        thread: 0,
        key: leaf(b"k"),
        value: value(b"zero"),
    }]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    let evicted = zero.process(&[
        Entry::EvictBlumMerkle {
            slot: 1,
            parent: 0,
            ts: at(1, 9),
        },
        Entry::Tick,
    ]);
    assert!(evicted.list().is_empty());
    assert!(one.outputs().list().is_empty());
    put_and_get(&mut one, &client, 1, 1, b"k", b"one");

    cut(&mut zero, 1, &[]);
    one.process(&[evict(1)]);
    cut(&mut one, 1, &[carry_over(1, 1, b"one")]);
    control.sealed(1);
    assert_certificate(&control.durable(1), &monitor, &client, 1);
}

#[test]
fn a_closed_session_is_rejected_and_still_remembered() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let admin = scratch.admin_key();
    let (mut control, _) = Control::start(&monitor, 1, &[]);
    let mut log = Log::open(&monitor, 0);
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&admin), None).expect("the admin");
    log.process(&[add_first(leaf(b"k"))]);
    put_and_get(&mut log, &client, 0, 1, b"k", b"v");
    control.close_session(client.session);
    Client::open(&mut control, &monitor.fingerprint, None, None).err(); // its answer shows that the control thread has come so far
    let request = client.request(0, 2, &[get(b"k")]);
    assert_eq!(log.process(&[Entry::Request(&request)]).list(), [Output::Rejected(1)]);
    cut_with(&mut log, 1, evict_first(1), b"v");
    let sealed = control.sealed(1);
    control.durable(1);
    drop((control, log));

    let (mut control, _) = Control::start(&monitor, 1, &sealed);
    let former = client.former();
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&admin), Some(&former)).expect("the admin");
    assert_eq!((client.former_status, &client.former_last[..]), (1, &[1][..]));
}

#[test]
fn admins_manage_clients_and_roles_are_enforced() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let pin = monitor.fingerprint;
    let reader_key = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
    let reader_public = reader_key.verifying_key().to_bytes();
    let (mut control, _) = Control::start(&monitor, 1, &[]);
    let mut log = Log::open(&monitor, 0);

    let refusal = |control: &mut Control, key| Client::open(control, &pin, key, None).err();
    assert_eq!(refusal(&mut control, None), Some(4), "a key is required");
    assert_eq!(refusal(&mut control, Some(&reader_key)), Some(3), "not authorized yet");

    let mut admin = Client::open(&mut control, &pin, Some(&scratch.admin_key()), None).expect("the admin");
    let add = [&[1, Role::Read as u8], reader_public.as_slice(), &[1, b'r']].concat();
    assert_eq!(admin.admin(&mut control, &add), (0, 1, vec![]));
    assert_eq!(admin.admin(&mut control, &add).0, 3, "there already");
    assert_eq!(admin.admin(&mut control, &[9]).0, 1, "malformed");
    let (status, _, listed) = admin.admin(&mut control, &[3]);
    assert_eq!((status, &listed[..2]), (0, &[2, 0][..]));
    let own_key = scratch.admin_key().verifying_key().to_bytes();
    assert_eq!(
        admin.admin(&mut control, &[&[2], own_key.as_slice()].concat()).0,
        6,
        "the last admin"
    );

    let mut reader = Client::open(&mut control, &pin, Some(&reader_key), None).expect("authorized");
    assert_eq!(reader.role, Role::Read as u8);
    assert_eq!(reader.admin(&mut control, &[3]).0, 2, "no admin");
    let request = reader.request(0, 1, &[put(b"k", b"v"), get(b"k")]);
    let outputs = log.process(&[add_first(leaf(b"k")), Entry::Request(&request), run(1), run(1)]);
    let [Output::Admitted(Role::Read), Output::Receipt(receipt)] = outputs.list()[..] else {
        panic!("{:?}", outputs.list());
    };
    let (_, results) = reader.check_receipt(&request, receipt);
    assert_eq!(
        results,
        [OperationResult::Forbidden, OperationResult::Value(Commitment::Null)]
    );

    let remove = [&[2], reader_public.as_slice()].concat();
    assert_eq!(admin.admin(&mut control, &remove).0, 0);
    assert_eq!(admin.admin(&mut control, &remove).0, 4, "not there");
    let request = reader.request(0, 2, &[get(b"k")]);
    assert_eq!(log.process(&[Entry::Request(&request)]).list(), [Output::Rejected(1)]);
    assert_eq!(refusal(&mut control, Some(&reader_key)), Some(3));

    // what the admin changed is in the sealed state
    assert_eq!(admin.admin(&mut control, &add).0, 0);
    log.process(&[Entry::EvictMerkle { slot: 1, parent: 0 }]);
    cut(&mut log, 1, &[]);
    let sealed = control.sealed(1);
    assert_eq!(
        admin.admin(&mut control, &[3]).1,
        2,
        "what changes after sealing is durable with the next epoch"
    );
    control.durable(1);
    drop((control, log));
    let (mut control, _) = Control::start(&monitor, 1, &sealed);
    assert!(Client::open(&mut control, &pin, Some(&reader_key), None).is_ok());
}

#[test]
fn what_a_client_made_too_long_is_refused_and_no_violation() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (mut control, _) = Control::start(&monitor, 1, &[]);
    let long = vec![1; 200_000];
    control.connection.send(kind::HELLO, &[&TOKEN, &long]);
    let refused = control.connection.expect(kind::HELLO_REFUSED);
    assert_eq!(refused[..6], [&TOKEN[..], &[1, 0]].concat(), "malformed");
    control.connection.send(kind::ADMIN, &[&TOKEN, &long]);
    let rejected = control.connection.expect(kind::ADMIN_REJECTED);
    assert_eq!(rejected, [&TOKEN[..], &[1]].concat(), "unknown session");
    let admin = scratch.admin_key();
    assert!(Client::open(&mut control, &monitor.fingerprint, Some(&admin), None).is_ok());
}

#[test]
fn an_open_monitor_serves_clients_without_keys() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &["--open"]);
    let (mut control, started) = Control::start(&monitor, 1, &[]);
    assert!(started.open);
    let client = Client::open(&mut control, &monitor.fingerprint, None, None).expect("open");
    assert_eq!(client.role, Role::Write as u8);
}

#[test]
fn one_control_connection_at_a_time() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let refused = |mut connection: Connection| {
        let body = connection.expect(kind::NOT_STARTED);
        assert!(connection.receive().is_none(), "and closed");
        u16::from_le_bytes([body[0], body[1]])
    };
    assert_eq!(
        refused(Log::open(&monitor, 0).connection),
        BAD_HOST_MESSAGE,
        "nothing is started"
    );
    let (control, _) = Control::start(&monitor, 1, &[]);
    assert_eq!(refused(Control::open(&monitor).connection), OCCUPIED, "no violation");
    let incarnation = monitor.incarnation.replace([7; 16]);
    assert_eq!(
        refused(Log::open(&monitor, 0).connection),
        BAD_HOST_MESSAGE,
        "a worker that a former host has left behind"
    );
    monitor.incarnation.set(incarnation);
    assert_eq!(
        refused(Log::open(&monitor, 1).connection),
        BAD_HOST_MESSAGE,
        "no such thread"
    );
    let mut log = Log::open(&monitor, 0);
    assert!(log.process(&[Entry::Tick]).list().is_empty());
    assert_eq!(
        refused(Log::open(&monitor, 0).connection),
        BAD_HOST_MESSAGE,
        "it has its log"
    );

    // the end of the control connection is the end of the logs, and the other way round
    drop(control);
    assert!(log.connection.receive().is_none());
    let (mut control, _) = Control::start(&monitor, 1, &[]);
    drop(Log::open(&monitor, 0));
    assert!(control.connection.receive().is_none());
    Control::start(&monitor, 1, &[]);
}

#[test]
fn a_start_needs_sensible_numbers() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let wrong = [
        (0u16, 16u32, 0u8),
        (3, 16, 0),
        (128, 16, 0),
        (1, 0, 0),
        (1, (1 << 24) + 1, 0),
        (1, 16, 2),
    ];
    for (threads, slots, flags) in wrong {
        let mut control = Control::open(&monitor);
        control
            .connection
            .send(kind::START, &[&threads.to_le_bytes(), &slots.to_le_bytes(), &[flags]]);
        let body = control.connection.expect(kind::NOT_STARTED);
        assert_eq!(
            body[..2],
            BAD_HOST_MESSAGE.to_le_bytes(),
            "{threads} threads, {slots} slots, flags {flags}"
        );
        assert!(control.connection.receive().is_none());
    }
    Control::start(&monitor, 64, &[]);
}

#[test]
fn the_process_ends_with_its_input_and_replaces_a_stale_socket() {
    let scratch = Scratch::new();
    let mut monitor = MonitorProcess::start(&scratch, &[]);
    drop(monitor.child.stdin.take());
    assert!(monitor.child.wait().expect("ends").success());
    assert!(!scratch.socket().exists());
    drop(monitor);

    let mut killed = MonitorProcess::start(&scratch, &[]);
    killed.child.kill().expect("ours");
    killed.child.wait().expect("ends");
    assert!(scratch.socket().exists());
    std::mem::forget(killed); // its end is no success
    let monitor = MonitorProcess::start(&scratch, &[]);
    Control::start(&monitor, 1, &[]);
}

#[test]
fn tcp_says_where() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start_tcp(&scratch);
    let ready: serde_json::Value = serde_json::from_str(&monitor.ready).expect("JSON");
    let address = ready["address"].as_str().expect("an address");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let mut body = Vec::new();
    zetakv_monitor::wire::write_message(&mut stream, kind::CONTROL, &[&[2, 0]]).expect("it reads");
    zetakv_monitor::wire::write_message(&mut stream, kind::START, &[&[1, 0, 16, 0, 0, 0, 0]]).expect("it reads");
    let answer = zetakv_monitor::wire::read_message(&mut stream, &mut body, 1000).expect("an answer");
    assert_eq!(answer, Some(kind::STARTED));
}
