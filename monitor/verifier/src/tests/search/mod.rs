//! Search over every log that a malicious host can write, on small trees.
//!
//! A state is what a monitor of one or two threads holds between two entries, what it has sealed, and what a read must return; a step is
//! an entry of the host's choice, an operation of a client that the host lets run, a certificate, or a crash. Each step is done by the real
//! verifier. An epoch that is sealed although something wrong was read in it, or before, is an attack. docs/search.md has the results.

mod canaries;
mod configurations;
mod explore;
mod moves;
mod renaming;
mod replay;
mod state;
mod steps;
mod terms;

use std::collections::BTreeSet;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;
use std::{env, format, fs, print, println};

use self::canaries::{CANARIES, Finding, LARGER, line, names, row, search};
use self::configurations::{Configuration, SEARCHED, THE_SUMS};
use self::explore::{Limits, explore};
use super::checks::names_in_the_source;

/// For a search that is to come to its end, however slow the machine.
const TO_THE_END: Limits = Limits {
    depth: usize::MAX,
    states: 300_000,
    time: Duration::from_secs(3600),
    workers: 1,
};

/// Configurations with all their states, and how far the longest shortest path goes.
const EXHAUSTED: &[(Configuration, usize, usize)] = &[
    (Configuration::new(1, &["000"], 2, 1, true), 743, 17),
    (Configuration::new(1, &["00", "000"], 3, 2, false), 2_025, 18),
    (Configuration::new(2, &["000"], 2, 2, false), 4_412, 18),
    (Configuration::new(2, &["000"], 2, 1, true), 11_313, 24),
];

#[test]
fn no_log_is_an_attack() {
    for (configuration, states, depth) in EXHAUSTED {
        let report = explore(&configuration.rules(&[]), &[], &[], TO_THE_END);
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
        let configuration = Configuration::new(threads, &["000"], 2, 1, true);
        let limits = Limits { depth: 4, ..TO_THE_END };
        let report = explore(&configuration.rules_with_everything(), &[], &[], limits);
        assert!(report.attack.is_none(), "{}", line(&configuration, &[], &report));
        assert_eq!(report.depth(), 4);
    }
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

/// `make search`: as far as it comes in `SEARCH_SECONDS`, on two processors.
#[test]
#[ignore = "takes minutes"]
fn long_search() {
    let seconds: u64 = env::var("SEARCH_SECONDS").map_or(600, |text| text.parse().expect("a number of seconds"));
    let started = std::time::Instant::now();
    let limits = |share: u64| Limits {
        depth: usize::MAX,
        states: 100_000_000,
        time: Duration::from_millis(seconds * share),
        workers: 2,
    };
    let (mut states, mut found, mut exhausted) = (0, 0, 0);
    let mut searched = |configuration: &Configuration, left_out: &[&'static str], everything, limits| {
        let rules = if everything {
            configuration.rules_with_everything()
        } else {
            configuration.rules(left_out)
        };
        let report = explore(&rules, &[], left_out, limits);
        let mode = if everything { "everything: " } else { "" };
        print!("{mode}{}", line(configuration, left_out, &report));
        println!("      new states at each depth: {:?}", report.levels);
        states += report.states();
        found += usize::from(report.attack.is_some());
        exhausted += usize::from(report.exhausted);
    };
    println!("With all checks");
    for (configuration, everything, per_mille) in SEARCHED {
        searched(configuration, &[], *everything, limits(*per_mille));
    }
    println!("\nWithout one check, which is said to be redundant");
    let redundant = CANARIES
        .iter()
        .filter(|(_, finding)| matches!(finding, Finding::Redundant(_)));
    let each = 200 / (redundant.clone().count() * LARGER.len()) as u64;
    for (check, _) in redundant {
        for configuration in LARGER {
            searched(configuration, &[check], false, limits(each.max(1)));
        }
    }
    println!("\nWithout one check");
    let canaries = CANARIES
        .iter()
        .filter(|(_, finding)| !matches!(finding, Finding::OutOfScope(_)));
    let (mut caught, mut missed) = (0, 0);
    for (check, finding) in canaries {
        let outcome = search(check, finding, TO_THE_END);
        *if outcome.is_ok() { &mut caught } else { &mut missed } += 1;
        println!("{}", outcome.unwrap_or_else(|missed| format!("MISSED {missed}")));
    }
    let result = if found + missed == 0 { "ok" } else { "failed" };
    let summary = format!(
        "ASSURANCE search result={result} cases={states} findings={found} canaries={caught} exhausted={exhausted} seconds={:.1}\n",
        started.elapsed().as_secs_f64(),
    );
    if let Ok(file) = env::var("SEARCH_SUMMARY") {
        fs::write(&file, &summary).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    assert_eq!(
        (found, missed),
        (0, 0),
        "attacks, and canaries that were not as the table says"
    );
}
