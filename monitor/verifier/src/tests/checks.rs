//! Each check, by the log that only it refuses: with all checks the thread fails with the check's code, at the last entry; with that check
//! left out, the same log goes on, or fails elsewhere. A check that no scenario names fails a test of its own.

use std::collections::BTreeSet;
use std::string::String;
use std::vec::Vec;

use super::checks_of_epochs::EPOCHS;
use super::checks_of_records::RECORDS;
use super::checks_of_runs::RUNS;
use super::left_out::without;
use super::symbolic::SymbolicCrypto;
use super::world::{Log, World, key};
use super::write_ahead::WRITE_AHEAD;
use crate::entry::ThreadId;
use crate::thread::Progress;
use crate::violation::{Violation, ViolationCode};

/// What the last entry comes to with the check left out.
pub enum Otherwise {
    /// Accepted.
    Accepted,
    /// Refused by another check.
    Refused(ViolationCode),
    /// The check gives what the next step needs (a slot, a side, a direction): the code does not compile without it.
    Inseparable,
}

/// A log that a check refuses.
pub struct Scenario {
    /// The check's name in the source, or for one that is inseparable what it is about.
    pub check: &'static str,
    /// Other checks that would refuse the log before.
    pub also_without: &'static [&'static str],
    pub code: ViolationCode,
    /// The path of the violation's key.
    pub key: &'static str,
    /// Brings the world to where the entry is wrong: the thread, and that entry.
    pub log: fn(&mut World<SymbolicCrypto>) -> (ThreadId, Log),
    pub otherwise: Otherwise,
}

fn all() -> impl Iterator<Item = &'static Scenario> {
    [RECORDS, EPOCHS, RUNS, WRITE_AHEAD].into_iter().flatten()
}

#[test]
fn each_check_refuses_its_log() {
    for scenario in all() {
        without(scenario.also_without, || {
            let name = scenario.check;
            let mut world = World::symbolic(2);
            let (thread, entry) = (scenario.log)(&mut world);
            let offset = world.offsets[usize::from(thread)];
            let epoch = world.threads[usize::from(thread)].clock().epoch;
            let violation = Violation {
                code: scenario.code,
                thread,
                epoch,
                offset,
                key: key(scenario.key),
            };
            let (progress, _) = world.process(thread, &entry);
            assert_eq!(progress, Progress::Failed(violation), "{name}");
            let (progress, answers) = world.process(thread, &Log::new().tick());
            assert_eq!(progress, Progress::Failed(violation), "{name}: a violation is final");
            assert_eq!(answers, [], "{name}");
        });
    }
}

#[test]
fn no_other_check_refuses_its_log() {
    for scenario in all() {
        let expected = match scenario.otherwise {
            Otherwise::Accepted => None,
            Otherwise::Refused(code) => Some(code),
            Otherwise::Inseparable => continue,
        };
        let left_out = [scenario.also_without, &[scenario.check]].concat();
        without(&left_out, || {
            let mut world = World::symbolic(2);
            let (thread, entry) = (scenario.log)(&mut world);
            let code = match world.process(thread, &entry).0 {
                Progress::Failed(violation) => Some(violation.code),
                Progress::Done => None,
                Progress::Waiting { .. } => panic!("{}: waits", scenario.check),
            };
            assert_ne!(code, Some(scenario.code), "{}", scenario.check);
            assert_eq!(code, expected, "{}", scenario.check);
        });
    }
}

/// The names in the source, each of which stands there once.
pub fn names_in_the_source() -> Vec<String> {
    let sources = [
        include_str!("../cache.rs"),
        include_str!("../chain.rs"),
        include_str!("../epochs.rs"),
        include_str!("../thread.rs"),
        include_str!("../thread/requests.rs"),
    ];
    let mut names = Vec::new();
    for source in sources {
        for opening in ["check!(", "holds!("] {
            names.extend(source.split(opening).skip(1).map(|rest| {
                let name = rest.trim_start().split(':').next().expect("a first part");
                String::from(name)
            }));
        }
    }
    names
}

#[test]
fn every_check_has_a_scenario() {
    let in_source = names_in_the_source();
    let distinct: BTreeSet<_> = in_source.iter().map(String::as_str).collect();
    assert_eq!(distinct.len(), in_source.len(), "names are unique: {in_source:?}");
    let separable = all().filter(|scenario| !matches!(scenario.otherwise, Otherwise::Inseparable));
    let mut in_scenarios: BTreeSet<_> = separable.map(|scenario| scenario.check).collect();
    in_scenarios.insert("add_blum_clock_passed"); // waits before it fails: `attacks` has its test
    assert_eq!(distinct, in_scenarios);
}

#[test]
fn every_check_is_documented() {
    let document = include_str!("../../../../docs/verification.md");
    for name in names_in_the_source() {
        let lines = document
            .lines()
            .filter(|line| line.starts_with('|') && line.contains(&std::format!("`{name}` |")));
        assert_eq!(lines.count(), 1, "{name}");
    }
}

#[test]
fn every_code_of_a_thread_has_a_scenario() {
    let of_threads = ViolationCode::ALL.iter().filter(|code| (**code as u16) < 40);
    let unused: Vec<_> = of_threads
        .filter(|code| all().all(|scenario| scenario.code != **code))
        .collect();
    // it waits before it fails: `attacks` has its test
    assert_eq!(unused, [&ViolationCode::ClockNotPassed]);
}
