//! `zetakv-session-search [SECONDS]` runs all canaries, then searches all bounds with all rules, for so many seconds together.
//! `zetakv-session-search --situations` prints what clients conclude, for `tests/vectors/verdicts.json`.
//! `zetakv-session-search RULE` prints what happens without that rule.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use zetakv_session_model::canaries::{Canary, all, bounds};
use zetakv_session_model::search::{Counterexample, search};

/// States of one search at the most: bounds the memory, to about a kilobyte for each of those on its last level.
const STATES_MAX: usize = 8_000_000;
/// For each search at the least, if the canaries have taken long.
const SEARCH_MIN: Duration = Duration::from_secs(1);
/// Seconds without an argument.
const SECONDS: f64 = 30.0;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("--situations") {
        println!("{}", zetakv_session_model::situations::all());
        return ExitCode::SUCCESS;
    }
    match argument.as_deref().map(str::parse) {
        None => search_all(SECONDS),
        Some(Ok(seconds)) => search_all(seconds),
        Some(Err(_)) => explain(&argument.unwrap_or_default()),
    }
}

fn name(canary: &Canary) -> String {
    let names: Vec<_> = canary.without.iter().map(|rule| format!("{rule:?}")).collect();
    names.join(" and ")
}

fn print_trace(found: &Counterexample) {
    for (step, (action, outcome)) in found.trace.iter().enumerate() {
        println!("  {:>2}  {action}  ->  {outcome:?}", step + 1);
    }
    println!("      {}", found.what);
}

fn explain(rule: &str) -> ExitCode {
    let canaries = all();
    let Some(canary) = canaries.iter().find(|canary| name(canary).contains(rule)) else {
        let names: Vec<_> = canaries.iter().map(name).collect();
        println!("no rule of that name; there are: {}", names.join(", "));
        return ExitCode::FAILURE;
    };
    println!("without {}:", name(canary));
    if let Some(found) = search(&canary.config, STATES_MAX, Duration::MAX).counterexample {
        print_trace(&found);
    }
    ExitCode::SUCCESS
}

fn search_all(seconds: f64) -> ExitCode {
    let since = Instant::now();
    let canaries = all();
    let mut caught = 0;
    for canary in &canaries {
        let report = search(&canary.config, STATES_MAX, Duration::MAX);
        match report.counterexample {
            Some(found) => {
                caught += 1;
                let (states, steps) = (report.states, found.trace.len());
                println!(
                    "without {}: {} ({steps} steps, {states} states)",
                    name(canary),
                    found.what
                );
            }
            None => println!("without {}: NOTHING WRONG in {} states", name(canary), report.states),
        }
    }
    let bounds = bounds();
    let deadline = since + Duration::from_secs_f64(seconds);
    let (mut states, mut transitions, mut complete, mut findings) = (0, 0, 0, 0);
    for (place, config) in bounds.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = (left / (bounds.len() - place) as u32).max(SEARCH_MIN);
        let report = search(config, STATES_MAX, time);
        let extent = if report.complete { "all" } else { "no further" };
        println!(
            "{}: {} states, {} transitions, depth {} ({extent})",
            config.name, report.states, report.transitions, report.depth
        );
        if let Some(found) = &report.counterexample {
            findings += 1;
            print_trace(found);
        }
        states += report.states;
        transitions += report.transitions;
        complete += usize::from(report.complete);
    }
    let is_ok = findings == 0 && caught == canaries.len();
    println!(
        "ASSURANCE search-sessions result={} cases={states} findings={findings} canaries={caught} transitions={transitions} \
         complete={complete} bounds={} seconds={:.1}",
        if is_ok { "ok" } else { "failed" },
        bounds.len(),
        since.elapsed().as_secs_f64()
    );
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
