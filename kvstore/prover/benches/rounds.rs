//! What an operation costs prover and verifier, without sockets and disk: `cargo bench -p zetakv-prover`.
//!
//! One thread, a store in memory, one client whose requests have 100 operations each. *Cached*: the keys fit into the slots. *Blum*: they
//! fit into the hot set. *Merkle*: they are any of all records. Figures are medians of nanoseconds per operation (of what is carried
//! over: per record), for prover and verifier apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cpu_time::ThreadTime;
use fastrand::Rng;
use zeroize::Zeroizing;
use zetakv_prover::{Config, FrameRules, Prover, RANGE_ROWS_MAX};
use zetakv_verifier::clocks::Clocks;
use zetakv_verifier::codec::Reader;
use zetakv_verifier::crypto::Crypto;
use zetakv_verifier::kv::KeyValue;
use zetakv_verifier::machine::Role;
use zetakv_verifier::request::{MacDomain, RequestHeader};
use zetakv_verifier::standard_crypto::Sum;
use zetakv_verifier::value::{Commitment, Node};
use zetakv_verifier::{Progress, SessionKeys, StandardCrypto, ThreadConfig, Verifier};

const RECORDS: u64 = 200_000;
const SLOTS: u32 = 32_768;
const HOT_RECORDS_MAX: usize = 65_536;
const WARM_BYTES_MAX: usize = 256 << 20;
const VALUE_BYTES: usize = 100;
const OPERATIONS: u16 = 100;
const REQUESTS_AT_ONCE: usize = 20;
const ROUNDS: usize = 41;

struct Bench {
    prover: Prover,
    verifier: Verifier<StandardCrypto, KeyValue>,
    clocks: Arc<Clocks>,
    crypto: StandardCrypto,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
    sequence: u64,
    rng: Rng,
    proved: Duration,
    verified: Duration,
}

impl Bench {
    fn new() -> Self {
        let clocks = Arc::new(Clocks::new(0).expect("epochs are left"));
        let config = ThreadConfig {
            thread: 0,
            slots: SLOTS,
            certified_epoch: 0,
            root: Some(Node::default()),
            queue_bytes: 4 << 20,
        };
        let crypto = || StandardCrypto::new([7; 32]);
        let mut verifier = Verifier::new(config, crypto(), Sum::default(), clocks.clone()).expect("a thread");
        verifier.open_session(SessionKeys {
            session: 1,
            role: Role::Write,
            request_key: Zeroizing::new([1; 32]),
            receipt_key: Zeroizing::new([2; 32]),
        });
        let prover = Prover::new(Config {
            rules: FrameRules {
                thread: 0,
                threads: 1,
                key_bytes_max: 4096,
                value_bytes_max: 1 << 20,
                response_bytes_max: 16 << 20,
            },
            previous_threads: 1,
            epoch: 1,
            fresh: true,
            slots: SLOTS,
            hot_records_max: HOT_RECORDS_MAX,
            hot_bytes_max: usize::MAX,
            kept_value_bytes_max: 1024,
            warm_bytes_max: WARM_BYTES_MAX,
            read_bytes_max: 256 << 20,
            log_incarnation: None,
        });
        Self {
            prover: prover.expect("a prover"),
            verifier,
            clocks,
            crypto: crypto(),
            store: BTreeMap::new(),
            sequence: 0,
            rng: Rng::with_seed(1),
            proved: Duration::ZERO,
            verified: Duration::ZERO,
        }
    }

    /// Submit a request: puts for one half, gets for the other, or puts only.
    fn submit(&mut self, numbers: impl Iterator<Item = u64>, puts_only: bool) {
        self.sequence += 1;
        let mut request = Vec::new();
        RequestHeader {
            session: 1,
            generation: 1,
            thread: 0,
            operations: OPERATIONS,
            sequence: self.sequence,
            after_ts: 0,
        }
        .encode(&mut request);
        let mut payload = Vec::new();
        for number in numbers.take(usize::from(OPERATIONS)) {
            let key = format!("key {number:012}");
            let value = puts_only || self.rng.bool();
            request.push(if value { 2 } else { 1 });
            request.extend_from_slice(blake3::hash(key.as_bytes()).as_bytes());
            if value {
                payload.extend_from_slice(&(key.len() as u16).to_le_bytes());
                payload.extend_from_slice(key.as_bytes());
                let value = [self.rng.u8(..); VALUE_BYTES];
                Commitment::of(&value).encode(&mut request);
                payload.extend_from_slice(&value);
            }
        }
        let mac = self.crypto.mac(&[1; 32], MacDomain::Request, &[&request]);
        request.extend_from_slice(&mac);
        let mut body = (request.len() as u32).to_le_bytes().to_vec();
        body.extend_from_slice(&request);
        body.extend_from_slice(&payload);
        let start = ThreadTime::now();
        self.prover.submit(0, &body).expect("a frame");
        self.proved += start.elapsed();
    }

    /// Work until there is nothing to do.
    fn work(&mut self) {
        while self.prover.is_busy() {
            let mut start = ThreadTime::now();
            loop {
                let reads = self.prover.reads().expect("rows are asked for");
                if reads.is_empty() {
                    break;
                }
                self.proved += start.elapsed();
                let rows: Vec<_> = reads.keys.iter().map(|key| self.store.get(key)).collect();
                let in_range = |(first, end)| self.store.range(first..end).take(RANGE_ROWS_MAX).collect();
                let ranges: Vec<Vec<_>> = reads.ranges.into_iter().map(in_range).collect();
                start = ThreadTime::now();
                self.prover.supply(&rows, &ranges).expect("rows are as they were");
            }
            let log = self.prover.log().expect("a log");
            self.proved += start.elapsed();
            let mut outputs = Vec::new();
            let start = ThreadTime::now();
            assert_eq!(self.verifier.process(&log, &mut outputs), Progress::Done);
            self.verified += start.elapsed();
            let start = ThreadTime::now();
            self.prover.absorb(&outputs).expect("outputs");
            self.proved += start.elapsed();
        }
    }

    /// A whole epoch change, made durable at once. Returns how many records were hot.
    fn cut(&mut self) -> usize {
        let hot = self.prover.stats().hot + self.prover.stats().cached;
        self.prover.start_cut(false).expect("no cut is in progress");
        self.work();
        let epoch = self.prover.handed_over().expect("an epoch");
        self.verifier.take_snapshot().expect("a snapshot");
        let packed = self.prover.take_checkpoint().expect("a checkpoint");
        let mut reader = Reader::new(&packed);
        while reader.remaining() > 0 {
            let length = reader.u32().expect("a length") as usize;
            let key = reader.take(length).expect("a store key").to_vec();
            match reader.u32().expect("a length") {
                u32::MAX => self.store.remove(&key),
                length => self
                    .store
                    .insert(key, reader.take(length as usize).expect("a row").to_vec()),
            };
        }
        self.clocks.certify(epoch);
        self.prover.release_checkpoint(epoch).expect("a checkpoint");
        hot
    }

    fn load(&mut self) {
        let mut next = 0;
        while next < RECORDS {
            for _ in 0..REQUESTS_AT_ONCE {
                self.submit(next.., true);
                next += u64::from(OPERATIONS);
            }
            self.work();
            if next.is_multiple_of(50_000) {
                self.cut();
            }
        }
        self.cut();
    }

    fn measure(&mut self, name: &str, keys: u64) {
        let (mut proved, mut verified) = (Vec::new(), Vec::new());
        for round in 0..2 * ROUNDS {
            (self.proved, self.verified) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..REQUESTS_AT_ONCE {
                let mut rng = self.rng.fork();
                self.submit(core::iter::repeat_with(|| rng.u64(0..keys)), false);
            }
            self.work();
            if round >= ROUNDS {
                let operations = (REQUESTS_AT_ONCE * usize::from(OPERATIONS)) as u128;
                proved.push(self.proved.as_nanos() / operations);
                verified.push(self.verified.as_nanos() / operations);
            }
        }
        report(name, proved, verified);
    }

    fn measure_carry_over(&mut self) {
        let (mut proved, mut verified) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let mut rng = self.rng.fork();
            self.submit(core::iter::repeat_with(|| rng.u64(0..1000)), false);
            self.work();
            (self.proved, self.verified) = (Duration::ZERO, Duration::ZERO);
            let hot = self.cut().max(1) as u128;
            proved.push(self.proved.as_nanos() / hot);
            verified.push(self.verified.as_nanos() / hot);
        }
        report("carried", proved, verified);
    }
}

fn report(name: &str, proved: Vec<u128>, verified: Vec<u128>) {
    let median = |mut all: Vec<u128>| {
        all.sort_unstable();
        all[all.len() / 2]
    };
    println!(
        "{name:8} prover {:6} ns, verifier {:6} ns",
        median(proved),
        median(verified)
    );
}

fn main() {
    let mut bench = Bench::new();
    bench.load();
    let nodes = bench.store.iter().filter(|(key, _)| key[0] == b'n');
    let (nodes, bytes) = nodes.fold((0, 0), |(count, bytes), (key, row)| {
        (count + 1, bytes + key.len() + row.len())
    });
    println!(
        "{RECORDS} records, {nodes} nodes of {} bytes with their keys on average",
        bytes / nodes
    );
    bench.measure("cached", 10_000);
    bench.cut();
    bench.measure("Blum", 50_000);
    bench.cut();
    bench.measure_carry_over();
    bench.measure("Merkle", RECORDS);
}
