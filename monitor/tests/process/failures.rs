//! The real process under a host that lies, or sends nonsense: it fails, says so to all, and never panics.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use crate::client::{Client, assert_signed, get};
use crate::host::{Connection, Control, Log, add_first, at, carry_over, evict, leaf, value};
use crate::monitor_process::{MonitorProcess, Scratch};
use crate::service::cut;
use zetakv_monitor::wire::{kind, read_message, write_message};
use zetakv_verifier::entry::Entry;
use zetakv_verifier::violation::VIOLATION_BYTES;

const MALFORMED_LOG: u16 = 1;
const CLOCK_NOT_PASSED: u16 = 23;
const EPOCH_MISMATCH: u16 = 40;
const BAD_HOST_MESSAGE: u16 = 43;

fn code(violation: &[u8]) -> u16 {
    u16::from_le_bytes([violation[36], violation[37]])
}

/// The control connection says that the monitor has failed, and so does every later start.
fn assert_failed(monitor: &MonitorProcess, mut control: Control, expected: u16) -> Vec<u8> {
    let violation = control.connection.expect(kind::FAILED);
    assert_eq!(violation.len(), VIOLATION_BYTES);
    assert_eq!(code(&violation), expected);
    let (covered, signature) = violation.split_at(VIOLATION_BYTES - 64);
    assert_signed(&monitor.fingerprint, covered, signature);
    drop(control);
    assert_eq!(Control::start_refused(monitor, &[]), expected);
    violation
}

#[test]
fn a_failure_is_final_and_told_to_all() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (mut control, started) = Control::start(&monitor, 2, &[]);
    let (mut zero, mut one) = (Log::open(&monitor, 0), Log::open(&monitor, 1));
    let admin = scratch.admin_key();
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&admin), None).expect("the admin");

    // a request before the fault, in the same piece of the log: its answer does not leave
    let request = client.request(1, 1, &[get(b"k")]);
    let mut log = Vec::new();
    Entry::Tick.encode(&mut log);
    Entry::Request(&request).encode(&mut log);
    let offset = log.len() as u64;
    log.push(99);
    one.connection.send(kind::LOG, &[&log]);
    let violation = one.outputs().violation();
    assert_eq!(code(&violation), MALFORMED_LOG);
    assert_eq!(violation[20..36], started.incarnation);
    assert_eq!(violation[38..40], 1u16.to_le_bytes());
    assert_eq!(violation[44..52], offset.to_le_bytes());
    assert!(one.connection.receive().is_none(), "the last output, ever");

    assert_eq!(zero.process(&[Entry::Tick]).violation(), violation);
    assert_eq!(control.connection.expect(kind::FAILED), violation);
    let refused = Client::open(&mut control, &monitor.fingerprint, Some(&admin), None).err();
    assert_eq!(refused, Some(6));
    drop(control);
    assert_eq!(Control::start_refused(&monitor, &[]), MALFORMED_LOG);
}

#[test]
fn nothing_is_certified_after_a_failure() {
    let scratch = Scratch::new();
    let register = scratch.state().join("register");
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (mut control, _) = Control::start(&monitor, 1, &[]);
    let mut log = Log::open(&monitor, 0);
    cut(&mut log, 1, &[]);
    control.sealed(1);
    let before = std::fs::read(&register).expect("a file");
    log.connection.send(kind::LOG, &[&[99]]);
    assert_eq!(code(&log.outputs().violation()), MALFORMED_LOG);
    control.connection.send(kind::DURABLE, &[&1_u32.to_le_bytes()]);
    assert_eq!(code(&control.connection.expect(kind::FAILED)), MALFORMED_LOG);
    let refused = Client::open(&mut control, &monitor.fingerprint, None, None).err();
    assert_eq!(refused, Some(6), "no certificate came before");
    assert_eq!(std::fs::read(&register).expect("a file"), before);
}

/// Time in which the threads of the monitor get to where they can go no further.
const SETTLING: Duration = Duration::from_millis(300);

#[test]
fn a_failure_is_known_before_it_is_logged() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start_unread(&scratch);
    let (_control, _) = Control::start(&monitor, 2, &[]);
    let (mut zero, mut one) = (Log::open(&monitor, 0), Log::open(&monitor, 1));
    // each connection that is refused logs a line, until the pipe is full
    loop {
        let mut refused = Log::open(&monitor, 9).connection.0;
        refused.set_read_timeout(Some(SETTLING)).expect("a timeout");
        if read_message(&mut refused, &mut Vec::new(), 1000).is_err() {
            break;
        }
    }
    one.connection.send(kind::LOG, &[&[99]]);
    std::thread::sleep(SETTLING);
    assert_eq!(code(&zero.process(&[Entry::Tick]).violation()), MALFORMED_LOG);
}

#[test]
fn answers_that_were_held_up_do_not_leave_after_a_failure() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (mut control, _) = Control::start(&monitor, 2, &[]);
    let (mut zero, mut one) = (Log::open(&monitor, 0), Log::open(&monitor, 1));
    let admin = scratch.admin_key();
    let client = Client::open(&mut control, &monitor.fingerprint, Some(&admin), None).expect("the admin");

    // the host does not read what the control thread says, until that has no room for events
    let stream = &mut control.connection.0;
    stream.set_write_timeout(Some(SETTLING)).expect("a timeout");
    while write_message(stream, kind::HELLO, &[&[0; 4]]).is_ok() {}
    let request = client.request(0, 1, &[get(b"k")]);
    let with_receipt = [
        Entry::Request(&request),
        Entry::RunAbsent { parent: 0 },
        Entry::NextEpoch,
        Entry::VerifyEpoch,
    ];
    zero.send(&with_receipt);
    std::thread::sleep(SETTLING);
    one.connection.send(kind::LOG, &[&[99]]);
    std::thread::sleep(SETTLING);
    let mut unread = control.connection.0.try_clone().expect("a handle");
    std::thread::spawn(move || io::copy(&mut unread, &mut io::sink()));
    assert_eq!(code(&zero.outputs().violation()), MALFORMED_LOG);
}

#[test]
fn an_epoch_with_a_record_that_nobody_evicted_does_not_hold() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (control, _) = Control::start(&monitor, 1, &[]);
    let mut log = Log::open(&monitor, 0);
    let forged = Entry::AddBlum {
        slot: 1,
        ts: at(1, 0),
        thread: 0,
        key: leaf(b"k"),
        value: value(b"forged"),
    };
    log.process(&[forged, evict(1)]);
    // the thread hands over, or is told of the failure first
    log.send(&[Entry::NextEpoch, carry_over(1, 0, b"forged"), Entry::VerifyEpoch]);
    let violation = assert_failed(&monitor, control, EPOCH_MISMATCH);
    assert_eq!(violation[38..40], [0xff, 0xff], "no thread");
}

#[test]
fn a_wait_for_an_eviction_that_never_comes_ends() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (control, _) = Control::start(&monitor, 2, &[]);
    let mut one = Log::open(&monitor, 1);
    let early = Entry::AddBlum {
        slot: 1,
        ts: at(1, 9),
        thread: 0,
        key: leaf(b"k"),
        value: value(b"v"),
    };
    let violation = one.process(&[early]).violation();
    assert_eq!(assert_failed(&monitor, control, CLOCK_NOT_PASSED), violation);
}

#[test]
fn a_wait_ends_with_the_incarnation() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (control, _) = Control::start(&monitor, 2, &[]);
    let mut one = Log::open(&monitor, 1);
    let early = Entry::AddBlum {
        slot: 1,
        ts: at(1, 9),
        thread: 0,
        key: leaf(b"k"),
        value: value(b"v"),
    };
    one.send(&[early]);
    std::thread::sleep(Duration::from_millis(50));
    drop(control);
    assert!(one.connection.receive().is_none());
    Control::start(&monitor, 2, &[]); // not failed
}

#[test]
fn messages_out_of_place_are_violations() {
    let messages: [(u8, &[u8]); 9] = [
        (kind::START, &[1, 0, 16, 0, 0, 0]),
        (kind::DURABLE, &[1, 0, 0, 0]),
        (kind::DURABLE, &[1, 0, 0]),
        (kind::CLOSE_SESSION, &[1]),
        (kind::HELLO, &[1, 2, 3]),
        (kind::ADMIN, &[]),
        (kind::LOG, &[]),
        (kind::CERTIFICATE, &[]),
        (0, &[]),
    ];
    for (message, body) in messages {
        let scratch = Scratch::new();
        let monitor = MonitorProcess::start(&scratch, &[]);
        let (mut control, _) = Control::start(&monitor, 1, &[]);
        control.connection.send(message, &[body]);
        assert_failed(&monitor, control, BAD_HOST_MESSAGE);
    }
}

#[test]
fn lengths_out_of_bounds_are_violations() {
    let empty = vec![0; 4];
    let mut long = 70_000u32.to_le_bytes().to_vec();
    long.resize(4 + 70_000, kind::DURABLE);
    for message in [empty, long] {
        let scratch = Scratch::new();
        let monitor = MonitorProcess::start(&scratch, &[]);
        let (mut control, _) = Control::start(&monitor, 1, &[]);
        control.connection.0.write_all(&message).expect("it reads");
        assert_failed(&monitor, control, BAD_HOST_MESSAGE);
    }
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (control, _) = Control::start(&monitor, 1, &[]);
    let mut log = Log::open(&monitor, 0);
    log.connection.0.write_all(&u32::MAX.to_le_bytes()).expect("it reads");
    let violation = log.outputs().violation();
    assert_eq!(assert_failed(&monitor, control, BAD_HOST_MESSAGE), violation);
}

/// A small generator of pseudorandom bytes: the seed replays a run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn nonsense_on_new_connections_harms_nobody() {
    let seed = u64::from_le_bytes(zetakv_monitor::identity::random().expect("random bytes"));
    println!("seed {seed}");
    let mut noise = Noise(seed);
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (_control, _) = Control::start(&monitor, 1, &[]);
    let mut log = Log::open(&monitor, 0);
    for round in 0..200 {
        let mut connection = Connection::open(&monitor);
        let length = noise.next() % 40;
        let bytes = noise.bytes(length);
        // the monitor may refuse and close before it has read all
        let _ = match round % 3 {
            0 => connection.0.write_all(&bytes),
            1 => connection
                .0
                .write_all(&[&(bytes.len() as u32).to_le_bytes(), bytes.as_slice()].concat()),
            _ => connection
                .0
                .write_all(&[&[3, 0, 0, 0, 1 + (round as u8 & 1)], bytes.as_slice()].concat()),
        };
    }
    assert!(log.process(&[Entry::Tick, add_first(leaf(b"k"))]).list().is_empty());
}

#[test]
fn nonsense_from_clients_is_refused_or_rejected() {
    let seed = u64::from_le_bytes(zetakv_monitor::identity::random().expect("random bytes"));
    println!("seed {seed}");
    let mut noise = Noise(seed);
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &["--open"]);
    let (mut control, _) = Control::start(&monitor, 1, &[]);
    for _ in 0..200 {
        let length = noise.next() % 200;
        let bytes = noise.bytes(4 + length);
        control.connection.send(kind::HELLO, &[&bytes]);
        assert_eq!(control.connection.expect(kind::HELLO_REFUSED)[..4], bytes[..4]);
        control.connection.send(kind::ADMIN, &[&bytes]);
        assert_eq!(control.connection.expect(kind::ADMIN_REJECTED)[..4], bytes[..4]);
    }
    assert!(Client::open(&mut control, &monitor.fingerprint, None, None).is_ok());
}

#[test]
fn nonsense_in_a_log_latches_and_does_not_panic() {
    let seed = u64::from_le_bytes(zetakv_monitor::identity::random().expect("random bytes"));
    println!("seed {seed}");
    let mut noise = Noise(seed);
    for _ in 0..20 {
        let scratch = Scratch::new();
        let monitor = MonitorProcess::start(&scratch, &[]);
        let (_control, _) = Control::start(&monitor, 1, &[]);
        let mut log = Log::open(&monitor, 0);
        let mut bytes = vec![0xff]; // ends what is well-formed by chance
        while bytes.len() < 64 {
            bytes.insert(0, (noise.next() % 13) as u8);
        }
        log.connection.send(kind::LOG, &[&bytes]);
        let violation = log.outputs().violation();
        assert!(code(&violation) > 0);
    }
}

#[test]
fn there_are_as_many_connections_as_are_needed_and_no_more() {
    const CONNECTIONS_MAX: usize = 64 + 1 + 16;
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let is_refused = |wait| {
        let mut connection = Connection::open(&monitor);
        connection.0.set_read_timeout(Some(wait)).expect("a timeout");
        connection.0.read(&mut [0]).is_ok_and(|read| read == 0) // else it waits for a greeting
    };
    let mut silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| Connection::open(&monitor)).collect();
    assert!(is_refused(Duration::from_secs(5)));
    let last = silent.last_mut().expect("there are many");
    last.send(kind::LOG, &[]);
    assert_eq!(last.expect(kind::NOT_STARTED)[..2], BAD_HOST_MESSAGE.to_le_bytes());
    drop(silent);
    while is_refused(Duration::from_millis(200)) {} // until it is noticed that they have ended
    Control::start(&monitor, 1, &[]);
}
