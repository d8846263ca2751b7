"""What the Python SDK reaches: many operations per call, and many single calls at once.

One client process, closed loop, keys drawn uniformly. Every answer passes the SDK's checks.
"""

import asyncio
import multiprocessing
import os
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from kvstore_client import KV, connect
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import results
from bench.figures import show, spread
from bench.results import Result
from bench.service import Service, running_server

LOAD_BATCH = 4096
CALLS_MANY = 4
"""Calls of get_many or put_many at once: while one is answered, the next is made."""


@dataclass(frozen=True, kw_only=True)
class SdkBenchmark:
    """`batch`: operations per call of get_many and put_many. `calls`: single calls at once."""

    records: int
    value_bytes: int
    batch: int
    calls: int
    repeats: int
    workers: int
    epoch_ms: int
    verified: bool
    seconds: float
    seed: int
    server_cpus: str | None
    client_cpus: list[int]


@dataclass(frozen=True)
class Observed:
    """Of one way to call: operations answered per second, and CPU time of the client."""

    operations_per_second: float
    client_cpu_us_per_operation: float


Call = Callable[[KV, random.Random], Awaitable[object]]


def ways(benchmark: SdkBenchmark) -> dict[str, tuple[int, int, Call]]:
    """By name: calls at once, operations per call, and the call."""
    value = random.Random(benchmark.seed).randbytes(benchmark.value_bytes)

    def key(chance: random.Random) -> bytes:
        return key_of(chance.randrange(benchmark.records))

    def keys(chance: random.Random) -> list[bytes]:
        return [key(chance) for _ in range(benchmark.batch)]

    return {
        "get_many": (CALLS_MANY, benchmark.batch, lambda kv, chance: kv.get_many(keys(chance))),
        "put_many": (
            CALLS_MANY,
            benchmark.batch,
            lambda kv, chance: kv.put_many([(one, value) for one in keys(chance)]),
        ),
        "get": (benchmark.calls, 1, lambda kv, chance: kv.get(key(chance))),
        "put": (benchmark.calls, 1, lambda kv, chance: kv.put(key(chance), value)),
    }


def key_of(number: int) -> bytes:
    return number.to_bytes(8, "big")


def run_client(service: Service, benchmark: SdkBenchmark, name: str, seed: int) -> Observed:
    """In a process of its own: one way to call, for the time that is asked for."""
    if benchmark.client_cpus:
        os.sched_setaffinity(0, benchmark.client_cpus)
    return asyncio.run(_run_client(service, benchmark, name, seed))


async def _run_client(service: Service, benchmark: SdkBenchmark, name: str, seed: int) -> Observed:
    calls, operations, call = ways(benchmark)[name]
    chance, answered = random.Random(seed), 0
    async with _connect(service) as kv:
        started, cpu = time.perf_counter(), time.process_time()
        end = started + benchmark.seconds

        async def caller() -> None:
            nonlocal answered
            while time.perf_counter() < end:
                await call(kv, chance)
                answered += operations

        async with asyncio.TaskGroup() as callers:
            for _ in range(calls):
                callers.create_task(caller())
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        await kv.barrier()
    return Observed(answered / seconds, cpu / answered * 1e6)


def load_records(service: Service, benchmark: SdkBenchmark) -> None:
    """Put every record once, and wait until all are certified."""
    asyncio.run(_load_records(service, benchmark))


async def _load_records(service: Service, benchmark: SdkBenchmark) -> None:
    async with _connect(service) as kv:
        for start in range(0, benchmark.records, LOAD_BATCH):
            numbers = range(start, min(start + LOAD_BATCH, benchmark.records))
            await kv.put_many([(key_of(number), os.urandom(benchmark.value_bytes)) for number in numbers])
        await kv.barrier()


def _connect(service: Service) -> AbstractAsyncContextManager[KV]:
    os.environ["ZETAKV_HOME"] = str(service.home)
    return connect(service.address, monitor=service.fingerprint, unverified=service.fingerprint is None)


def run(benchmark: SdkBenchmark) -> Result:
    """All measurements, as what the JSON file holds."""
    result, context = results.new("sdk", asdict(benchmark)), multiprocessing.get_context("spawn")
    observed: dict[str, list[Observed]] = {name: [] for name in ways(benchmark)}
    with (
        Progress() as progress,
        running_server(
            workers=benchmark.workers,
            epoch_ms=benchmark.epoch_ms,
            verified=benchmark.verified,
            cpus=benchmark.server_cpus,
        ) as service,
        ProcessPoolExecutor(1, mp_context=context) as pool,
    ):
        task = progress.add_task("load", total=1 + benchmark.repeats * len(observed))
        pool.submit(load_records, service, benchmark).result()
        progress.advance(task)
        for repeat in range(benchmark.repeats):
            for name, of_way in observed.items():
                progress.update(task, description=name)
                of_way.append(pool.submit(run_client, service, benchmark, name, benchmark.seed + repeat).result())
                progress.advance(task)
    rows = [
        {
            "call": name,
            "calls_at_once": ways(benchmark)[name][0],
            "operations_per_call": ways(benchmark)[name][1],
            "operations_per_second": spread(one.operations_per_second for one in of_way),
            "client_cpu_us": spread(one.client_cpu_us_per_operation for one in of_way),
        }
        for name, of_way in observed.items()
    ]
    return result | {"rows": rows}


def draw(result: Result, path: Path) -> None:
    from bench import plots

    drawn, panels = plots.figure(2)
    rows = result["rows"]
    for axes, chosen in zip(panels, (rows[:2], rows[2:]), strict=True):
        names = [row["call"] for row in chosen]
        plots.bars(axes, names, {"": [row["operations_per_second"] for row in chosen]})
        at_once, operations = chosen[0]["calls_at_once"], chosen[0]["operations_per_call"]
        each = "one operation" if operations == 1 else f"{operations} operations"
        axes.set_title(f"{at_once} calls at once, {each} each", fontsize=10)
        axes.set_ylabel("operations per second")
        plots.thousands(axes)
    plots.save(drawn, path, "One process of the Python SDK", result)


def command(
    records: int = 100_000,
    value_bytes: int = 100,
    batch: Annotated[int, typer.Option(help="operations per call of get_many and put_many")] = 512,
    calls: Annotated[int, typer.Option(help="single calls at once")] = 64,
    repeats: int = 5,
    workers: int = 1,
    epoch_ms: int = 1_000,
    verified: bool = True,
    seconds: float = 5.0,
    seed: int = 1,
    server_cpus: Annotated[str | None, typer.Option(help="cores of the server, as for taskset")] = None,
    client_cpu: Annotated[list[int] | None, typer.Option(help="cores of the client")] = None,
    output: results.Output = None,
) -> None:
    """The Python SDK: get_many and put_many, and many single calls at once."""
    results.check(output)
    result = run(
        SdkBenchmark(
            records=records,
            value_bytes=value_bytes,
            batch=batch,
            calls=calls,
            repeats=repeats,
            workers=workers,
            epoch_ms=epoch_ms,
            verified=verified,
            seconds=seconds,
            seed=seed,
            server_cpus=server_cpus,
            client_cpus=client_cpu or [],
        )
    )
    results.write(result, output, draw)
    table = Table("call", "at once", "operations per call", "op/s", "client CPU µs/op")
    for row in result["rows"]:
        rates = show(row["operations_per_second"]), show(row["client_cpu_us"], "{:.2f}")
        table.add_row(row["call"], str(row["calls_at_once"]), str(row["operations_per_call"]), *rates)
    Console().print(table)
