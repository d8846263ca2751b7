//! The search of `make search`, which goes as far as it comes in a given time.

use std::format;
use std::print;
use std::println;
use std::string::String;
use std::time::{Duration, Instant};

use super::TO_THE_END;
use super::canaries::{CANARIES, Finding, LARGER, line, search};
use super::configurations::Configuration;
use super::explore::{Limits, explore};

/// What is searched with all checks: whether with everything, and how many hundredths of the time it may take.
const SEARCHED: &[(Configuration, bool, u32)] = &[
    (Configuration::new(1, &["000"], 2, 6, true), false, 1),
    (Configuration::new(1, &["00", "000"], 3, 4, true), false, 2),
    (Configuration::new(1, &["000", "100"], 3, 2, true), false, 3),
    (Configuration::new(1, &["00", "000", "001"], 3, 2, true), false, 20),
    (Configuration::new(2, &["000"], 2, 6, true), false, 5),
    (Configuration::new(2, &["00", "000"], 3, 2, true), false, 15),
    (Configuration::new(2, &["00", "000", "001"], 4, 2, true), false, 14),
    (SIX_RECORDS, false, 12),
    (Configuration::new(1, &["000"], 2, 2, true), true, 4),
    (Configuration::new(2, &["000"], 2, 2, true), true, 4),
];

const SIX_RECORDS: Configuration = Configuration::new(2, &["0", "00", "000", "001", "010", "100"], 5, 3, true);

/// How many hundredths of the time the searches without a redundant check may take together.
const LARGER_SHARE: u32 = 18;

/// Bounds the memory: about 10 GB for states to come, and those that have been visited.
const STATES_MAX: usize = 60_000_000;

/// What was found.
#[derive(Default)]
pub struct Found {
    searches: usize,
    exhausted: usize,
    states: usize,
    steps: u64,
    attacks: usize,
    /// Checks whose absence has the effect that the table says, and those for which it has not.
    canaries: usize,
    missed: usize,
    time: Duration,
}

impl Found {
    pub const fn is_ok(&self) -> bool {
        self.attacks == 0 && self.missed == 0
    }

    /// The line for `make assure`.
    pub fn summary(&self) -> String {
        format!(
            "ASSURANCE search result={} cases={} findings={} canaries={} searches={} exhausted={} steps={} seconds={:.1}\n",
            if self.is_ok() { "ok" } else { "failed" },
            self.states,
            self.attacks + self.missed,
            self.canaries,
            self.searches,
            self.exhausted,
            self.steps,
            self.time.as_secs_f64(),
        )
    }

    fn search(&mut self, configuration: &Configuration, left_out: &[&'static str], everything: bool, time: Duration) {
        let rules = if everything {
            configuration.rules_with_everything()
        } else {
            configuration.rules(left_out)
        };
        let limits = Limits {
            depth: usize::MAX,
            states: STATES_MAX,
            time,
            workers: 2,
        };
        let report = explore(&rules, left_out, limits);
        print!(
            "{}{}",
            if everything { "everything: " } else { "" },
            line(configuration, left_out, &report)
        );
        println!("      new states at each depth: {:?}", report.levels);
        self.searches += 1;
        self.exhausted += usize::from(report.exhausted);
        self.states += report.states();
        self.steps += report.counts.steps;
        self.attacks += usize::from(report.attack.is_some());
    }

    fn without_each_redundant_check(&mut self, time: Duration) {
        let redundant = CANARIES
            .iter()
            .filter(|(_, finding)| matches!(finding, Finding::Redundant(..)));
        let all = redundant.flat_map(|(check, _)| LARGER.iter().map(move |configuration| (check, configuration)));
        let mut left = all.clone().count() as u32;
        let deadline = Instant::now() + time;
        for (check, configuration) in all {
            // what the searches before have not used
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            self.search(configuration, &[check], false, share);
            left -= 1;
        }
    }

    fn without_each_check(&mut self) {
        for (check, finding) in CANARIES {
            if let Finding::OutOfScope(_) = finding {
                continue;
            }
            match search(check, finding, TO_THE_END) {
                Ok(found) => {
                    self.canaries += 1;
                    println!("{found}");
                }
                Err(not_as_said) => {
                    self.missed += 1;
                    println!("NOT AS THE TABLE SAYS {not_as_said}");
                }
            }
        }
    }
}

/// Search for about so long, and print what is found.
pub fn search_for(time: Duration) -> Found {
    let started = Instant::now();
    let mut found = Found::default();
    println!("With all checks");
    for (configuration, everything, share) in SEARCHED {
        found.search(configuration, &[], *everything, time * *share / 100);
    }
    println!("\nWithout one check, which is said to be redundant");
    found.without_each_redundant_check(time * LARGER_SHARE / 100);
    println!("\nWithout one check, as the table says");
    found.without_each_check();
    found.time = started.elapsed();
    found
}
