//! The command line, checked; it is repeated in the JSON that a run prints.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};
use serde_json::{Value, json};

use crate::failure::Failure;

/// What `--help` prints.
pub const HELP: &str = "\
zetakv-loadgen: load for a server, over its own protocol; prints figures as JSON, and fails if any answer fails a check

usage: zetakv-loadgen load|run --server HOST:PORT [OPTIONS]

load puts every record once; run sends a mix of operations for some time.

  --target zetakv|redis|memcached|etcd   what the server is (zetakv)
  --monitor FINGERPRINT   the monitor of a ZetaKV server; or:
  --unverified            a ZetaKV server without a monitor
  --key FILE              this client's key
  --records N             records of the store (100000)
  --keys N                operations are on the first N records (all)
  --value-bytes N         length of values, at least 8 (100)
  --mix a|b|c|f           YCSB's: 50, 95 or 100 % gets, else puts; f: 50 % gets, else increments of 8-byte values (b)
  --distribution zipfian|uniform         of keys: zipfian 0.99, scrambled (zipfian)
  --connections N         each with a session of its own (1)
  --threads N             of the generator (1)
  --frame N               operations per request, 1 to 512 (64)
  --depth N               closed loop: requests in flight per connection (4)
  --rate N                open loop: operations per second, at random moments; latency counts from these
  --seconds S             measured time (5)
  --warmup S              time before it, not measured (1)
  --certify-seconds S     how long missing answers and certificates are waited for (60)
  --seed N                (1)
";

/// Connections that one run may have: the monitor keeps at most 4,096 sessions.
const CONNECTIONS_MAX: u32 = 4096;
/// Threads of a run: beyond this the generator would be the service's burden, not its load.
const THREADS_MAX: u32 = 64;

/// Whether to load or to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Put every record once.
    Load,
    /// Send a mix.
    Run,
}

/// Whose protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// ZetaKV, with or without a monitor.
    Zetakv,
    /// Redis: pipelined GET and SET.
    Redis,
    /// Memcached: pipelined get and set, text protocol.
    Memcached,
    /// Etcd: one transaction per frame, over its JSON gateway.
    Etcd,
}

/// YCSB's core workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Half gets, half puts.
    A,
    /// 95 % gets, 5 % puts.
    B,
    /// Gets only.
    C,
    /// Half gets, half increments.
    F,
}

impl Mix {
    /// The share of gets.
    pub const fn reads(self) -> f64 {
        match self {
            Self::A | Self::F => 0.5,
            Self::B => 0.95,
            Self::C => 1.0,
        }
    }
}

/// Of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Constant 0.99, scrambled.
    Zipfian,
    /// All alike.
    Uniform,
}

/// Everything that a run depends on.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // they are those of HELP
pub struct Options {
    pub phase: Phase,
    pub target: TargetKind,
    pub server: String,
    pub monitor: Option<String>,
    pub unverified: bool,
    pub key: Option<PathBuf>,
    pub records: u32,
    pub keys: u32,
    pub value_bytes: usize,
    pub mix: Mix,
    pub distribution: Distribution,
    pub connections: u32,
    pub threads: u32,
    pub frame: u16,
    pub depth: u32,
    pub rate: Option<f64>,
    pub seconds: f64,
    pub warmup: f64,
    pub certify_seconds: f64,
    pub seed: u64,
}

impl Options {
    /// Read and check the arguments; `None` if help is asked for.
    pub fn parse(mut parser: Parser) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            phase: Phase::Run,
            target: TargetKind::Zetakv,
            server: String::new(),
            monitor: None,
            unverified: false,
            key: None,
            records: 100_000,
            keys: 0,
            value_bytes: 100,
            mix: Mix::B,
            distribution: Distribution::Zipfian,
            connections: 1,
            threads: 1,
            frame: 64,
            depth: 4,
            rate: None,
            seconds: 5.0,
            warmup: 1.0,
            certify_seconds: 60.0,
            seed: 1,
        };
        let mut phase = None;
        while let Some(argument) = parser.next().map_err(refuse)? {
            match argument {
                Arg::Long("help") => return Ok(None),
                Arg::Value(word) if word == "load" => phase = Some(Phase::Load),
                Arg::Value(word) if word == "run" => phase = Some(Phase::Run),
                Arg::Long(name) => {
                    let name = name.to_owned();
                    options.set(&name, &mut parser).map_err(refuse)?;
                }
                other => return Err(refuse(other.unexpected())),
            }
        }
        options.phase = phase.ok_or_else(|| Failure::Options("say load or run; see --help".into()))?;
        if options.keys == 0 {
            options.keys = options.records;
        }
        options.check()?;
        Ok(Some(options))
    }

    fn set(&mut self, name: &str, parser: &mut Parser) -> Result<(), lexopt::Error> {
        match name {
            "server" => self.server = parser.value()?.string()?,
            "monitor" => self.monitor = Some(parser.value()?.string()?),
            "unverified" => self.unverified = true,
            "key" => self.key = Some(parser.value()?.into()),
            "target" => {
                self.target = parser.value()?.parse_with(|word| match word {
                    "zetakv" => Ok(TargetKind::Zetakv),
                    "redis" => Ok(TargetKind::Redis),
                    "memcached" => Ok(TargetKind::Memcached),
                    "etcd" => Ok(TargetKind::Etcd),
                    _ => Err("zetakv, redis, memcached or etcd"),
                })?;
            }
            "mix" => {
                self.mix = parser.value()?.parse_with(|word| match word {
                    "a" => Ok(Mix::A),
                    "b" => Ok(Mix::B),
                    "c" => Ok(Mix::C),
                    "f" => Ok(Mix::F),
                    _ => Err("a, b, c or f"),
                })?;
            }
            "distribution" => {
                self.distribution = parser.value()?.parse_with(|word| match word {
                    "zipfian" => Ok(Distribution::Zipfian),
                    "uniform" => Ok(Distribution::Uniform),
                    _ => Err("zipfian or uniform"),
                })?;
            }
            "records" => self.records = parser.value()?.parse()?,
            "keys" => self.keys = parser.value()?.parse()?,
            "value-bytes" => self.value_bytes = parser.value()?.parse()?,
            "connections" => self.connections = parser.value()?.parse()?,
            "threads" => self.threads = parser.value()?.parse()?,
            "frame" => self.frame = parser.value()?.parse()?,
            "depth" => self.depth = parser.value()?.parse()?,
            "rate" => self.rate = Some(parser.value()?.parse()?),
            "seconds" => self.seconds = parser.value()?.parse()?,
            "warmup" => self.warmup = parser.value()?.parse()?,
            "certify-seconds" => self.certify_seconds = parser.value()?.parse()?,
            "seed" => self.seed = parser.value()?.parse()?,
            _ => return Err(Arg::Long(name).unexpected()),
        }
        Ok(())
    }

    /// For the report: all but the client's key.
    pub fn to_json(&self) -> Value {
        let word = |name: &dyn std::fmt::Debug| format!("{name:?}").to_lowercase();
        json!({
            "phase": word(&self.phase),
            "target": word(&self.target),
            "server": self.server,
            "monitor": self.monitor,
            "unverified": self.unverified,
            "records": self.records,
            "keys": self.keys,
            "value_bytes": self.value_bytes,
            "mix": word(&self.mix),
            "distribution": word(&self.distribution),
            "connections": self.connections,
            "threads": self.threads,
            "frame": self.frame,
            "depth": self.depth,
            "rate": self.rate,
            "seconds": self.seconds,
            "warmup": self.warmup,
            "certify_seconds": self.certify_seconds,
            "seed": self.seed,
        })
    }

    fn check(&self) -> Result<(), Failure> {
        let zetakv = self.target == TargetKind::Zetakv;
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let rules = [
            (!self.server.is_empty(), "--server is needed"),
            (zetakv || self.mix != Mix::F, "--mix f is for ZetaKV only"),
            (
                zetakv == (self.unverified || self.monitor.is_some()),
                "a ZetaKV server needs --monitor or --unverified, others neither",
            ),
            (
                !(self.unverified && self.monitor.is_some()),
                "--monitor and --unverified exclude each other",
            ),
            (
                self.records > 0 && self.keys <= self.records,
                "--keys is at most --records, which is at least 1",
            ),
            (self.value_bytes >= 8, "--value-bytes is at least 8"),
            (
                self.mix != Mix::F || self.value_bytes == 8,
                "--mix f increments: it needs --value-bytes 8",
            ),
            ((1..=512).contains(&self.frame), "--frame is 1 to 512"),
            (self.depth > 0, "--depth is at least 1"),
            (
                (1..=CONNECTIONS_MAX).contains(&self.connections),
                "--connections is 1 to 4096",
            ),
            (
                (1..=THREADS_MAX.min(self.connections)).contains(&self.threads),
                "--threads is 1 to 64, and at most --connections",
            ),
            (self.rate.is_none_or(positive), "--rate is above 0"),
            (
                positive(self.seconds) && self.warmup >= 0.0,
                "--seconds is above 0, --warmup at least 0",
            ),
            (positive(self.certify_seconds), "--certify-seconds is above 0"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, text)) => Err(Failure::Options((*text).into())),
            None => Ok(()),
        }
    }
}

fn refuse(error: lexopt::Error) -> Failure {
    Failure::Options(error.to_string())
}
