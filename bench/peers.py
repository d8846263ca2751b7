"""The same load against ZetaKV and against other servers, as far as they are installed, in turn.

The others are as fast as they can be: in memory, with nothing made durable (but etcd, which cannot do without). ZetaKV
runs as it always does: durable at the end of every epoch. All are loaded by the same generator, which speaks each
one's protocol.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import results
from bench.figures import ratios, show, spread
from bench.generator import Generator, Run, Target, WarmSeconds, Workload, pinned
from bench.results import Result
from bench.service import Memory, running_server

START_SECONDS = 30.0
STOP_SECONDS = 10.0

ETCD_FRAME_MAX = 512
"""Operations of one transaction: etcd's own default is 128."""


@dataclass(frozen=True, kw_only=True)
class PeersBenchmark:
    """`loads`: by name."""

    peers: list[str]
    repeats: int
    workers: int
    epoch_ms: int
    warm_seconds: float
    memory: str | None
    server_cpus: str | None
    generator_cpus: str | None
    loads: dict[str, Workload]


def _redis(port: int, folder: Path, _: PeersBenchmark) -> list[str]:
    return ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]


def _memcached(port: int, _: Path, benchmark: PeersBenchmark) -> list[str]:
    return ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-m", "4096", "-t", str(benchmark.workers)]


def _etcd(port: int, folder: Path, _: PeersBenchmark) -> list[str]:
    urls = [f"--{kind}-client-urls=http://127.0.0.1:{port}" for kind in ("listen", "advertise")]
    peer = f"--listen-peer-urls=http://127.0.0.1:{free_port()}"
    limits = [f"--max-txn-ops={ETCD_FRAME_MAX}", "--quota-backend-bytes=8589934592", "--log-level=error"]
    return ["etcd", f"--data-dir={folder}", *urls, peer, *limits]


Command = Callable[[int, Path, PeersBenchmark], list[str]]
PEERS: dict[str, tuple[str, Command]] = {
    "redis": ("redis-server", _redis),
    "memcached": ("memcached", _memcached),
    "etcd": ("etcd", _etcd),
}
"""By name: the program, and its command line for a port and a folder."""

OURS = {"zetakv": True, "zetakv-unverified": False}


def installed() -> list[str]:
    """The names of all servers that can be measured here."""
    return [*OURS, *(name for name, (program, _) in PEERS.items() if shutil.which(program))]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _running_peer(name: str, benchmark: PeersBenchmark) -> Iterator[Target]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="zetakv-bench-") as folder:
        command = [*pinned(benchmark.server_cpus), *PEERS[name][1](port, Path(folder), benchmark)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                _wait_for(port, process)
                yield Target(("--target", name, "--server", f"127.0.0.1:{port}"), process.pid)
            finally:
                process.terminate()
                process.wait(STOP_SECONDS)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Raises RuntimeError if nobody listens in time."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} did not start")


@contextmanager
def _running_ours(name: str, benchmark: PeersBenchmark) -> Iterator[Target]:
    with running_server(
        workers=benchmark.workers,
        epoch_ms=benchmark.epoch_ms,
        verified=OURS[name],
        memory=benchmark.memory,
        cpus=benchmark.server_cpus,
    ) as service:
        yield service.target


def _running(name: str, benchmark: PeersBenchmark) -> AbstractContextManager[Target]:
    return _running_ours(name, benchmark) if name in OURS else _running_peer(name, benchmark)


def run(benchmark: PeersBenchmark) -> Result:
    """All measurements, as what the JSON file holds."""
    result, rows = results.new("peers", asdict(benchmark)), []
    generator = Generator(benchmark.generator_cpus)
    total = len(benchmark.peers) * (1 + benchmark.repeats * len(benchmark.loads))
    with Progress() as progress, ExitStack() as stack:
        task = progress.add_task("load", total=total)
        targets = {}
        for name in benchmark.peers:
            targets[name] = stack.enter_context(_running(name, benchmark))
            first = next(iter(benchmark.loads.values()))
            generator.load(targets[name], replace(first, connections=4, threads=1, frame=64, depth=4))
            if OURS.get(name):
                progress.update(task, description="warm up")
                generator.warm(targets[name], first, benchmark.warm_seconds)
            progress.advance(task)
        for load, workload in benchmark.loads.items():
            runs: dict[str, list[Run]] = {name: [] for name in benchmark.peers}
            for repeat in range(benchmark.repeats):
                for name, target in targets.items():
                    progress.update(task, description=f"{load}: {name}")
                    runs[name].append(generator.run(target, replace(workload, seed=workload.seed + repeat)))
                    progress.advance(task)
            rows += [_row(load, name, runs) for name in benchmark.peers]
    return result | {"rows": rows}


def _row(load: str, name: str, runs: dict[str, list[Run]]) -> Result:
    rates = {one: [run.operations_per_second for run in of_one] for one, of_one in runs.items()}
    ours = next(iter(rates.values()))
    return {
        "load": load,
        "peer": name,
        "operations_per_second": spread(rates[name]),
        "first_to_this": ratios(ours, rates[name]),
        "latency_us_p50": spread(run.latency_us("p50") for run in runs[name]),
        "latency_us_p99": spread(run.latency_us("p99") for run in runs[name]),
        "server_cpu_ns": spread(run.server_cpu_ns_per_operation for run in runs[name]),
        "generator_cpu_ns": spread(run.generator_cpu_ns_per_operation for run in runs[name]),
    }


def draw(result: Result, path: Path) -> None:
    from bench import plots

    loads = list(result["parameters"]["loads"])
    drawn, panels = plots.figure(len(loads))
    for axes, load in zip(panels, loads, strict=True):
        rows = [row for row in result["rows"] if row["load"] == load]
        rates = {"": [row["operations_per_second"] for row in rows]}
        plots.bars(axes, [row["peer"].replace("-", "\n") for row in rows], rates)
        axes.set_title(load, fontsize=10)
        axes.set_ylabel("operations per second")
        plots.thousands(axes)
    plots.save(drawn, path, "The same load, the same machine", result)


def command(
    peer: Annotated[list[str] | None, typer.Option(help="servers, the first one is what ratios are to")] = None,
    mix: str = "b",
    distribution: str = "zipfian",
    records: int = 1_000_000,
    value_bytes: int = 100,
    frame: Annotated[int, typer.Option(help="operations per request where there are many")] = 64,
    depth: Annotated[int, typer.Option(help="such requests in flight per connection")] = 4,
    connections: Annotated[int, typer.Option(help="connections of the load with one operation per request")] = 50,
    repeats: int = 5,
    workers: int = 1,
    memory: Memory = None,
    epoch_ms: int = 1_000,
    seconds: float = 5.0,
    warm_seconds: WarmSeconds = 30.0,
    seed: int = 1,
    server_cpus: Annotated[str | None, typer.Option(help="cores of the servers, as for taskset")] = None,
    generator_cpus: Annotated[str | None, typer.Option(help="cores of the load generator")] = None,
    output: results.Output = None,
) -> None:
    """ZetaKV beside redis-server, memcached and etcd, as far as they are installed."""
    results.check(output)
    peers = peer or installed()
    unknown = [name for name in peers if name not in installed()]
    if unknown:
        raise typer.BadParameter(f"not installed: {', '.join(unknown)}; there are: {', '.join(installed())}")
    many = Workload(
        records=records,
        value_bytes=value_bytes,
        mix=mix,
        distribution=distribution,
        frame=frame,
        connections=4,
        depth=depth,
        seconds=seconds,
        seed=seed,
    )
    single = replace(many, frame=1, connections=connections, depth=1)
    benchmark = PeersBenchmark(
        peers=peers,
        repeats=repeats,
        workers=workers,
        epoch_ms=epoch_ms,
        warm_seconds=warm_seconds,
        memory=memory,
        server_cpus=server_cpus,
        generator_cpus=generator_cpus,
        loads={f"{frame} per request, 4 connections": many, f"1 per request, {connections} connections": single},
    )
    result = run(benchmark)
    results.write(result, output, draw)
    table = Table("load", "server", "op/s", f"{peers[0]} to it", "p50 µs", "p99 µs", "server CPU ns/op")
    for row in result["rows"]:
        ratio = show(row["first_to_this"], "{:.2f}")
        rest = [show(row[name]) for name in ("latency_us_p50", "latency_us_p99", "server_cpu_ns")]
        table.add_row(row["load"], row["peer"], show(row["operations_per_second"]), ratio, *rest)
    Console().print(table)
