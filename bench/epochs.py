"""Throughput, verified and unverified, against the length of the epoch, and how long certification takes.

Two servers with the same options, one verified and one not, hold the same records; runs alternate between them, and
ratios are taken pair by pair, so that a drift of the machine's speed cancels. A server without load does nothing.
"""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from bench import results
from bench.figures import ratios, show, spread
from bench.generator import Generator, Run, WarmSeconds, Workload
from bench.results import Result
from bench.service import Memory, Service, running_server

EPOCHS_PER_RUN_MIN = 3
"""So that the work at the ends of epochs is in every run, and in the right proportion."""

COUNTERS = "f"
"""The mix whose values are numbers that are added to: it has servers of its own."""


@dataclass(frozen=True, kw_only=True)
class EpochsBenchmark:
    """Every combination is measured `repeats` times, verified and not."""

    epoch_ms: list[int]
    mixes: list[str]
    distributions: list[str]
    value_bytes: list[int]
    frames: list[int]
    repeats: int
    warm_seconds: float
    workers: int
    memory: str | None
    server_cpus: str | None
    generator_cpus: str | None
    workload: Workload

    def stores(self) -> list[tuple[int, list[str]]]:
        """(bytes of values, mixes) that one pair of servers serves. Counters have 8 bytes."""
        plain = [mix for mix in self.mixes if mix != COUNTERS]
        stores = [(value_bytes, plain) for value_bytes in self.value_bytes if plain]
        return [*stores, (8, [COUNTERS])] if COUNTERS in self.mixes else stores

    def loads(self, epoch_ms: int, value_bytes: int, mixes: list[str]) -> Iterator[Workload]:
        """What is sent to one pair of servers."""
        seconds = max(self.workload.seconds, EPOCHS_PER_RUN_MIN * epoch_ms / 1000)
        warmup = max(self.workload.warmup, epoch_ms / 1000)
        for mix, distribution, frame in itertools.product(mixes, self.distributions, self.frames):
            yield replace(
                self.workload,
                mix=mix,
                distribution=distribution,
                frame=frame,
                value_bytes=value_bytes,
                seconds=seconds,
                warmup=warmup,
                certify_seconds=60 + 5 * epoch_ms / 1000,
            )


def run(benchmark: EpochsBenchmark) -> Result:
    """All measurements, as what the JSON file holds. Rates in operations per second, latencies in milliseconds."""
    result = results.new("epochs", asdict(benchmark))
    generator, rows = Generator(benchmark.generator_cpus), []
    with Progress() as progress:
        task = progress.add_task("building, starting", total=None)
        cells = list(itertools.product(benchmark.epoch_ms, benchmark.stores()))
        loads = sum(len(list(benchmark.loads(epoch_ms, *store))) for epoch_ms, store in cells)
        progress.update(task, total=2 * benchmark.repeats * loads)
        for epoch_ms, (value_bytes, mixes) in cells:
            with ExitStack() as stack:
                services = []
                for verified in (True, False):
                    progress.update(task, description=f"epochs of {epoch_ms} ms: load")
                    server = running_server(
                        workers=benchmark.workers,
                        epoch_ms=epoch_ms,
                        verified=verified,
                        memory=benchmark.memory,
                        cpus=benchmark.server_cpus,
                    )
                    services.append(stack.enter_context(server))
                    first = next(benchmark.loads(epoch_ms, value_bytes, mixes))
                    generator.load(services[-1].target, replace(first, frame=512))
                    if verified:
                        progress.update(task, description=f"epochs of {epoch_ms} ms: warm up")
                        generator.warm(services[-1].target, first, benchmark.warm_seconds)
                for workload in benchmark.loads(epoch_ms, value_bytes, mixes):
                    progress.update(task, description=f"epochs of {epoch_ms} ms: {label(asdict(workload))}")
                    pairs = []
                    for repeat in range(benchmark.repeats):
                        seeded = replace(workload, seed=workload.seed + repeat)
                        pairs.append(_pair(generator, services, seeded, verified_first=repeat % 2 == 0))
                        progress.advance(task, 2)
                    rows.append(_row(epoch_ms, workload, pairs))
    return result | {"rows": rows}


def _pair(
    generator: Generator, services: list[Service], workload: Workload, *, verified_first: bool
) -> tuple[Run, Run]:
    """One run on each server: (verified, unverified). Which comes first alternates."""
    verified, unverified = services
    if verified_first:
        return generator.run(verified.target, workload), generator.run(unverified.target, workload)
    second = generator.run(unverified.target, workload)
    return generator.run(verified.target, workload), second


def _row(epoch_ms: int, workload: Workload, pairs: list[tuple[Run, Run]]) -> Result:
    verified, unverified = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    rates = [[run.operations_per_second for run in runs] for runs in (verified, unverified)]
    return {
        "epoch_ms": epoch_ms,
        "mix": workload.mix,
        "distribution": workload.distribution,
        "value_bytes": workload.value_bytes,
        "frame": workload.frame,
        "verified": spread(rates[0]),
        "unverified": spread(rates[1]),
        "ratio": ratios(*rates),
        "certification_ms_p50": spread(run.certification_ms("p50") for run in verified),
        "certification_ms_p99": spread(run.certification_ms("p99") for run in verified),
        "latency_us_p50": spread(run.latency_us("p50") for run in verified),
        "latency_us_p99": spread(run.latency_us("p99") for run in verified),
        "server_cpu_ns_verified": spread(run.server_cpu_ns_per_operation for run in verified),
        "server_cpu_ns_unverified": spread(run.server_cpu_ns_per_operation for run in unverified),
        "generator_cpu_ns": spread(run.generator_cpu_ns_per_operation for run in verified),
    }


def label(row: Result) -> str:
    """Which series a row belongs to, in short."""
    return f"{row['mix'].upper()} {row['distribution']}, {row['value_bytes']} B, {row['frame']} op/frame"


def draw(result: Result, path: Path) -> None:
    """Left: throughput, and certification latency on a second axis. Right: the ratio of verified to unverified."""
    from bench import plots

    drawn, (rates, shares) = plots.figure(2)
    latencies = rates.twinx()
    latencies.spines["top"].set_visible(False)
    ticks = [epoch_ms / 1000 for epoch_ms in result["parameters"]["epoch_ms"]]
    series = {label(row): [one for one in result["rows"] if label(one) == label(row)] for row in result["rows"]}
    for index, (name, rows) in enumerate(series.items()):
        seconds = [row["epoch_ms"] / 1000 for row in rows]
        plots.line(rates, seconds, [row["verified"] for row in rows], f"{name}: verified", index)
        plots.line(rates, seconds, [row["unverified"] for row in rows], f"{name}: unverified", index, ":")
        plots.line(shares, seconds, [row["ratio"] for row in rows], name, index)
        if index == 0:
            for quantile, style in (("p50", "--"), ("p99", "-.")):
                certified = [row[f"certification_ms_{quantile}"] for row in rows]
                plots.line(latencies, seconds, certified, f"certification {quantile} (right)", 5, style)
    for axes in (rates, shares):
        plots.log_x(axes, ticks)
        axes.set_xlabel("length of an epoch (s)")
        axes.set_ylim(bottom=0)
    plots.thousands(rates)
    rates.set_ylabel("operations per second")
    latencies.set_yscale("log")
    latencies.set_ylabel("from answer to certificate (ms)")
    shares.set_ylabel("verified / unverified")
    shares.axhline(1, color="#999999", linewidth=0.8)
    plots.legend_below(rates, latencies)
    plots.legend_below(shares)
    plots.save(drawn, path, "What verification costs, against the length of an epoch", result)


def command(
    epoch_ms: Annotated[list[int] | None, typer.Option(help="epoch lengths; may be given several times")] = None,
    mix: Annotated[list[str] | None, typer.Option(help="YCSB's a, b, c, f; f has values of 8 bytes only")] = None,
    distribution: Annotated[list[str] | None, typer.Option(help="zipfian, uniform")] = None,
    value_bytes: Annotated[list[int] | None, typer.Option(help="length of values")] = None,
    frame: Annotated[list[int] | None, typer.Option(help="operations per request")] = None,
    repeats: int = 3,
    workers: int = 1,
    memory: Memory = None,
    records: int = 1_000_000,
    connections: int = 4,
    depth: Annotated[int, typer.Option(help="requests in flight per connection")] = 4,
    seconds: Annotated[float, typer.Option(help="of each run, at least three epochs")] = 5.0,
    warm_seconds: WarmSeconds = 60.0,
    seed: int = 1,
    server_cpus: Annotated[str | None, typer.Option(help="cores of the servers, as for taskset")] = None,
    generator_cpus: Annotated[str | None, typer.Option(help="cores of the load generator")] = None,
    output: results.Output = None,
) -> None:
    """Throughput, verified and unverified, against epoch length."""
    results.check(output)
    workload = Workload(records=records, connections=connections, depth=depth, seconds=seconds, seed=seed)
    result = run(
        EpochsBenchmark(
            epoch_ms=epoch_ms or [50, 100, 300, 1000, 3000, 10000],
            mixes=mix or ["b"],
            distributions=distribution or ["zipfian"],
            value_bytes=value_bytes or [8],
            frames=frame or [64],
            repeats=repeats,
            warm_seconds=warm_seconds,
            workers=workers,
            memory=memory,
            server_cpus=server_cpus,
            generator_cpus=generator_cpus,
            workload=workload,
        )
    )
    results.write(result, output, draw)
    table = Table("epoch ms", "load", "verified op/s", "unverified op/s", Column("ratio", no_wrap=True), "certified ms")
    for row in result["rows"]:
        certified = f"{row['certification_ms_p50']['median']:,.0f} / {row['certification_ms_p99']['median']:,.0f}"
        rates = [show(row[name]) for name in ("verified", "unverified")]
        table.add_row(f"{row['epoch_ms']:,}", label(row), *rates, show(row["ratio"], "{:.2f}"), certified)
    Console().print(table)
