//! Load for ZetaKV's benchmarks, as redis-benchmark is for Redis. It speaks the real protocol, with real sessions and MACs, and checks every
//! receipt, value and certificate: a run whose answers are not all right has no figures.
//!
//! It is not part of what is shipped, and shares with the monitor's code only the encodings of the verifier crate.

mod driver;
mod failure;
mod line;
mod measurement;
mod options;
mod pace;
mod peers;
mod records;
mod report;
mod target;
mod workload;
mod zetakv;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;

use driver::{Driver, Times};
use failure::Failure;
use measurement::Measurement;
use options::{Mix, Options, Phase, TargetKind};
use pace::Pace;
use records::Records;
use report::report;
use target::Target;
use workload::Source;
use zetakv::ZetaKv;

/// No end of the measured time: a load is over when all is written.
const NO_END_SECONDS: f64 = 1e9;

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    match Options::parse(lexopt::Parser::from_env()).and_then(|options| options.map(run).transpose()) {
        Ok(report) => {
            print!("{}", report.unwrap_or_else(|| options::HELP.into()));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("zetakv-loadgen: {failure}");
            ExitCode::from(if matches!(failure, Failure::Options(_)) {
                EXIT_USAGE
            } else {
                EXIT_FAILURE
            })
        }
    }
}

/// The report of a run, as JSON.
fn run(options: Options) -> Result<String, Failure> {
    let zetakv = options.target == TargetKind::Zetakv;
    let records = Records::new(options.records, options.value_bytes, options.mix == Mix::F, zetakv);
    match options.target {
        TargetKind::Zetakv => {
            let mut server = ZetaKv::new(&options, records)?;
            let run = measure(&options, &mut server)?;
            Ok(run.report(&options, &server, server.certificates_checked()))
        }
        TargetKind::Redis => measure_peer(&options, peers::redis::Redis::new(&options, records)),
        TargetKind::Memcached => measure_peer(&options, peers::memcached::Memcached::new(&options, records)),
        TargetKind::Etcd => measure_peer(&options, peers::etcd::Etcd::new(&options, records)),
    }
}

fn measure_peer<T: Target>(options: &Options, mut server: T) -> Result<String, Failure> {
    Ok(measure(options, &mut server)?.report(options, &server, 0))
}

/// What all threads saw.
struct Run {
    measurement: Measurement,
    seconds: f64,
    cpu: Duration,
}

impl Run {
    fn report(&self, options: &Options, server: &impl Target, certificates: u64) -> String {
        let facts = server.server();
        let report = report(options, &facts, &self.measurement, self.seconds, certificates, self.cpu);
        format!("{report}\n")
    }
}

fn measure<T: Target>(options: &Options, server: &mut T) -> Result<Run, Failure> {
    let threads = options.threads as usize;
    let mut connections: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for index in 0..options.connections as usize {
        connections[index % threads].push(server.open()?);
    }
    let nanos = |seconds: f64| Duration::from_secs_f64(seconds).as_nanos() as u64;
    let (from, to) = match options.phase {
        Phase::Load => (0.0, NO_END_SECONDS),
        Phase::Run => (options.warmup, options.warmup + options.seconds),
    };
    let cpu_before = ProcessTime::now();
    let times = Times {
        start: Instant::now(),
        from: nanos(from),
        to: nanos(to),
        silence_max: nanos(options.certify_seconds),
    };
    let drivers = connections
        .into_iter()
        .zip(0..)
        .map(|(connections, thread)| Driver::new(connections, source(options, thread), pace(options), times))
        .collect::<Result<Vec<_>, _>>()?;
    let measurements = std::thread::scope(|scope| {
        let running: Vec<_> = drivers.into_iter().map(|driver| scope.spawn(|| driver.run())).collect();
        let ended = running
            .into_iter()
            .map(|thread| thread.join().expect("a driver does not panic"));
        ended.collect::<Result<Vec<_>, _>>()
    })?;
    let mut measurement = Measurement::new(times.from, times.to);
    for of_thread in &measurements {
        measurement.merge(of_thread);
    }
    let seconds = match options.phase {
        Phase::Load => Duration::from_nanos(measurement.last_answer).as_secs_f64(),
        Phase::Run => options.seconds,
    };
    Ok(Run {
        measurement,
        seconds,
        cpu: cpu_before.elapsed(),
    })
}

fn source(options: &Options, thread: u32) -> Source {
    match options.phase {
        Phase::Load => Source::load(thread, options.threads, options.records),
        Phase::Run => {
            let seed = options.seed << 8 | u64::from(thread);
            Source::mix(options.mix, options.distribution, options.keys, seed)
        }
    }
}

fn pace(options: &Options) -> Pace {
    match options.rate.filter(|_| options.phase == Phase::Run) {
        Some(rate) => Pace::open(rate / f64::from(options.frame) / f64::from(options.threads)),
        None => Pace::closed(options.depth as usize),
    }
}
