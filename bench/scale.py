"""Throughput and memory against the number of records, the size of the hot set, and the number of workers.

*Merkle only* is the contrast: a server that keeps nothing in Blum over a cut and has a small cache proves every
operation along the tree.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from bench import results
from bench.figures import show, spread
from bench.generator import Generator, Run, WarmSeconds, Workload
from bench.processes import MemoryPeak, anonymous_bytes, family
from bench.results import Result
from bench.service import Memory, Service, server_in, server_options
from bench.sizes import store_bytes

MERKLE_ONLY = ("--hot-records", "0", "--slots", "4096")


@dataclass(frozen=True, kw_only=True)
class ScaleBenchmark:
    """`keys` and `workers` are varied with `base_records` records."""

    records: list[int]
    base_records: int
    keys: list[int]
    workers: list[int]
    merkle_only: bool
    repeats: int
    warm_seconds: float
    epoch_ms: int
    memory: str | None
    server_cpus: str | None
    generator_cpus: str | None
    workload: Workload


class Scale:
    """One run of the benchmark."""

    def __init__(self, benchmark: ScaleBenchmark, progress: Progress) -> None:
        self._benchmark = benchmark
        self._progress = progress
        self._generator = Generator(benchmark.generator_cpus)
        servers = len(benchmark.records) * (2 if benchmark.merkle_only else 1) + len(benchmark.workers) + 1
        self._task: TaskID = progress.add_task("start", total=servers)
        self.rows: list[Result] = []

    def measure(self) -> None:
        benchmark, zipfian = self._benchmark, replace(self._benchmark.workload, distribution="zipfian")
        uniform = replace(zipfian, distribution="uniform")
        for records in benchmark.records:
            with self._loaded(records, 1) as (service, sizes):
                for workload in (zipfian, uniform):
                    loaded = replace(workload, records=records)
                    self._add("records", workload.distribution, records, service, loaded, sizes)
            if benchmark.merkle_only:
                with self._loaded(records, 1, MERKLE_ONLY) as (service, sizes):
                    loaded = replace(uniform, records=records)
                    self._add("records", "uniform, Merkle only", records, service, loaded, sizes)
        with self._loaded(benchmark.base_records, 1) as (service, sizes):
            for keys in benchmark.keys:
                hot = replace(uniform, records=benchmark.base_records, keys=keys)
                self._add("keys", "uniform", keys, service, hot, sizes)
        for workers in benchmark.workers:
            with self._loaded(benchmark.base_records, workers) as (service, sizes):
                for workload in (zipfian, uniform):
                    loaded = replace(workload, records=benchmark.base_records)
                    self._add("workers", workload.distribution, workers, service, loaded, sizes)

    @contextmanager
    def _loaded(
        self, records: int, workers: int, options: tuple[str, ...] = ()
    ) -> Iterator[tuple[Service, dict[str, float]]]:
        """A server with its records, and what they take."""
        benchmark, peak = self._benchmark, MemoryPeak()
        common = server_options(workers, benchmark.epoch_ms, benchmark.memory)
        self._progress.update(self._task, description=f"{records:,} records, {workers} workers: load")
        with (
            tempfile.TemporaryDirectory(prefix="zetakv-bench-") as name,
            server_in(Path(name), [*common, *options], benchmark.server_cpus) as service,
        ):
            empty = sum(anonymous_bytes(member) for member in family(service.pid))
            with peak.watching(service.pid):
                load = replace(benchmark.workload, records=records, frame=512, certify_seconds=300)
                loaded = self._generator.load(service.target, load)
            yield (
                service,
                {
                    "memory_bytes_per_record": max(0, peak.bytes - empty) / records,
                    "store_bytes_per_record": store_bytes(Path(name)) / records,
                    "loads_per_second": loaded.operations_per_second,
                },
            )
        self._progress.advance(self._task)

    def _add(
        self, varied: str, series: str, value: int, service: Service, workload: Workload, sizes: dict[str, float]
    ) -> None:
        runs: list[Run] = []
        self._progress.update(self._task, description=f"{varied} {value:,}: {series}: warm up")
        self._generator.warm(service.target, workload, self._benchmark.warm_seconds)
        for repeat in range(self._benchmark.repeats):
            self._progress.update(self._task, description=f"{varied} {value:,}: {series}")
            runs.append(self._generator.run(service.target, replace(workload, seed=workload.seed + repeat)))
        self.rows.append(
            {
                "varied": varied,
                "series": series,
                "value": value,
                "operations_per_second": spread(run.operations_per_second for run in runs),
                "latency_us_p99": spread(run.latency_us("p99") for run in runs),
                "server_cpu_ns": spread(run.server_cpu_ns_per_operation for run in runs),
                **sizes,
            }
        )


def run(benchmark: ScaleBenchmark) -> Result:
    """All measurements, as what the JSON file holds."""
    result = results.new("scale", asdict(benchmark))
    with Progress() as progress:
        scale = Scale(benchmark, progress)
        scale.measure()
    return result | {"rows": scale.rows}


_X_LABELS = {"records": "records", "keys": "records that are used, of {:,}", "workers": "workers"}


def draw(result: Result, path: Path) -> None:
    from bench import plots

    drawn, panels = plots.figure(4, rows=2)
    for axes, (varied, x_label) in zip(panels, _X_LABELS.items(), strict=False):
        rows = [row for row in result["rows"] if row["varied"] == varied]
        for index, series in enumerate(dict.fromkeys(row["series"] for row in rows)):
            of_series = [row for row in rows if row["series"] == series]
            values = [row["value"] for row in of_series]
            plots.line(axes, values, [row["operations_per_second"] for row in of_series], series, index)
        plots.log_x(axes, sorted({row["value"] for row in rows}))
        plots.thousands(axes)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(x_label.format(result["parameters"]["base_records"]))
        axes.set_ylabel("operations per second")
        plots.legend_below(axes)
    bytes_axes = panels[3]
    rows = [row for row in result["rows"] if row["varied"] == "records" and row["series"] == "zipfian"]
    values = [row["value"] for row in rows]
    for index, (name, label) in enumerate((("memory", "memory of all processes, peak"), ("store", "data directory"))):
        each = [spread([row[f"{name}_bytes_per_record"]]) for row in rows]
        plots.line(bytes_axes, values, each, label, index)
    plots.log_x(bytes_axes, values)
    bytes_axes.set_yscale("log")
    bytes_axes.set_xlabel("records")
    bytes_axes.set_ylabel("bytes per record, after the load")
    plots.legend_below(bytes_axes)
    plots.save(drawn, path, "Throughput and memory against size", result)


def command(
    records: Annotated[list[int] | None, typer.Option(help="sizes of the store")] = None,
    base_records: Annotated[int, typer.Option(help="records where keys or workers are varied")] = 1_000_000,
    keys: Annotated[list[int] | None, typer.Option(help="sizes of the hot set")] = None,
    workers: Annotated[list[int] | None, typer.Option(help="numbers of workers")] = None,
    merkle_only: Annotated[bool, typer.Option(help="also servers that prove all along the tree")] = True,
    mix: str = "b",
    value_bytes: int = 100,
    frame: int = 64,
    repeats: int = 3,
    epoch_ms: int = 1_000,
    memory: Memory = None,
    seconds: float = 5.0,
    warm_seconds: WarmSeconds = 20.0,
    seed: int = 1,
    server_cpus: Annotated[str | None, typer.Option(help="cores of the servers, as for taskset")] = None,
    generator_cpus: Annotated[str | None, typer.Option(help="cores of the load generator")] = None,
    output: results.Output = None,
) -> None:
    """Throughput and memory against records, hot set and workers."""
    results.check(output)
    hot = keys or [one for one in (1_000, 10_000, 100_000, 300_000, 1_000_000) if one <= base_records]
    workload = Workload(
        records=base_records,
        value_bytes=value_bytes,
        mix=mix,
        frame=frame,
        connections=4,
        seconds=seconds,
        seed=seed,
    )
    result = run(
        ScaleBenchmark(
            records=records or [10_000, 100_000, 1_000_000, 10_000_000],
            base_records=base_records,
            keys=hot,
            workers=workers or [1, 2],
            merkle_only=merkle_only,
            repeats=repeats,
            warm_seconds=warm_seconds,
            epoch_ms=epoch_ms,
            memory=memory,
            server_cpus=server_cpus,
            generator_cpus=generator_cpus,
            workload=workload,
        )
    )
    results.write(result, output, draw)
    table = Table("varied", "", "op/s", "p99 µs", "server CPU ns/op", "memory B/record", "disk B/record")
    for row in result["rows"]:
        figures = [show(row[name]) for name in ("operations_per_second", "latency_us_p99", "server_cpu_ns")]
        sizes = [f"{row[name]:,.0f}" for name in ("memory_bytes_per_record", "store_bytes_per_record")]
        table.add_row(f"{row['varied']} {row['value']:,}", row["series"], *figures, *sizes)
    Console().print(table)
