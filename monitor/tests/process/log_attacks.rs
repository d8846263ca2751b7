//! What a host can do with write-ahead logs, tickets and starts: each is refused, or changes nothing that a client believes.

use zetakv_monitor::wire::kind;
use zetakv_verifier::entry::Entry;
use zetakv_verifier::machine::Role;
use zetakv_verifier::output::Output;
use zetakv_verifier::violation::ViolationCode;

use crate::client::{Client, Former, get, put};
use crate::host::{Control, Log, Started, add_carried, add_first, evict, evict_first, leaf, run};
use crate::monitor_process::{MonitorProcess, Scratch};
use crate::offline::override_with;
use crate::service::{ROLLBACK, cut_with};
use crate::write_ahead::{end_replay, go_live};

const KNOWN: u8 = 1;
const UNKNOWN: u8 = 2;
const MAY_BE_REPLAYED: u8 = 3;

type Tag = [u8; 16];

/// A monitor with one thread, and what its host has kept.
struct Service {
    scratch: Scratch,
    monitor: MonitorProcess,
}

/// A request that was admitted, and the tag after it.
struct Kept {
    request: Vec<u8>,
    tag: Tag,
}

impl Kept {
    const fn entry(&self) -> Entry<'_> {
        Entry::Replay {
            role: Some(Role::Admin),
            request: self.request.as_slice(),
        }
    }
}

impl Service {
    fn new() -> Self {
        let scratch = Scratch::new();
        let monitor = MonitorProcess::start(&scratch, &[]);
        Self { scratch, monitor }
    }

    /// A start with a log, in its replay.
    fn start(&self, sealed: &[u8]) -> (Control, Started, Log) {
        let (control, started) = Control::start_with(&self.monitor, 1, true, sealed);
        (control, started, Log::open(&self.monitor, 0))
    }

    /// A start that replays nothing.
    fn start_live(&self, sealed: &[u8]) -> (Control, Started, Log) {
        let (mut control, started, mut log) = self.start(sealed);
        end_replay(&mut log, &[], &[0; 16]);
        go_live(&mut control);
        (control, started, log)
    }

    fn client(&self, control: &mut Control, former: Option<&Former>) -> Client {
        let admin = self.scratch.admin_key();
        Client::open(control, &self.monitor.fingerprint, Some(&admin), former).expect("the admin")
    }

    /// Start from a state and replay this: the violation.
    fn replay_refused(&self, sealed: &[u8], replayed: &[Entry<'_>], tag: &Tag) -> u16 {
        let (_control, _, mut log) = self.start(sealed);
        let entries = [replayed, &[Entry::EndReplay(tag)]].concat();
        violation_code(&log.process(&entries).violation())
    }
}

fn violation_code(violation: &[u8]) -> u16 {
    u16::from_le_bytes([violation[36], violation[37]])
}

const LOG_CHANGED: u16 = ViolationCode::LogChanged as u16;

/// Let the client put a record, which is in slot 1, and run it.
fn admit(log: &mut Log, client: &Client, sequence: u64, new: &[u8]) -> Kept {
    let request = client.request(0, sequence, &[put(b"k", new)]);
    let tag = match log.process(&[Entry::Request(&request), run(1)]).list()[..] {
        [Output::Admitted(_), Output::Receipt(_), Output::Logged(tag)] => *tag,
        ref other => panic!("{other:?}"),
    };
    Kept { request, tag }
}

/// A service whose first incarnation has admitted one request, and sealed epoch 1.
struct Sealed {
    service: Service,
    control: Control,
    log: Log,
    incarnation: Tag,
    client: Client,
    kept: Kept,
    state: Vec<u8>,
}

fn sealed() -> Sealed {
    let service = Service::new();
    let (mut control, Started { incarnation, .. }, mut log) = service.start_live(&[]);
    let client = service.client(&mut control, None);
    log.process(&[add_first(leaf(b"k"))]);
    let kept = admit(&mut log, &client, 1, b"one");
    cut_with(&mut log, 1, evict_first(1), b"one");
    let state = control.sealed(1);
    Sealed {
        service,
        control,
        log,
        incarnation,
        client,
        kept,
        state,
    }
}

#[test]
fn a_certificate_that_a_start_gave_out_is_final_even_if_it_never_went_live() {
    let Sealed {
        service,
        control,
        log,
        incarnation,
        kept,
        state,
        ..
    } = sealed();
    drop((control, log));
    for _ in 0..2 {
        let (control, started, log) = service.start(&state);
        assert_eq!(started.certificate[36..40], 1u32.to_le_bytes());
        drop((control, log));
        // else epoch 1 could get another certificate, without what was certified
        assert_eq!(Control::start_refused(&service.monitor, &[]), ROLLBACK);
    }
    let replayed = [Entry::ReplayMark(&incarnation), kept.entry()];
    assert_eq!(
        service.replay_refused(&state, &replayed, &kept.tag),
        LOG_CHANGED,
        "twice"
    );
}

#[test]
fn what_came_after_a_sealed_state_is_answered_for_without_a_mark_of_its_own() {
    let Sealed {
        service,
        mut control,
        mut log,
        client,
        state,
        ..
    } = sealed();
    control.durable(1);
    log.process(&[add_carried(2, 0, b"one")]);
    let second = admit(&mut log, &client, 2, b"two");
    drop((control, log));
    for ticket_is_offered in [false, true] {
        let (mut control, _, mut log) = service.start(&state);
        if ticket_is_offered {
            control.connection.send(kind::TICKET, &[&client.ticket]); // the state knows better
        }
        end_replay(&mut log, &[second.entry()], &second.tag);
        if ticket_is_offered {
            go_live(&mut control);
            let again = service.client(&mut control, Some(&client.former()));
            assert_eq!((again.former_status, &again.former_last[..]), (KNOWN, &[1][..]));
            assert_eq!((&again.former_replayed[..], again.replay_epoch), (&[2][..], 2));
        }
    }
}

#[test]
fn nothing_of_an_instance_that_was_overridden_is_replayed() {
    let Sealed {
        service,
        mut control,
        mut log,
        incarnation,
        kept,
        state,
        ..
    } = sealed();
    control.durable(1);
    log.process(&[add_carried(2, 0, b"one")]);
    cut_with(&mut log, 2, evict(2), b"one");
    control.sealed(2);
    control.durable(2);
    drop((control, log));
    let Service { scratch, monitor } = service;
    drop(monitor);
    let key = scratch.state().join("admin.key");
    let overriding = override_with(&scratch, &key, &[], &state).expect("the admin signs");
    let monitor = MonitorProcess::start(&scratch, &[]);
    let service = Service { scratch, monitor };
    // the state has the request in it
    let replayed = [Entry::ReplayMark(&incarnation), kept.entry()];
    assert_eq!(service.replay_refused(&overriding, &replayed, &kept.tag), LOG_CHANGED);
}

#[test]
fn a_client_without_a_ticket_is_told_that_its_requests_may_have_been_replayed() {
    let service = Service::new();
    let (mut control, first, mut log) = service.start_live(&[]);
    let client = service.client(&mut control, None);
    log.process(&[add_first(leaf(b"k"))]);
    let kept = admit(&mut log, &client, 1, b"one");
    drop((control, log));

    // nothing is replayed: it did not take effect
    let (control, _, mut log) = service.start(&[]);
    end_replay(
        &mut log,
        &[Entry::ReplayMark(&first.incarnation), kept.entry()],
        &kept.tag,
    );
    drop((control, log));
    let (mut control, _, mut log) = service.start(&[]);
    end_replay(
        &mut log,
        &[Entry::ReplayMark(&first.incarnation), kept.entry()],
        &kept.tag,
    );
    go_live(&mut control);
    let again = service.client(&mut control, Some(&client.former()));
    assert_eq!(again.former_status, MAY_BE_REPLAYED);
    let later = Former {
        session: 99,
        ..client.former()
    };
    assert_eq!(
        service.client(&mut control, Some(&later)).former_status,
        UNKNOWN,
        "never admitted"
    );

    // nor is it forgotten when that incarnation, and its certificate, are gone
    log.process(&[add_first(leaf(b"k")), run(1)]);
    cut_with(&mut log, 1, evict_first(1), b"one");
    let state = control.sealed(1);
    control.durable(1);
    drop((control, log));
    let (mut control, _, _log) = service.start_live(&state);
    let again = service.client(&mut control, Some(&client.former()));
    assert_eq!(again.former_status, MAY_BE_REPLAYED);
}

#[test]
fn a_client_whose_log_was_dropped_is_told_that_nothing_ran() {
    let service = Service::new();
    let (mut control, _, mut log) = service.start_live(&[]);
    let client = service.client(&mut control, None);
    log.process(&[add_first(leaf(b"k"))]);
    admit(&mut log, &client, 1, b"one");
    drop((control, log));
    let (mut control, _, _log) = service.start_live(&[]);
    let again = service.client(&mut control, Some(&client.former()));
    assert_eq!(again.former_status, UNKNOWN);
    assert_eq!(again.session, client.session, "its number is given again");
}

#[test]
fn a_number_that_was_given_again_does_not_answer_for_the_session_before() {
    let service = Service::new();
    let (mut control, first, mut log) = service.start_live(&[]);
    let client = service.client(&mut control, None);
    log.process(&[add_first(leaf(b"k"))]);
    let dropped = admit(&mut log, &client, 1, b"dropped");
    drop((control, log));
    let (mut control, second, mut log) = service.start_live(&[]);
    let other = service.client(&mut control, None);
    assert_eq!(other.session, client.session);
    log.process(&[add_first(leaf(b"k"))]);
    let kept = [admit(&mut log, &other, 1, b"one"), admit(&mut log, &other, 2, b"two")];
    drop((control, log));

    let replayed = [Entry::ReplayMark(&second.incarnation), kept[0].entry(), kept[1].entry()];
    for tickets in [[&client.ticket, &other.ticket], [&other.ticket, &client.ticket]] {
        let (mut control, _, mut log) = service.start(&[]);
        for ticket in tickets {
            control.connection.send(kind::TICKET, &[ticket]);
        }
        end_replay(&mut log, &replayed, &kept[1].tag);
        drop((control, log)); // before it is live, so that the same can be tried again
    }
    let (mut control, _, mut log) = service.start(&[]);
    control.connection.send(kind::TICKET, &[&client.ticket]);
    control.connection.send(kind::TICKET, &[&other.ticket]);
    end_replay(&mut log, &replayed, &kept[1].tag);
    go_live(&mut control);
    for asking in [&client, &other] {
        let again = service.client(&mut control, Some(&asking.former()));
        assert_eq!(again.former_status, MAY_BE_REPLAYED, "not what the other one did");
    }
    drop((control, log));
    let replayed = [Entry::ReplayMark(&first.incarnation), dropped.entry()];
    assert_eq!(service.replay_refused(&[], &replayed, &dropped.tag), LOG_CHANGED);
}

#[test]
fn a_start_without_a_log_ends_all_that_was_logged() {
    let service = Service::new();
    let (mut control, first, mut log) = service.start_live(&[]);
    let client = service.client(&mut control, None);
    log.process(&[add_first(leaf(b"k"))]);
    let kept = admit(&mut log, &client, 1, b"one");
    drop((control, log));
    let (mut control, without) = Control::start(&service.monitor, 1, &[]);
    assert_eq!(
        service.client(&mut control, Some(&client.former())).former_status,
        UNKNOWN
    );
    drop(control);
    let (first, without) = (&first.incarnation, &without.incarnation);
    let replayed = [Entry::ReplayMark(first), kept.entry(), Entry::ReplayMark(without)];
    assert_eq!(service.replay_refused(&[], &replayed, &kept.tag), LOG_CHANGED);
}

#[test]
fn a_log_is_of_one_store_only() {
    let Sealed { incarnation, kept, .. } = sealed();
    let other = Service::new();
    let replayed = [Entry::ReplayMark(&incarnation), kept.entry()];
    assert_eq!(other.replay_refused(&[], &replayed, &kept.tag), LOG_CHANGED);
}

#[test]
fn live_comes_once_and_nothing_of_a_replay_after_it() {
    for message in [kind::LIVE, kind::TICKET] {
        let service = Service::new();
        let (mut control, _, _log) = service.start_live(&[]);
        let client = service.client(&mut control, None);
        let body: &[u8] = if message == kind::TICKET { &client.ticket } else { &[] };
        control.connection.send(message, &[body]);
        let violation = control.connection.expect(kind::FAILED);
        assert_eq!(violation_code(&violation), ViolationCode::BadHostMessage as u16);
    }
}

#[test]
fn what_is_refused_for_a_moment_far_ahead_is_replayed_as_refused_only() {
    let service = Service::new();
    let (mut control, first, mut log) = service.start_live(&[]);
    let client = service.client(&mut control, None);
    let far = client.request_after(0, 1, u64::MAX, &[get(b"k")]);
    let tag = match log.process(&[Entry::Request(&far)]).list()[..] {
        [Output::Refused(_), Output::Logged(tag)] => *tag,
        ref other => panic!("{other:?}"),
    };
    drop((control, log));
    let mark = Entry::ReplayMark(&first.incarnation);
    let replay = |role| Entry::Replay { role, request: &far };
    let (control, _, mut log) = service.start(&[]);
    end_replay(&mut log, &[mark, replay(None)], &tag);
    drop((control, log));
    assert_eq!(
        service.replay_refused(&[], &[mark, replay(Some(Role::Admin))], &tag),
        LOG_CHANGED
    );
}

#[test]
fn a_start_whose_register_does_not_take_it_has_told_nobody_and_changes_nothing() {
    let service = Service::new();
    let (mut control, first, mut log) = service.start_live(&[]);
    let client = service.client(&mut control, None);
    log.process(&[add_first(leaf(b"k"))]);
    let kept = admit(&mut log, &client, 1, b"one");
    drop((control, log));
    let replayed = [Entry::ReplayMark(&first.incarnation), kept.entry()];

    let in_the_way = service.scratch.state().join("register.new");
    std::fs::create_dir(&in_the_way).expect("a directory where the register writes");
    let (mut control, second, mut log) = service.start(&[]);
    let tag = end_replay(&mut log, &replayed, &kept.tag);
    control.connection.send(kind::LIVE, &[]);
    assert_eq!(control.connection.receive(), None, "the incarnation ends");
    drop((control, log));
    std::fs::remove_dir(&in_the_way).expect("it is empty");

    // with the mark of the one that failed, or without it
    let (control, _, mut log) = service.start(&[]);
    end_replay(&mut log, &replayed, &kept.tag);
    drop((control, log));
    let with_mark = [&replayed[..], &[Entry::ReplayMark(&second.incarnation)]].concat();
    let (mut control, _, mut log) = service.start(&[]);
    end_replay(&mut log, &with_mark, &tag);
    go_live(&mut control);
}
