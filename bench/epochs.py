"""Throughput, verified and unverified, against the length of the epoch.

Each pair of runs (verified, unverified) is measured one after the other on the same machine, and its ratio is taken
pair by pair, so that a drift of the machine's speed cancels. Medians are quoted.
"""

import multiprocessing
import platform
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace

from rich.progress import Progress

from bench.load import Observed, Workload, load_records, run_client
from bench.service import running_server


@dataclass(frozen=True, kw_only=True)
class EpochsBenchmark:
    """What is measured: every epoch length `repeats` times, verified and not."""

    epoch_ms: list[int]
    repeats: int
    workers: int
    clients: int
    workload: Workload


def measure(benchmark: EpochsBenchmark, *, epoch_ms: int, verified: bool) -> Observed:
    """One run: a fresh server, its records loaded, then all client processes at once."""
    context = multiprocessing.get_context("spawn")
    with (
        running_server(workers=benchmark.workers, epoch_ms=epoch_ms, verified=verified) as service,
        ProcessPoolExecutor(benchmark.clients, mp_context=context) as pool,
    ):
        workload = benchmark.workload
        pool.submit(load_records, service, workload).result()
        shares = [replace(workload, seed=workload.seed + client) for client in range(benchmark.clients)]
        observed = list(pool.map(run_client, [service] * benchmark.clients, shares))
    return Observed(
        sum(one.operations_per_second for one in observed),
        sorted(seconds for one in observed for seconds in one.certification_seconds),
    )


def run(benchmark: EpochsBenchmark) -> dict[str, object]:
    """All measurements, as what the JSON file holds. Rates in operations per second, latencies in seconds."""
    rows = []
    with Progress() as progress:
        task = progress.add_task("runs", total=2 * benchmark.repeats * len(benchmark.epoch_ms))
        for epoch_ms in benchmark.epoch_ms:
            pairs = []
            for _ in range(benchmark.repeats):
                pair = []
                for verified in (True, False):
                    pair.append(measure(benchmark, epoch_ms=epoch_ms, verified=verified))
                    progress.advance(task)
                pairs.append(pair)
            rows.append(_row(epoch_ms, pairs))
    machine = {"processor": platform.processor() or platform.machine(), "cores": multiprocessing.cpu_count()}
    return {"benchmark": asdict(benchmark), "machine": machine | {"python": platform.python_version()}, "rows": rows}


def _row(epoch_ms: int, pairs: list[list[Observed]]) -> dict[str, float]:
    ratios = [verified.operations_per_second / unverified.operations_per_second for verified, unverified in pairs]
    latencies = sorted(seconds for verified, _ in pairs for seconds in verified.certification_seconds)
    return {
        "epoch_ms": epoch_ms,
        "verified": statistics.median(verified.operations_per_second for verified, _ in pairs),
        "unverified": statistics.median(unverified.operations_per_second for _, unverified in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "certification_p50": _percentile(latencies, 0.50),
        "certification_p99": _percentile(latencies, 0.99),
    }


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
