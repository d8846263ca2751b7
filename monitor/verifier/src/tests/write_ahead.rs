//! Write-ahead logs: honest ones are replayed, wherever the crash came; all others are refused at the end of the replay.

use std::vec::Vec;

use zeroize::Zeroizing;

use super::checks::Otherwise::{Accepted, Inseparable};
use super::checks::Scenario;
use super::symbolic::SymbolicCrypto;
use super::world::{Answer, Log, NULL, SESSION, World, exchange, get, leaf, put, ts};
use crate::chain::{Chain, Incarnation, LogConfig, Replayed};
use crate::codec::Reader;
use crate::crypto::{Crypto as _, Mac};
use crate::entry::{Entry, ThreadId};
use crate::machine::{OperationResult, Role};
use crate::output::Output;
use crate::receipt::ReceiptHeader;
use crate::request::MacDomain;
use crate::thread::Progress;
use crate::violation::ViolationCode::{LogChanged, NotReplaying, RequestInProgress};

const NOBODY: Incarnation = [0; 16];
const FIRST: Incarnation = [1; 16];
const SECOND: Incarnation = [2; 16];
const THIRD: Incarnation = [3; 16];

#[derive(Clone, Debug, PartialEq)]
enum Item {
    Mark(Incarnation),
    Request(Option<Role>, Vec<u8>),
}

/// What an honest host keeps of one thread, and the tag after each item.
#[derive(Clone, Default)]
struct Kept {
    items: Vec<Item>,
    tags: Vec<Mac>,
}

impl Kept {
    fn push(&mut self, item: Item, answers: &[Answer]) {
        let Some(Answer::Logged(tag)) = answers.last() else {
            panic!("the last output is the tag: {answers:?}");
        };
        self.items.push(item);
        self.tags.push(*tag);
    }

    /// The first items, as an end that is torn off leaves them.
    fn cut(&self, count: usize) -> Self {
        Self {
            items: self.items[..count].to_vec(),
            tags: self.tags[..count].to_vec(),
        }
    }

    fn last_tag(&self) -> Mac {
        self.tags.last().copied().unwrap_or_default()
    }

    fn replay(&self) -> Log {
        replay(&self.items, &self.last_tag())
    }
}

fn replay(items: &[Item], tag: &Mac) -> Log {
    let entry = |log: Log, item: &Item| match item {
        Item::Mark(incarnation) => log.entry(&Entry::ReplayMark(incarnation)),
        Item::Request(role, request) => log.entry(&Entry::Replay { role: *role, request }),
    };
    items.iter().fold(Log::new(), entry).entry(&Entry::EndReplay(tag))
}

fn keep_log(
    world: &mut World<SymbolicCrypto>,
    incarnation: Incarnation,
    latest: Option<Incarnation>,
    tag: Option<Mac>,
) {
    for thread in &mut world.threads {
        thread.keep_log(LogConfig {
            key: Zeroizing::new([9; 32]),
            threads: 2,
            instance: [8; 16],
            incarnation,
            sealed_by: FIRST,
            tag,
            latest,
        });
    }
}

#[test]
fn each_key_belongs_to_one_thread_by_its_first_bits() {
    for threads in [1, 2, 4, 64, 256] {
        let config = || LogConfig {
            key: Zeroizing::new([9; 32]),
            threads,
            instance: [8; 16],
            incarnation: FIRST,
            sealed_by: NOBODY,
            tag: None,
            latest: None,
        };
        let crypto = SymbolicCrypto::default();
        let chains: Vec<_> = (0..threads)
            .map(|thread| Chain::new(config(), thread, &crypto))
            .collect();
        for first in 0..=255 {
            let mut key = [0xff; 32];
            key[0] = first;
            let owners: Vec<_> = (0..threads)
                .filter(|thread| chains[usize::from(*thread)].owns(&key))
                .collect();
            assert_eq!(owners, [u16::from(first) / (256 / threads)]);
        }
    }
}

/// An incarnation in its replay, after one that was live.
fn started(crypto: &SymbolicCrypto, incarnation: Incarnation, latest: Incarnation) -> World<SymbolicCrypto> {
    let mut world = World::new(2, || crypto.clone());
    keep_log(&mut world, incarnation, Some(latest), None);
    world
}

/// Replay what is kept of thread 0; then the mark of the new incarnation is kept, too.
#[track_caller]
fn replayed(world: &mut World<SymbolicCrypto>, incarnation: Incarnation, kept: &Kept) -> Kept {
    let answers = world.accepted(0, kept.replay());
    let mut kept = kept.clone();
    kept.push(Item::Mark(incarnation), &answers);
    kept
}

/// Let thread 0 admit, or refuse, the client's next request.
#[track_caller]
fn request(world: &mut World<SymbolicCrypto>, kept: &mut Kept, sequence: u64, operation: Vec<u8>) {
    let request = world.make_request(0, sequence, |_| {}, &[operation]);
    let answers = world.accepted(0, Log::new().request(&request));
    let role = match answers[0] {
        Answer::Admitted(role) => Some(role),
        Answer::Refused(_) => None,
        ref other => panic!("{other:?}"),
    };
    kept.push(Item::Request(role, request), &answers);
}

/// The first incarnation, live, with two puts and a request that is refused.
fn first(crypto: &SymbolicCrypto) -> (World<SymbolicCrypto>, Kept) {
    let mut world = started(crypto, FIRST, NOBODY);
    let mut kept = replayed(&mut world, FIRST, &Kept::default());
    request(&mut world, &mut kept, 1, put("000", "one"));
    request(&mut world, &mut kept, 2, exchange("000", "100")); // of another thread
    request(&mut world, &mut kept, 3, put("000", "two"));
    assert_eq!(kept.items.len(), 4);
    (world, kept)
}

fn changed_scenario(world: &mut World<SymbolicCrypto>, change: fn(&mut Kept)) -> (ThreadId, Log) {
    let (_, mut kept) = first(&world.crypto);
    change(&mut kept);
    keep_log(world, SECOND, Some(FIRST), None);
    let end = Log::new().entry(&Entry::EndReplay(&kept.last_tag()));
    let replay = kept.replay().0;
    world.accepted(0, Log(replay[..replay.len() - end.0.len()].to_vec()));
    (0, end)
}

pub const WRITE_AHEAD: &[Scenario] = &[
    Scenario {
        check: "replay_is_what_was_logged",
        also_without: &[],
        code: LogChanged,
        key: "",
        log: |world| changed_scenario(world, |kept| kept.items.swap(1, 3)),
        otherwise: Accepted,
    },
    Scenario {
        check: "replay_has_latest_mark",
        also_without: &[],
        code: LogChanged,
        key: "",
        log: |world| {
            let (_, kept) = first(&world.crypto);
            // the second begins without the last request, and tells its client so; the third has it all the same
            let mut second = started(&world.crypto, SECOND, FIRST);
            replayed(&mut second, SECOND, &kept.cut(3));
            keep_log(world, THIRD, Some(SECOND), None);
            let replay = kept.replay().0;
            world.accepted(0, Log(replay[..replay.len() - 17].to_vec()));
            (0, Log::new().entry(&Entry::EndReplay(&kept.last_tag())))
        },
        otherwise: Accepted,
    },
    Scenario {
        check: "next_epoch_after_all_logged",
        also_without: &[],
        code: RequestInProgress,
        key: "",
        log: |world| {
            keep_log(world, FIRST, None, None);
            world.accepted(0, Kept::default().replay());
            let request = world.make_request(0, 1, |_| {}, &[get("000")]);
            world.accepted(0, Log::new().request(&request));
            (0, Log::new().next_epoch())
        },
        otherwise: Accepted,
    },
    Scenario {
        check: "next_epoch_after_all_logged",
        also_without: &[],
        code: RequestInProgress,
        key: "",
        log: |world| {
            keep_log(world, FIRST, None, None);
            (0, Log::new().next_epoch())
        },
        otherwise: Accepted,
    },
    Scenario {
        check: "the replay of a mark",
        also_without: &[],
        code: NotReplaying,
        key: "",
        log: |_| (0, Log::new().entry(&Entry::ReplayMark(&FIRST))),
        otherwise: Inseparable,
    },
    Scenario {
        check: "the replay of a request",
        also_without: &[],
        code: NotReplaying,
        key: "",
        log: |world| {
            let (_, kept) = first(&world.crypto);
            keep_log(world, SECOND, Some(FIRST), None);
            world.accepted(0, kept.replay());
            (0, replay(&kept.items[1..2], &[0; 16]))
        },
        otherwise: Inseparable,
    },
    Scenario {
        check: "the end of the replay",
        also_without: &[],
        code: NotReplaying,
        key: "",
        log: |world| {
            keep_log(world, FIRST, None, None);
            world.accepted(0, Kept::default().replay());
            (0, Kept::default().replay())
        },
        otherwise: Inseparable,
    },
];

#[track_caller]
fn assert_refused(world: &mut World<SymbolicCrypto>, thread: ThreadId, log: &Log, what: &str) {
    match world.process(thread, log).0 {
        Progress::Failed(violation) => assert_eq!(violation.code, LogChanged, "{what}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn what_was_logged_runs_again_with_the_same_results() {
    let crypto = SymbolicCrypto::default();
    let (_, kept) = first(&crypto);
    let mut world = started(&crypto, SECOND, FIRST);
    replayed(&mut world, SECOND, &kept);
    let told = world.threads[0].replayed_sessions().expect("it has ended");
    let last = Replayed {
        incarnation: FIRST,
        sequence: 3,
    };
    assert_eq!(told.iter().collect::<Vec<_>>(), [(&SESSION, &last)]);

    // the request that was refused does not run again
    let mut outputs = Vec::new();
    let runs = Log::new().add_merkle(1, 0, "000", NULL).run(&[1]).run(&[1]);
    assert_eq!(world.threads[0].process(&runs.0, &mut outputs), Progress::Done);
    let mut reader = Reader::new(&outputs);
    for sequence in [1, 3] {
        let Ok(Output::Receipt(receipt)) = Output::decode(&mut reader) else {
            panic!("a receipt");
        };
        let (covered, mac) = receipt.split_last_chunk::<16>().expect("a MAC");
        let mut fields = Reader::new(covered);
        let header = ReceiptHeader::decode(&mut fields).expect("a header");
        assert_eq!((header.session, header.sequence), (SESSION, sequence));
        assert_eq!(OperationResult::decode(&mut fields), Ok(OperationResult::Ok));
        let request = &kept.items[sequence as usize];
        let Item::Request(_, request) = request else {
            panic!("a request");
        };
        let parts = [covered, &request[request.len() - 16..]];
        assert!(
            !crypto.mac_is(&super::world::RECEIPT_KEY, MacDomain::Receipt, &parts, mac),
            "of use to nobody"
        );
    }
    assert_eq!(reader.remaining(), 0);

    // the epoch that they ran in hands them over, once
    let answers = world.accepted(0, Log::new().evict_merkle(1, 0).next_epoch().verify_epoch());
    assert_eq!(answers, [Answer::HandedOver(1)]);
    let snapshot = world.threads[0].take_snapshot().expect("a snapshot");
    assert_eq!(
        snapshot.end.sessions,
        [(SESSION, 0), (SESSION, 3)],
        "of this incarnation, and of the one before"
    );
    world.clocks.certify(1);
    world.accepted(0, Log::new().next_epoch().verify_epoch());
    let snapshot = world.threads[0].take_snapshot().expect("a snapshot");
    assert_eq!(snapshot.end.sessions, [(SESSION, 0)]);
    // whoever asks only now, because all of this was in one piece of the log, is told all the same
    let told = world.threads[0].replayed_sessions().expect("it has ended");
    assert_eq!(told.get(&SESSION), Some(&last));
}

#[test]
fn every_end_may_be_lost_and_nothing_else() {
    let crypto = SymbolicCrypto::default();
    let (_, kept) = first(&crypto);
    for count in 0..=kept.items.len() {
        replayed(&mut started(&crypto, SECOND, FIRST), SECOND, &kept.cut(count));
    }
    let last = kept.last_tag();
    let refused = |what: &str, change: &dyn Fn(&mut Vec<Item>)| {
        let mut items = kept.items.clone();
        change(&mut items);
        for tag in [last, *kept.tags.first().expect("one"), Mac::default()] {
            let mut world = started(&crypto, SECOND, FIRST);
            assert_refused(&mut world, 0, &replay(&items, &tag), what);
        }
    };
    for index in 0..kept.items.len() {
        refused("left out", &|items| drop(items.remove(index)));
        refused("twice", &|items| items.insert(index, items[index].clone()));
        refused("changed", &|items| match &mut items[index] {
            Item::Mark(incarnation) => incarnation[0] ^= 4,
            Item::Request(_, request) => request[40] ^= 1,
        });
        for other in 0..index {
            refused("in another order", &|items| items.swap(index, other));
        }
    }
    for (index, role) in [(1, None), (1, Some(Role::Read)), (2, Some(Role::Admin))] {
        let outcome = |items: &mut Vec<Item>| {
            let Item::Request(outcome, _) = &mut items[index] else {
                panic!("a request");
            };
            *outcome = role;
        };
        refused("another outcome", &outcome);
    }
    refused("another's mark in between", &|items| items.insert(2, Item::Mark(THIRD)));
    assert_refused(
        &mut started(&crypto, SECOND, FIRST),
        1,
        &kept.replay(),
        "another thread's",
    );
}

#[test]
fn starts_that_crash_leave_a_log_that_replays() {
    let crypto = SymbolicCrypto::default();
    let (_, mut kept) = first(&crypto);
    // none of these was ever live: their marks may be kept or torn off
    for number in 10..15 {
        let mut world = started(&crypto, [number; 16], FIRST);
        let with_mark = replayed(&mut world, [number; 16], &kept);
        if number % 2 == 0 {
            kept = with_mark;
        }
    }
    // this one is
    let mut world = started(&crypto, SECOND, FIRST);
    let mut kept = replayed(&mut world, SECOND, &kept);
    request(&mut world, &mut kept, 1, put("000", "three"));
    // whatever is lost from here on, the next one has all that the second replayed, or nothing
    for count in 0..=kept.items.len() {
        let cut = kept.cut(count);
        let mut world = started(&crypto, THIRD, SECOND);
        let is_empty = count <= 1; // a mark alone is nothing
        if !is_empty && !cut.items.contains(&Item::Mark(SECOND)) {
            assert_refused(&mut world, 0, &cut.replay(), "without what the second replayed");
        } else {
            replayed(&mut world, THIRD, &cut);
        }
    }
}

#[test]
fn a_longer_log_of_an_older_incarnation_never_comes_back() {
    let crypto = SymbolicCrypto::default();
    let (_, kept) = first(&crypto);
    // the second lost everything, tells so, and goes on
    let mut world = started(&crypto, SECOND, FIRST);
    let mut second = replayed(&mut world, SECOND, &Kept::default());
    request(&mut world, &mut second, 1, put("000", "of the second"));
    assert_refused(
        &mut started(&crypto, THIRD, SECOND),
        0,
        &kept.replay(),
        "told to be lost",
    );
    replayed(&mut started(&crypto, THIRD, SECOND), THIRD, &second);
    // not even with a mark that is put in front, or behind
    for at in [0, kept.items.len()] {
        let mut items = kept.items.clone();
        items.insert(at, Item::Mark(SECOND));
        assert_refused(
            &mut started(&crypto, THIRD, SECOND),
            0,
            &replay(&items, &kept.last_tag()),
            "told to be lost, under another mark",
        );
    }
}

#[test]
fn a_sealed_state_goes_on_from_its_tag() {
    let crypto = SymbolicCrypto::default();
    let (mut world, mut kept) = first(&crypto);
    let runs = Log::new().add_merkle(1, 0, "000", NULL).run(&[1]).run(&[1]);
    world.accepted(0, runs.evict_blum_merkle(1, 0, ts(1, 5)).next_epoch());
    let (before, tag_before) = (kept.items.len(), kept.last_tag());
    request(&mut world, &mut kept, 4, get("000")); // while the first epoch closes: it is of the second
    assert_ne!(kept.last_tag(), tag_before);
    let carried = Log::new().carry_over("000", leaf("two"), ts(1, 5), 0);
    world.accepted(0, carried.verify_epoch());
    let tag = world.threads[0].take_snapshot().expect("a snapshot").end.tag;
    assert_eq!(tag, Some(tag_before));

    // from the state before: all of it. From this one: what came after. Nothing else
    replayed(&mut started(&crypto, SECOND, FIRST), SECOND, &kept);
    let from_tag = |items: &[Item]| {
        let mut world = World::new(2, || crypto.clone());
        keep_log(&mut world, SECOND, None, tag);
        world.process(0, &replay(items, &kept.last_tag())).0
    };
    assert_eq!(from_tag(&kept.items[before..]), Progress::Done);
    assert!(matches!(from_tag(&kept.items), Progress::Failed(_)), "twice");
    assert!(
        matches!(from_tag(&kept.items[before - 1..]), Progress::Failed(_)),
        "twice"
    );
}

#[test]
fn nobody_else_is_served_in_the_replay() {
    let mut world = World::symbolic(2);
    keep_log(&mut world, FIRST, None, None);
    world.threads[0].close_session(SESSION); // no session is open then
    let request = world.make_request(0, 1, |_| {}, &[get("000")]);
    assert!(matches!(
        world.accepted(0, Log::new().request(&request))[..],
        [Answer::Rejected(_)]
    ));
}

#[test]
fn what_does_not_fit_into_the_queue_is_not_yet() {
    let crypto = SymbolicCrypto::default();
    let mut world = started(&crypto, SECOND, FIRST);
    let operations: Vec<_> = (0..40).map(|_| get("000")).collect();
    let request = world.make_request(0, 1, |_| {}, &operations);
    let role = Some(Role::Read);
    let entry = Entry::Replay {
        role,
        request: &request,
    };
    assert_eq!(world.accepted(0, Log::new().entry(&entry)), [Answer::NotYet]);
}
