//! A write-ahead log through crashes of the host: tickets, `live`, what former clients are told.

use crate::client::{Client, get, put};
use crate::host::{Control, Log, add_first, leaf, run};
use crate::monitor_process::{MonitorProcess, Scratch};
use zetakv_monitor::wire::kind;
use zetakv_verifier::entry::Entry;
use zetakv_verifier::machine::Role;
use zetakv_verifier::output::Output;

/// End the replay with this tag: the tag of the new incarnation's mark.
pub fn end_replay(log: &mut Log, replayed: &[Entry<'_>], tag: &[u8; 16]) -> [u8; 16] {
    let entries = [replayed, &[Entry::EndReplay(tag)]].concat();
    match log.process(&entries).list()[..] {
        [Output::Logged(tag)] => *tag,
        ref other => panic!("{other:?}"),
    }
}

pub fn go_live(control: &mut Control) {
    control.connection.send(kind::LIVE, &[]);
    control.connection.expect(kind::IS_LIVE);
}

#[test]
fn what_was_answered_is_replayed_and_what_was_lost_stays_so() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let admin = scratch.admin_key();
    let open = |control: &mut Control, former: Option<&Client>| {
        let former = former.map(Client::former);
        Client::open(control, &monitor.fingerprint, Some(&admin), former.as_ref()).expect("the admin")
    };

    // the first incarnation admits two requests
    let (mut control, first) = Control::start_with(&monitor, 1, true, &[]);
    let mut log = Log::open(&monitor, 0);
    end_replay(&mut log, &[], &[0; 16]);
    go_live(&mut control);
    let client = open(&mut control, None);
    let requests = [
        client.request(0, 1, &[put(b"k", b"one")]),
        client.request(0, 2, &[get(b"k")]),
    ];
    let mut tags = Vec::new();
    for request in &requests {
        match log.process(&[Entry::Request(request)]).list()[..] {
            [Output::Admitted(_), Output::Logged(tag)] => tags.push(*tag),
            ref other => panic!("{other:?}"),
        }
    }
    drop((control, log));

    // the second has the first request only; one that crashes before it is live changes nothing
    let role = Some(Role::Admin);
    let kept = [
        Entry::ReplayMark(&first.incarnation),
        Entry::Replay {
            role,
            request: &requests[0],
        },
    ];
    for _ in 0..2 {
        let (control, _) = Control::start_with(&monitor, 1, true, &[]);
        end_replay(&mut Log::open(&monitor, 0), &kept, &tags[0]);
        drop(control);
    }
    let (mut control, _) = Control::start_with(&monitor, 1, true, &[]);
    control.connection.send(kind::TICKET, &[&client.ticket]);
    let mut log = Log::open(&monitor, 0);
    end_replay(&mut log, &kept, &tags[0]);
    go_live(&mut control);
    let again = open(&mut control, Some(&client));
    assert_eq!((again.former_status, &again.former_last[..]), (1, &[0][..]));
    assert_eq!((&again.former_replayed[..], again.replay_epoch), (&[1][..], 1));
    assert!(again.session > client.session);
    let outputs = log.process(&[add_first(leaf(b"k")), run(1)]);
    assert!(matches!(outputs.list()[..], [Output::Receipt(_)]), "it runs again");
    drop((control, log));

    // the second request was told to be lost: it never comes back
    let (control, _) = Control::start_with(&monitor, 1, true, &[]);
    let all = [
        kept[0],
        kept[1],
        Entry::Replay {
            role,
            request: &requests[1],
        },
        Entry::EndReplay(&tags[1]),
    ];
    let violation = Log::open(&monitor, 0).process(&all).violation();
    assert_eq!(violation[36..38], 44u16.to_le_bytes());
    drop(control);
}

#[test]
fn before_it_is_live_nobody_is_served() {
    for (message, body) in [
        (kind::LIVE, &[][..]), // no thread has ended its replay
        (kind::TICKET, &[0; 98]),
        (kind::HELLO, &[0; 300]),
        (kind::DURABLE, &[1, 0, 0, 0]),
    ] {
        let scratch = Scratch::new();
        let monitor = MonitorProcess::start(&scratch, &[]);
        let (mut control, _) = Control::start_with(&monitor, 1, true, &[]);
        control.connection.send(message, &[body]);
        let violation = control.connection.expect(kind::FAILED);
        assert_eq!(violation[36..38], 43u16.to_le_bytes(), "{message:#x}");
    }
}

/// What was replayed is in no sealed state before `live`: its clients could be told that it never ran.
#[test]
fn before_it_is_live_no_epoch_is_handed_over() {
    let scratch = Scratch::new();
    let monitor = MonitorProcess::start(&scratch, &[]);
    let (mut control, _) = Control::start_with(&monitor, 1, true, &[]);
    Log::open(&monitor, 0).send(&[Entry::EndReplay(&[0; 16]), Entry::NextEpoch, Entry::VerifyEpoch]);
    let violation = control.connection.expect(kind::FAILED);
    assert_eq!(violation[36..38], 43u16.to_le_bytes());
}
