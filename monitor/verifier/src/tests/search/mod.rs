//! Search over every log that a malicious host can write, on small trees.
//!
//! A state is what a monitor of one or two threads holds between two entries, what it has sealed, and what a read must return; a step is
//! an entry of the host's choice, an operation of a client that the host lets run, a certificate, or a crash. Each step is done by the real
//! verifier. An epoch that is sealed although something wrong was read in it, or before, is an attack. docs/search.md has the results.

mod canaries;
mod configurations;
mod explore;
mod given_up;
mod long;
mod moves;
mod path;
mod replay;
mod state;
mod steps;
mod terms;
mod walks;

use std::collections::BTreeSet;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;
use std::{env, fs, println};

use self::canaries::{CANARIES, line, names, row, search};
use self::configurations::{Configuration, THE_SUMS};
use self::explore::{Limits, explore};
use self::given_up::all_sealed;
use self::moves::Rules;
use self::walks::{Compared, walk};
use super::checks::names_in_the_source;
use super::random_logs::Random;

/// For a search that is to come to its end, however slow the machine.
const TO_THE_END: Limits = Limits {
    depth: usize::MAX,
    states: 300_000,
    time: Duration::from_secs(3600),
    workers: 1,
};

/// Configurations with all their states, and how far the longest shortest path goes.
const EXHAUSTED: &[(Configuration, usize, usize)] = &[
    (Configuration::new(1, &["000"], 2, 2, true), 2_035, 21),
    (Configuration::new(1, &["00", "000"], 3, 3, false), 17_925, 30),
    (Configuration::new(2, &["000"], 2, 3, false), 20_320, 28),
    (Configuration::new(2, &["000"], 2, 2, true), 38_235, 32),
];

/// Configurations, and to what depth they are searched with nothing given up.
const GIVEN_UP: &[(Configuration, usize)] = &[
    (Configuration::new(1, &["000"], 2, 3, true), 16),
    (Configuration::new(1, &["00", "000"], 3, 2, true), 13),
    (Configuration::new(2, &["000"], 2, 2, true), 12),
];

#[test]
fn no_log_is_an_attack() {
    for (configuration, states, depth) in EXHAUSTED {
        let report = explore(&configuration.rules(&[]), &[], TO_THE_END);
        let described = line(configuration, &[], &report);
        assert!(report.attack.is_none() && report.exhausted, "{described}");
        assert_eq!(
            (report.states(), report.depth(), report.counts.cut_off),
            (*states, *depth, 0),
            "{described}"
        );
    }
}

/// Whatever the reductions leave out changes nothing: with all that is left out, up to some depth, no attack either.
#[test]
fn what_is_left_out_is_refused() {
    for threads in [1, 2] {
        let configuration = Configuration::new(threads, &["000"], 2, 2, true);
        let limits = Limits { depth: 4, ..TO_THE_END };
        let report = explore(&configuration.rules_with_everything(), &[], limits);
        assert!(report.attack.is_none(), "{}", line(&configuration, &[], &report));
        assert_eq!(report.depth(), 4);
    }
}

/// Whatever the search gives up, as doomed, comes to nothing: the same is sealed without giving anything up, as far as that can be searched.
#[test]
fn what_is_given_up_is_never_sealed() {
    for (configuration, depth) in GIVEN_UP {
        let rules = configuration.rules(&[]);
        let sealed = all_sealed(&rules, *depth);
        let with_all = all_sealed(&Rules { doom: false, ..rules }, *depth);
        assert_eq!(sealed, with_all, "{}", configuration.name());
        assert!(sealed.len() > 4, "{}", configuration.name());
    }
}

/// Seeds of random walks.
const WALKS: u64 = 100;
const TRIES: usize = 200;

#[test]
fn the_search_does_what_threads_do_that_run_through() {
    let mut compared = Compared::default();
    for seed in 1..=WALKS {
        println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)); // small seeds begin alike
        for (threads, paths) in [(1, &["00", "000", "001"][..]), (2, &["00", "000"])] {
            walk(
                &Configuration::new(threads, paths, 4, 6, true),
                &mut random,
                TRIES,
                &mut compared,
            );
        }
    }
    println!("{compared:?}");
    assert!(compared.accepted > 1_000 && compared.refused > 1_000, "{compared:?}");
    assert!(
        compared.carried_over > 100 && compared.run_in_closing > 100,
        "{compared:?}"
    );
}

#[test]
fn each_check_by_its_absence() {
    let searched = CANARIES
        .iter()
        .map(|(check, finding)| search(check, finding, TO_THE_END));
    let (as_said, not_as_said): (Vec<_>, Vec<_>) = searched.partition(Result::is_ok);
    as_said.into_iter().flatten().for_each(|found| println!("{found}"));
    let not_as_said: Vec<_> = not_as_said.into_iter().filter_map(Result::err).collect();
    assert!(not_as_said.is_empty(), "{}", not_as_said.join("\n"));
}

#[test]
fn every_check_is_in_the_table() {
    let mut in_source: BTreeSet<_> = names_in_the_source().into_iter().collect();
    in_source.insert(THE_SUMS.to_string());
    let in_table: BTreeSet<_> = names().into_iter().map(String::from).collect();
    assert_eq!(in_source, in_table);
    assert_eq!(CANARIES.len(), in_table.len(), "each once");
}

#[test]
fn the_table_is_documented() {
    let document = include_str!("../../../../../docs/search.md");
    let documented: Vec<_> = document.lines().filter(|line| line.starts_with("| `")).collect();
    let table: Vec<_> = CANARIES.iter().map(|(check, finding)| row(check, finding)).collect();
    assert_eq!(
        documented,
        table,
        "docs/search.md is to have these rows:\n{}",
        table.join("\n")
    );
}

/// `make search`: as far as it comes in about `SEARCH_SECONDS`, on two processors.
#[test]
#[ignore = "takes minutes"]
fn long_search() {
    let seconds = env::var("SEARCH_SECONDS").map_or(600, |text| text.parse().expect("a number of seconds"));
    let found = long::search_for(Duration::from_secs(seconds));
    let summary = found.summary();
    if let Ok(file) = env::var("SEARCH_SUMMARY") {
        fs::write(&file, &summary).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    assert!(
        found.is_ok(),
        "attacks, or canaries that are not as the table says: {summary}"
    );
}
