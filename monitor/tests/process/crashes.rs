//! A crash between every two steps of an epoch's two phases, and the register put back without the store: an honest host always starts
//! again, and no epoch has two certificates.

use std::collections::BTreeMap;

use zetakv_monitor::wire::kind;
use zetakv_verifier::entry::Entry;
use zetakv_verifier::output::Output;

use crate::host::{Control, Log, Started};
use crate::monitor_process::{MonitorProcess, Scratch};
use crate::service::{ROLLBACK, cut};

/// Where the service ends.
#[derive(Clone, Copy, Debug)]
enum Crash {
    BeforeSealed,
    BeforeStored,
    BeforeAcknowledged,
    BeforeCertificate,
    AfterCertificate,
}

const CRASHES: [Crash; 5] = [
    Crash::BeforeSealed,
    Crash::BeforeStored,
    Crash::BeforeAcknowledged,
    Crash::BeforeCertificate,
    Crash::AfterCertificate,
];

/// All certificates that were ever seen, by instance and epoch.
#[derive(Default)]
struct Seen(BTreeMap<([u8; 16], u32), Vec<u8>>);

impl Seen {
    fn note(&mut self, certificate: &[u8]) {
        if certificate.is_empty() {
            return;
        }
        let instance = certificate[4..20].try_into().expect("16");
        let epoch = u32::from_le_bytes(certificate[36..40].try_into().expect("4"));
        let first = self.0.entry((instance, epoch)).or_insert_with(|| certificate.to_vec());
        assert_eq!(first, certificate, "two certificates of epoch {epoch}");
    }
}

/// Start from what is stored, and crash in the epoch that is open.
fn run_into(crash: Crash, monitor: &MonitorProcess, stored: &mut Vec<u8>, seen: &mut Seen) {
    let (mut control, Started { epoch, certificate, .. }) = Control::start(monitor, 1, stored);
    seen.note(&certificate);
    let mut log = Log::open(monitor, 0);
    cut(&mut log, epoch, &[]);
    if matches!(crash, Crash::BeforeSealed) {
        return;
    }
    let sealed = control.sealed(epoch);
    if matches!(crash, Crash::BeforeStored) {
        return;
    }
    *stored = sealed;
    match crash {
        Crash::BeforeCertificate => control.connection.send(kind::DURABLE, &[&epoch.to_le_bytes()]),
        Crash::AfterCertificate => seen.note(&control.durable(epoch)),
        _ => {}
    }
}

#[test]
fn an_honest_host_starts_again_after_every_crash_and_no_epoch_has_two_certificates() {
    let scratch = Scratch::new();
    let mut seen = Seen::default();
    let mut stored = Vec::new();
    // each after each, so that what one leaves is what the next finds
    for first in CRASHES {
        for second in CRASHES {
            let monitor = MonitorProcess::start(&scratch, &[]);
            run_into(first, &monitor, &mut stored, &mut seen);
            run_into(second, &monitor, &mut stored, &mut seen);
        }
    }
    assert!(seen.0.len() > 20, "{} epochs were certified", seen.0.len());
    assert_eq!(
        seen.0.len(),
        seen.0.keys().map(|(_, epoch)| *epoch).max().unwrap_or(0) as usize,
        "without a gap"
    );
}

#[test]
fn a_register_that_cannot_be_written_is_tried_again_and_no_certificate_leaves_before() {
    let scratch = Scratch::new();
    let in_the_way = scratch.state().join("register.new");
    let (mut seen, mut stored) = (Seen::default(), Vec::new());
    let monitor = MonitorProcess::start(&scratch, &[]);
    run_into(Crash::AfterCertificate, &monitor, &mut stored, &mut seen);

    let (mut control, Started { epoch, .. }) = Control::start(&monitor, 1, &stored);
    let mut log = Log::open(&monitor, 0);
    cut(&mut log, epoch, &[]);
    let sealed = control.sealed(epoch);
    let before = std::fs::read(scratch.state().join("register")).expect("a file");
    std::fs::create_dir(&in_the_way).expect("a directory, which no file replaces");
    for _ in 0..2 {
        control.connection.send(kind::DURABLE, &[&epoch.to_le_bytes()]);
        let body = control.connection.expect(kind::NOT_COMMITTED);
        assert_eq!(body[..4], epoch.to_le_bytes());
        assert!(
            String::from_utf8_lossy(&body[4..]).contains("register"),
            "a text for people"
        );
        assert_eq!(std::fs::read(scratch.state().join("register")).expect("a file"), before);
        let closed = log.process(&[Entry::NextEpoch]);
        assert_eq!(
            closed.list(),
            [Output::EpochNotYet],
            "the next one waits for the register"
        );
    }
    std::fs::remove_dir(&in_the_way).expect("out of the way");
    seen.note(&control.durable(epoch));
    cut(&mut log, epoch + 1, &[]);
    stored = control.sealed(epoch + 1);
    assert_ne!(stored, sealed);
    seen.note(&control.durable(epoch + 1));
    drop((control, log));
    run_into(Crash::AfterCertificate, &monitor, &mut stored, &mut seen);
}

#[test]
fn the_register_put_back_without_the_store_is_refused_until_it_is_restored() {
    let scratch = Scratch::new();
    let register = scratch.state().join("register");
    let (mut seen, mut stored) = (Seen::default(), Vec::new());
    let mut registers = Vec::new();
    for _ in 0..3 {
        let monitor = MonitorProcess::start(&scratch, &[]);
        run_into(Crash::AfterCertificate, &monitor, &mut stored, &mut seen);
        registers.push(std::fs::read(&register).expect("a file"));
    }
    for old in &registers[..2] {
        std::fs::write(&register, old).expect("put back");
        let monitor = MonitorProcess::start(&scratch, &[]);
        assert_eq!(Control::start_refused(&monitor, &stored), ROLLBACK);
    }
    std::fs::write(&register, &registers[2]).expect("restored");
    let monitor = MonitorProcess::start(&scratch, &[]);
    run_into(Crash::AfterCertificate, &monitor, &mut stored, &mut seen);
}
