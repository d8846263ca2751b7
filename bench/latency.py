"""Latency against offered load, and the stall that the cut of an epoch causes.

Open loop: each request is due at a random moment that does not depend on answers, and its latency counts from then. So
a stall of the server is seen by all requests that were due in it (no "coordinated omission"). Loads are shares of what
a closed loop reached just before, on the same server.
"""

import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import results
from bench.figures import spread
from bench.generator import Generator, Run, WarmSeconds, Workload
from bench.results import Result
from bench.service import Memory, running_server

QUANTILES = ("p50", "p99", "p999", "max")
NAMES = {"p50": "median", "p99": "99 %", "p999": "99.9 %", "max": "longest"}


@dataclass(frozen=True, kw_only=True)
class LatencyBenchmark:
    """`shares`: of the closed loop's throughput."""

    shares: list[float]
    repeats: int
    warm_seconds: float
    workers: int
    epoch_ms: int
    verified: bool
    memory: str | None
    server_cpus: str | None
    generator_cpus: str | None
    workload: Workload


def run(benchmark: LatencyBenchmark) -> Result:
    """All measurements, as what the JSON file holds."""
    result, rows = results.new("latency", asdict(benchmark)), []
    generator, workload = Generator(benchmark.generator_cpus), benchmark.workload
    with (
        Progress() as progress,
        running_server(
            workers=benchmark.workers,
            epoch_ms=benchmark.epoch_ms,
            verified=benchmark.verified,
            memory=benchmark.memory,
            cpus=benchmark.server_cpus,
        ) as service,
    ):
        task = progress.add_task("load", total=2 + benchmark.repeats * len(benchmark.shares))
        generator.load(service.target, replace(workload, frame=512))
        progress.update(task, description="warm up", advance=1)
        if benchmark.verified:
            generator.warm(service.target, workload, benchmark.warm_seconds)
        progress.update(task, description="closed loop")
        most = generator.run(service.target, workload).operations_per_second
        progress.advance(task)
        for share in benchmark.shares:
            runs = []
            for repeat in range(benchmark.repeats):
                progress.update(task, description=f"{share:.0%} of {most:,.0f} op/s")
                offered = replace(workload, rate=share * most, seed=workload.seed + repeat)
                runs.append(generator.run(service.target, offered))
                progress.advance(task)
            rows.append(_row(share, share * most, runs, benchmark.epoch_ms))
    return result | {"closed_loop": most, "rows": rows}


def _row(share: float, rate: float, runs: list[Run], epoch_ms: int) -> Result:
    report = runs[-1].report
    return {
        "share": share,
        "offered": rate,
        "answered": spread(run.operations_per_second for run in runs),
        **{f"latency_us_{name}": spread(run.latency_us(name) for run in runs) for name in QUANTILES},
        "stall_ms": spread(stall_ms(run, epoch_ms) for run in runs),
        "late_us_p99": spread(run.report["late_us"]["p99"] for run in runs),
        "interval_ms": report["interval_ms"],
        "timeline": report["timeline"],
    }


def stall_ms(run: Run, epoch_ms: int) -> float:
    """The longest latency of an operation in one epoch's length: the median over these."""
    longest: list[float] = [interval["latency_max_us"] / 1000 for interval in run.report["timeline"]]
    step = max(1, epoch_ms // run.report["interval_ms"])
    whole = [longest[start : start + step] for start in range(0, len(longest) - step + 1, step)] or [longest]
    return statistics.median(max(one) for one in whole)


def draw(result: Result, path: Path) -> None:
    """Left: percentiles against offered load. Right: the longest latency over time, at the load nearest to one half."""
    from bench import plots

    drawn, (curves, time) = plots.figure(2)
    rows = result["rows"]
    offered = [row["offered"] for row in rows]
    for index, name in enumerate(QUANTILES):
        milliseconds = [spread(sample / 1000 for sample in row[f"latency_us_{name}"]["samples"]) for row in rows]
        plots.line(curves, offered, milliseconds, NAMES[name], index)
    curves.set_yscale("log")
    curves.set_ylabel("latency (ms)")
    curves.set_xlabel("offered load (operations per second)")
    curves.xaxis.set_major_formatter(lambda value, _: plots.short(value))
    curves.legend(fontsize=8)

    half = min(rows, key=lambda row: abs(row["share"] - 0.5))
    seconds = [index * half["interval_ms"] / 1000 for index in range(len(half["timeline"]))]
    longest = [interval["latency_max_us"] / 1000 for interval in half["timeline"]]
    time.step(seconds, longest, where="post", color=plots.COLOURS[0], linewidth=1)
    time.set_ylim(bottom=0)
    time.set_xlabel("time (s)")
    time.set_ylabel(f"longest latency in {half['interval_ms']} ms (ms)")
    time.set_title(f"at {half['share']:.0%} of the closed loop's throughput", fontsize=10)
    epochs = f"epochs of {result['parameters']['epoch_ms'] / 1000:g} s"
    plots.save(drawn, path, f"Latency of an operation, open loop, {epochs}", result)


def command(
    share: Annotated[list[float] | None, typer.Option(help="offered loads, of the closed loop's throughput")] = None,
    mix: str = "b",
    distribution: str = "uniform",
    records: int = 1_000_000,
    keys: Annotated[int, typer.Option(help="records that are used: the hot set")] = 256_000,
    value_bytes: int = 100,
    frame: Annotated[int, typer.Option(help="operations per request")] = 16,
    connections: int = 16,
    repeats: int = 3,
    workers: int = 1,
    epoch_ms: int = 1_000,
    verified: bool = True,
    memory: Memory = None,
    seconds: float = 10.0,
    warm_seconds: WarmSeconds = 20.0,
    seed: int = 1,
    server_cpus: Annotated[str | None, typer.Option(help="cores of the server, as for taskset")] = None,
    generator_cpus: Annotated[str | None, typer.Option(help="cores of the load generator")] = None,
    output: results.Output = None,
) -> None:
    """Latency percentiles against offered load (open loop), and the stall of a cut."""
    results.check(output)
    workload = Workload(
        records=records,
        keys=min(keys, records),
        value_bytes=value_bytes,
        mix=mix,
        distribution=distribution,
        frame=frame,
        connections=connections,
        seconds=seconds,
        seed=seed,
    )
    result = run(
        LatencyBenchmark(
            shares=share or [0.1, 0.25, 0.5, 0.75, 0.9],
            repeats=repeats,
            warm_seconds=warm_seconds,
            workers=workers,
            epoch_ms=epoch_ms,
            verified=verified,
            memory=memory,
            server_cpus=server_cpus,
            generator_cpus=generator_cpus,
            workload=workload,
        )
    )
    results.write(result, output, draw)
    table = Table("offered op/s", *(f"{NAMES[name]} ms" for name in QUANTILES), "stall ms", "generator late, 99 %, ms")
    for row in result["rows"]:
        latencies = [f"{row[f'latency_us_{name}']['median'] / 1000:,.2f}" for name in QUANTILES]
        rest = f"{row['stall_ms']['median']:,.2f}", f"{row['late_us_p99']['median'] / 1000:,.2f}"
        table.add_row(f"{row['offered']:,.0f} ({row['share']:.0%})", *latencies, *rest)
    Console().print(table)
