//! Requests, receipts, resumes: what clients send can be refused, but cannot make a thread fail.

use std::vec::Vec;

use super::symbolic::SymbolicCrypto;
use super::world::{
    Answer, FOUND_NULL, Log, NULL, QUEUE_BYTES, SESSION, World, found, get, increment, put, session_keys, ts,
};
use crate::machine::{OperationResult, Role};
use crate::queue::QUEUED_MAX;
use crate::receipt::{ReceiptHeader, Resumed};
use crate::request::{Rejection, RequestError};

const ADMITTED: Answer = Answer::Admitted(Role::Admin);

fn rejected(reason: Rejection) -> Answer {
    Answer::Rejected(reason as u8)
}

/// What thread 0 answers to one request.
fn answer(world: &mut World<SymbolicCrypto>, request: &[u8]) -> Answer {
    let mut answers = world.accepted(0, Log::new().request(request));
    assert_eq!(answers.len(), 1, "one answer to each request: {answers:?}");
    answers.remove(0)
}

/// The leaf 000 cached in slot 1.
fn world_with_leaf() -> World<SymbolicCrypto> {
    let mut world = World::symbolic(1);
    world.accepted(0, Log::new().add_merkle(1, 0, "000", NULL));
    world
}

fn sequences_of_receipts(answers: &[Answer]) -> Vec<u64> {
    let sequence = |answer: &Answer| match answer {
        Answer::Receipt(header, _) => header.sequence,
        other => panic!("a receipt, not {other:?}"),
    };
    answers.iter().map(sequence).collect()
}

#[test]
fn a_receipt_says_what_ran() {
    let mut world = world_with_leaf();
    let operations = [put("000", "a"), get("000"), increment("000", 1)];
    let request = world.make_request(0, 1, |header| header.after_ts = ts(1, 1).to_u64(), &operations);
    assert_eq!(answer(&mut world, &request), ADMITTED);
    // in two pieces: the receipt comes with the last operation
    assert_eq!(world.accepted(0, Log::new().run(&[1]).run(&[1])), []);
    let header = ReceiptHeader {
        session: SESSION,
        generation: 1,
        thread: 0,
        count: 3,
        sequence: 1,
        ts: ts(1, 2).to_u64(), // past after_ts
        error: 0,
    };
    let results = [OperationResult::Ok, found("a"), OperationResult::NotANumber];
    assert_eq!(
        world.accepted(0, Log::new().run(&[1])),
        [Answer::Receipt(header, results.to_vec())]
    );
}

#[test]
fn what_is_not_authentic_or_out_of_turn_is_rejected() {
    let mut world = world_with_leaf();
    let operations = [get("000")];
    let good = world.make_request(0, 1, |_| {}, &operations);
    let unknown = world.make_request(0, 1, |header| header.session = 8, &operations);
    assert_eq!(answer(&mut world, &unknown), rejected(Rejection::UnknownSession));
    let elsewhere = world.make_request(0, 1, |header| header.thread = 1, &operations);
    assert_eq!(answer(&mut world, &elsewhere), rejected(Rejection::WrongThread));
    for generation in [0, 2] {
        let other = world.make_request(0, 1, |header| header.generation = generation, &operations);
        assert_eq!(answer(&mut world, &other), rejected(Rejection::BadGeneration));
    }
    for sequence in [0, 2, u64::MAX] {
        let other = world.make_request(0, sequence, |_| {}, &operations);
        assert_eq!(answer(&mut world, &other), rejected(Rejection::BadSequence));
    }
    for index in 0..good.len() {
        let mut changed = good.clone();
        changed[index] ^= 1;
        let expected = match index {
            0..8 => Rejection::UnknownSession,
            12..14 => Rejection::WrongThread,
            _ => Rejection::BadMac,
        };
        assert_eq!(answer(&mut world, &changed), rejected(expected), "byte {index}");
    }
    for length in [0, 1, 47, good.len() - 1] {
        let cut = answer(&mut world, &good[..length]);
        assert!(matches!(cut, Answer::Rejected(1 | 2)), "length {length}: {cut:?}");
    }
    // none of these has changed anything
    let good = world.make_request(0, 1, |_| {}, &operations);
    assert_eq!(answer(&mut world, &good), ADMITTED);
    assert_eq!(answer(&mut world, &good), rejected(Rejection::BadSequence), "once only");
    assert_eq!(world.results(0, Log::new().run(&[1])), [FOUND_NULL]);
}

#[test]
fn malformed_operations_get_an_error_receipt() {
    let null_put = [&[2][..], &[0; 32], &[0]].concat();
    let long_inline = [&[2][..], &[0; 32], &[1, 33], &[0; 33]].concat();
    let short_digest = [&[2][..], &[0; 32], &[2, 32, 0, 0, 0], &[0; 32]].concat();
    let unknown = [&[7][..], &[0; 32]].concat();
    let mut cut = get("000");
    cut.pop();
    let trailing = [get("000"), std::vec![0]].concat();
    let wrong = [null_put, long_inline, short_digest, unknown, cut, trailing];
    let mut world = world_with_leaf();
    let mut sequence = 0;
    let mut refused = |world: &mut World<SymbolicCrypto>, count: Option<u16>, operations: &[Vec<u8>]| {
        sequence += 1;
        let change =
            |header: &mut crate::request::RequestHeader| header.operations = count.unwrap_or(header.operations);
        let request = world.make_request(0, sequence, change, operations);
        let expected = ReceiptHeader {
            session: SESSION,
            generation: 1,
            thread: 0,
            count: 0,
            sequence,
            ts: ts(1, 1).to_u64(),
            error: RequestError::Malformed as u8,
        };
        assert_eq!(answer(world, &request), Answer::Refused(expected));
        assert_eq!(answer(world, &request), rejected(Rejection::BadSequence), "used up");
    };
    for operation in wrong {
        refused(&mut world, None, &[get("000"), operation]);
    }
    refused(&mut world, None, &[]);
    refused(&mut world, Some(2), &[get("000")]);
    refused(&mut world, Some(1), &[get("000"), get("000")]);
    refused(&mut world, Some(513), &[]);
    // the next in turn is admitted
    sequence += 1;
    world.admit(0, sequence, &[get("000")]);
}

#[test]
fn at_most_512_operations() {
    let mut world = World::symbolic(1);
    let config = crate::thread::ThreadConfig {
        thread: 0,
        slots: 1,
        certified_epoch: 0,
        root: Some(Default::default()),
        queue_bytes: 65_536,
    };
    let clocks = std::sync::Arc::clone(&world.clocks);
    let verifier = crate::thread::Verifier::new(config, world.crypto.clone(), Default::default(), clocks);
    world.threads[0] = verifier.expect("a thread");
    world.threads[0].open_session(session_keys(SESSION, Role::Admin));
    let most: Vec<_> = (0..512).map(|_| get("000")).collect();
    world.admit(0, 1, &most);
    let too_many: Vec<_> = (0..513).map(|_| get("000")).collect();
    let request = world.make_request(0, 2, |_| {}, &too_many);
    assert!(matches!(answer(&mut world, &request), Answer::Refused(header) if header.error == 1));
    let log = most.iter().fold(Log::new(), |log, _| log.run_absent(0));
    assert_eq!(world.results(0, log), std::vec![FOUND_NULL; 512]);
}

#[test]
fn a_moment_that_no_clock_has_reached_gets_an_error_receipt() {
    let mut world = World::symbolic(2);
    world.accepted(1, Log::new().tick().tick());
    for (sequence, after_ts, refused) in [(1, ts(1, 3), false), (2, ts(1, 4), true), (3, ts(2, 0), true)] {
        let request = world.make_request(0, sequence, |header| header.after_ts = after_ts.to_u64(), &[get("000")]);
        match answer(&mut world, &request) {
            Answer::Refused(header) => {
                assert!(refused, "{after_ts:?}");
                assert_eq!(header.error, RequestError::AfterTsAhead as u8);
            }
            other => assert_eq!((other, refused), (ADMITTED, false)),
        }
    }
    world.accepted(0, Log::new().run_absent(0));
    assert_eq!(world.threads[0].clock(), ts(1, 4), "past the first request's after_ts");
}

#[test]
fn a_moment_of_a_later_epoch_is_for_later() {
    let mut world = World::symbolic(2);
    assert!(matches!(world.close(1, Log::new()), Ok(None)));
    let request = world.make_request(0, 1, |header| header.after_ts = ts(2, 1).to_u64(), &[get("000")]);
    assert_eq!(answer(&mut world, &request), Answer::NotYet);
    world.accepted(0, Log::new().next_epoch());
    assert_eq!(answer(&mut world, &request), ADMITTED, "its sequence was not used up");
}

#[test]
fn a_moment_that_a_clock_may_have_shown_in_an_epoch_that_it_has_left_is_for_later() {
    let mut world = World::symbolic(3);
    world.accepted(1, Log::new().tick().tick());
    world.accepted(2, Log::new().tick().tick().tick().tick());
    assert!(matches!(world.close(2, Log::new()), Ok(None)));
    // thread 2 was at (1, 5), but it may as well have been further; thread 1 is at (1, 3)
    for late in [ts(1, 4), ts(1, 5), ts(1, u32::MAX)] {
        let request = world.make_request(0, 1, |header| header.after_ts = late.to_u64(), &[get("000")]);
        assert_eq!(answer(&mut world, &request), Answer::NotYet, "{late:?}");
    }
    let seen = world.make_request(0, 1, |header| header.after_ts = ts(1, 3).to_u64(), &[get("000")]);
    assert_eq!(answer(&mut world, &seen), ADMITTED);
    world.accepted(0, Log::new().run_absent(0));
    let last = world.make_request(0, 2, |header| header.after_ts = ts(1, u32::MAX).to_u64(), &[get("000")]);
    assert_eq!(answer(&mut world, &last), Answer::NotYet);
    world.accepted(0, Log::new().next_epoch());
    assert_eq!(answer(&mut world, &last), ADMITTED, "its sequence was not used up");
    assert_eq!(world.results(0, Log::new().run_absent(0)), [FOUND_NULL]);
    assert_eq!(world.threads[0].clock(), ts(2, 1));
}

#[test]
fn the_last_moment_of_an_earlier_epoch_is_passed() {
    let mut world = World::symbolic(1);
    assert!(matches!(world.close(0, Log::new()), Ok(Some(_))));
    let last = ts(1, u32::MAX).to_u64();
    let request = world.make_request(0, 1, |header| header.after_ts = last, &[get("000")]);
    assert_eq!(answer(&mut world, &request), ADMITTED);
    assert_eq!(world.results(0, Log::new().run_absent(0)), [FOUND_NULL]);
    assert_eq!(world.threads[0].clock(), ts(2, 1));
}

#[test]
fn a_moment_that_is_passed_already_leaves_the_clock() {
    let mut world = World::symbolic(2);
    world.accepted(
        0,
        Log::new().add_merkle(1, 0, "000", NULL).add_merkle(2, 0, "100", NULL),
    );
    world.accepted(1, Log::new().tick().tick().tick());
    world.accepted(0, Log::new().evict_blum_merkle(2, 0, ts(1, 5)));
    let request = world.make_request(0, 1, |header| header.after_ts = ts(1, 4).to_u64(), &[get("000")]);
    assert_eq!(answer(&mut world, &request), ADMITTED);
    world.accepted(0, Log::new().run(&[1]));
    assert_eq!(world.threads[0].clock(), ts(1, 5), "it was there already");
}

#[test]
fn a_full_queue_is_for_later() {
    let mut world = world_with_leaf();
    let operations: Vec<_> = (0..QUEUE_BYTES / 33).map(|_| get("000")).collect();
    world.admit(0, 1, &operations);
    let next = world.make_request(0, 2, |_| {}, &[get("000")]);
    assert_eq!(answer(&mut world, &next), Answer::NotYet);
    world.accepted(0, Log::new().run(&[1]));
    assert_eq!(answer(&mut world, &next), ADMITTED, "room for one operation");
    let log = operations.iter().fold(Log::new(), |log, _| log.run(&[1]));
    assert_eq!(world.results(0, log), [FOUND_NULL]);
}

#[test]
fn the_queue_counts_requests_too() {
    let mut world = World::symbolic(1);
    let config = crate::thread::ThreadConfig {
        thread: 0,
        slots: 1,
        certified_epoch: 0,
        root: Some(Default::default()),
        queue_bytes: QUEUED_MAX * 33 + 33,
    };
    let clocks = std::sync::Arc::clone(&world.clocks);
    let verifier = crate::thread::Verifier::new(config, world.crypto.clone(), Default::default(), clocks);
    world.threads[0] = verifier.expect("a thread");
    world.threads[0].open_session(session_keys(SESSION, Role::Admin));
    let mut sequence = 0;
    while sequence < QUEUED_MAX as u64 {
        sequence += 1;
        world.admit(0, sequence, &[get("000")]);
    }
    let next = world.make_request(0, sequence + 1, |_| {}, &[get("000")]);
    assert_eq!(answer(&mut world, &next), Answer::NotYet);
    let resume = world.make_resume(0, 2);
    assert_eq!(world.accepted(0, Log::new().resume(&resume)), [Answer::NotYet]);
    world.accepted(0, Log::new().run_absent(0));
    assert_eq!(
        answer(&mut world, &next),
        ADMITTED,
        "nor has the resume begun a generation"
    );
}

#[test]
fn long_use_of_a_queue_keeps_its_order() {
    let mut world = world_with_leaf();
    let mut sequence = 0;
    for round in 0..500_u64 {
        let first = sequence + 1;
        for count in [1, 3, 2 + round as usize % 7] {
            sequence += 1;
            let operations: Vec<_> = (0..count).map(|_| increment("000", sequence as i64)).collect();
            world.admit(0, sequence, &operations);
        }
        let log = (0..6 + round % 7).fold(Log::new(), |log, _| log.run(&[1]));
        let answers = world.accepted(0, log);
        assert_eq!(sequences_of_receipts(&answers), (first..=sequence).collect::<Vec<_>>());
    }
}

#[test]
fn a_role_is_that_of_the_admission() {
    let mut world = world_with_leaf();
    world.admit(0, 1, &[put("000", "a")]);
    world.threads[0].set_role(SESSION, Some(Role::Read));
    let request = world.make_request(0, 2, |_| {}, &[put("000", "b"), get("000")]);
    assert_eq!(answer(&mut world, &request), Answer::Admitted(Role::Read));
    world.threads[0].set_role(SESSION, None);
    let request = world.make_request(0, 3, |_| {}, &[get("000")]);
    assert_eq!(answer(&mut world, &request), rejected(Rejection::UnknownSession));
    assert_eq!(world.results(0, Log::new().run(&[1])), [OperationResult::Ok]);
    let results = world.results(0, Log::new().run(&[1]).run(&[1]));
    assert_eq!(results, [OperationResult::Forbidden, found("a")]);
    // it can still learn what became of its requests
    let resume = world.make_resume(0, 2);
    let answers = world.accepted(0, Log::new().resume(&resume));
    assert!(
        matches!(answers[..], [Answer::Resumed(Resumed { last_sequence: 2, .. })]),
        "{answers:?}"
    );
}

#[test]
fn what_a_closed_session_has_sent_still_runs_and_is_handed_over() {
    let mut world = world_with_leaf();
    world.admit(0, 1, &[put("000", "a")]);
    world.admit(0, 2, &[get("000")]);
    world.threads[0].close_session(SESSION);
    let request = world.make_request(0, 3, |_| {}, &[get("000")]);
    assert_eq!(answer(&mut world, &request), rejected(Rejection::UnknownSession));
    let resume = world.make_resume(0, 2);
    let answers = world.accepted(0, Log::new().resume(&resume));
    assert_eq!(answers, [rejected(Rejection::UnknownSession)]);
    assert_eq!(world.results(0, Log::new().run(&[1])), [OperationResult::Ok]);

    let close = |world: &mut World<SymbolicCrypto>| {
        let held = world.close(0, Log::new()).expect("holds").expect("all are in");
        held.sessions.into_iter().collect::<Vec<_>>()
    };
    world.accepted(0, Log::new().evict_merkle(1, 0));
    assert_eq!(close(&mut world), [(SESSION, std::vec![1])]);
    let cached = Log::new().add_merkle(1, 0, "000", super::world::leaf("a"));
    world.accepted(0, cached);
    assert_eq!(world.results(0, Log::new().run(&[1])), [found("a")]);
    world.accepted(0, Log::new().evict_merkle(1, 0));
    assert_eq!(close(&mut world), [(SESSION, std::vec![2])]);
    assert_eq!(close(&mut world), [], "nothing of it is left");
}

#[test]
fn a_session_that_is_closed_without_a_request_is_forgotten_at_once() {
    let mut world = World::symbolic(1);
    world.threads[0].close_session(SESSION);
    let held = world.close(0, Log::new()).expect("holds").expect("all are in");
    assert!(held.sessions.is_empty());
}

#[test]
fn a_resume_takes_its_turn_and_its_answer_is_final() {
    let mut world = world_with_leaf();
    world.admit(0, 1, &[put("000", "a")]);
    world.admit(0, 2, &[get("000"), get("000")]);
    let held_back = world.make_request(0, 3, |_| {}, &[get("000")]);
    let (second, third) = (world.make_resume(0, 2), world.make_resume(0, 3));
    assert_eq!(
        world.accepted(0, Log::new().resume(&second)),
        [],
        "its turn has not come"
    );
    assert_eq!(answer(&mut world, &held_back), rejected(Rejection::BadGeneration));
    let next = world.make_request(0, 3, |header| header.generation = 2, &[get("000")]);
    assert_eq!(answer(&mut world, &next), ADMITTED);
    let refused = world.make_request(0, 4, |header| header.generation = 2, &[]);
    assert!(matches!(answer(&mut world, &refused), Answer::Refused(_)));

    let mut answers = world.accepted(0, Log::new().run(&[1]).run(&[1]).run(&[1]));
    let resumed = |generation, last_sequence| {
        Answer::Resumed(Resumed {
            session: SESSION,
            generation,
            thread: 0,
            last_sequence,
            ts: ts(1, 1).to_u64(),
        })
    };
    assert_eq!(answers.pop(), Some(resumed(2, 2)), "not what was admitted after it");
    assert_eq!(sequences_of_receipts(&answers), [1, 2]);
    assert_eq!(world.results(0, Log::new().run(&[1])), [found("a")]);
    assert_eq!(world.accepted(0, Log::new().resume(&third)), [resumed(3, 4)], "at once");
    for old in [&second, &third] {
        assert_eq!(
            world.accepted(0, Log::new().resume(old)),
            [rejected(Rejection::BadGeneration)]
        );
    }
}

#[test]
fn several_resumes_wait_for_one_request() {
    let mut world = world_with_leaf();
    world.admit(0, 1, &[get("000")]);
    let (second, third) = (world.make_resume(0, 2), world.make_resume(0, 9));
    assert_eq!(world.accepted(0, Log::new().resume(&second).resume(&third)), []);
    let answers = world.accepted(0, Log::new().run(&[1]));
    let generations: Vec<_> = answers[1..]
        .iter()
        .map(|answer| match answer {
            Answer::Resumed(resumed) => (resumed.generation, resumed.last_sequence),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(generations, [(2, 1), (9, 1)]);
}

#[test]
fn resumes_that_are_not_authentic_are_rejected() {
    let mut world = world_with_leaf();
    let good = world.make_resume(0, 2);
    for index in 0..good.len() {
        let mut changed = good;
        changed[index] ^= 1;
        let expected = match index {
            0..8 => Rejection::UnknownSession,
            12..14 => Rejection::WrongThread,
            _ => Rejection::BadMac,
        };
        assert_eq!(
            world.accepted(0, Log::new().resume(&changed)),
            [rejected(expected)],
            "byte {index}"
        );
    }
    let elsewhere = world.make_resume(1, 2);
    assert_eq!(
        world.accepted(0, Log::new().resume(&elsewhere)),
        [rejected(Rejection::WrongThread)]
    );
    world.admit(0, 1, &[get("000")]);
}

#[test]
fn what_is_handed_over_is_done() {
    let mut world = World::symbolic(1);
    let handed_over = |world: &mut World<SymbolicCrypto>| {
        let held = world.close(0, Log::new()).expect("holds").expect("all are in");
        held.sessions[&SESSION].clone()
    };
    assert_eq!(handed_over(&mut world), [0]);
    world.admit(0, 1, &[get("000")]);
    world.admit(0, 2, &[get("000")]);
    let refused = world.make_request(0, 3, |_| {}, &[]);
    assert!(matches!(answer(&mut world, &refused), Answer::Refused(_)));
    assert_eq!(handed_over(&mut world), [0], "a refusal does not overtake what waits");
    world.accepted(0, Log::new().run_absent(0));
    assert_eq!(handed_over(&mut world), [1]);
    world.accepted(0, Log::new().run_absent(0));
    assert_eq!(handed_over(&mut world), [3], "and counts when all before it are done");
}

#[test]
fn sessions_do_not_mix() {
    let mut world = world_with_leaf();
    let other = SESSION + 1;
    world.threads[0].open_session(session_keys(other, Role::Read));
    world.admit(0, 1, &[get("000")]);
    let request = world.make_request(0, 1, |header| header.session = other, &[put("000", "a")]);
    assert_eq!(answer(&mut world, &request), Answer::Admitted(Role::Read));
    world.admit(0, 2, &[get("000")]);
    world.accepted(0, Log::new().evict_merkle(1, 0));
    let held = world.close(0, Log::new()).expect("holds").expect("all are in");
    assert_eq!(
        held.sessions.into_iter().collect::<Vec<_>>(),
        [(SESSION, std::vec![0]), (other, std::vec![0])]
    );
}
