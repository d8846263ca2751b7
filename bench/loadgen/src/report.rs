//! The JSON that a run prints.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::measurement::Measurement;
use crate::options::Options;
use crate::target::ServerFacts;

/// Points of a distribution's curve for each halving of the distance to 1.
const POINTS_PER_HALVING: u32 = 4;

/// All of a run. `seconds`: what the operations are divided by.
///
/// Figures are of the measured time; `frames_checked`, `operations_checked`, `certificates_checked` and the CPU time of the generator are of
/// the whole run.
pub fn report(
    parameters: &Options,
    server: &ServerFacts,
    measurement: &Measurement,
    seconds: f64,
    certificates_checked: u64,
    cpu: Duration,
) -> Value {
    let timeline = measurement.timeline.iter().map(|interval| {
        json!({
            "operations": interval.operations,
            "latency_max_us": interval.latency_max_us,
        })
    });
    json!({
        "parameters": parameters.to_json(),
        "server": {"workers": server.workers, "write_ahead_log": server.write_ahead_log},
        "operations": measurement.operations,
        "seconds": seconds,
        "operations_per_second": measurement.operations as f64 / seconds,
        // from due to answered
        "latency_us": latencies(&measurement.latency, 1e3),
        // from answered to the certificate of the epoch; of an unverified server, to the checkpoint that has it
        "certification_ms": latencies(&measurement.certification, 1e6),
        // open loop: from due to sent
        "late_us": latencies(&measurement.late, 1e3),
        "frames_checked": measurement.frames_in_all,
        "operations_checked": measurement.operations_in_all,
        "certificates_checked": certificates_checked,
        "generator_cpu_ns_per_operation": cpu.as_nanos() as f64 / measurement.operations_in_all.max(1) as f64,
        "interval_ms": Measurement::INTERVAL_MS,
        "timeline": timeline.collect::<Vec<_>>(),
    })
}

/// A distribution, in this unit of nanoseconds; null if there is nothing in it. Its curve: share, and the latency that as many stay within.
fn latencies(histogram: &Histogram<u64>, unit: f64) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let at = |share| histogram.value_at_quantile(share) as f64 / unit;
    let curve = histogram
        .iter_quantiles(POINTS_PER_HALVING)
        .map(|point| json!([point.quantile(), point.value_iterated_to() as f64 / unit]));
    json!({
        "mean": histogram.mean() / unit,
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "p999": at(0.999),
        "max": histogram.max() as f64 / unit,
        "curve": curve.collect::<Vec<_>>(),
    })
}
