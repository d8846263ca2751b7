"""The native load generator (`bench/loadgen`): built, run, and its report read.

It checks every receipt, value and certificate, and fails if one is not right: so there are no figures of wrong answers.
"""

import json
import subprocess
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.machine import ROOT
from bench.processes import cpu_seconds

WarmSeconds = Annotated[float, typer.Option(help="load on each verified server before anything is measured")]


class GeneratorError(RuntimeError):
    """The generator was not built, or a run failed: the text says why."""


@dataclass(frozen=True)
class Target:
    """A server: how the generator is told of it, and the process that its other processes descend from."""

    arguments: tuple[str, ...]
    pid: int


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is sent. Names and units are those of the generator's options; None: its default."""

    records: int
    keys: int | None = None
    value_bytes: int = 100
    mix: str = "b"
    distribution: str = "zipfian"
    connections: int = 1
    threads: int = 1
    frame: int = 64
    depth: int = 4
    rate: float | None = None
    seconds: float = 5.0
    warmup: float = 1.0
    certify_seconds: float | None = None
    seed: int = 1

    @property
    def arguments(self) -> list[str]:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@dataclass(frozen=True)
class Run:
    """What a run measured. `report`: all of the generator's JSON."""

    report: dict[str, Any]
    server_cpu_ns_per_operation: float

    @property
    def operations_per_second(self) -> float:
        return float(self.report["operations_per_second"])

    @property
    def generator_cpu_ns_per_operation(self) -> float:
        return float(self.report["generator_cpu_ns_per_operation"])

    def latency_us(self, name: str) -> float:
        """`name`: p50, p90, p99, p999, max, mean."""
        return float(self.report["latency_us"][name])

    def certification_ms(self, name: str) -> float:
        """The same, from the answer to its certificate. Raises GeneratorError if nothing was certified."""
        if self.report["certification_ms"] is None:
            raise GeneratorError("no answer of the measured time was certified")
        return float(self.report["certification_ms"][name])


class Generator:
    """`cpus`: the cores that it may use, as for taskset; None: all."""

    def __init__(self, cpus: str | None = None) -> None:
        self._binary = build()
        self._cpus = cpus

    def load(self, target: Target, workload: Workload) -> Run:
        """Put every record once, and wait until all is certified."""
        return self._call("load", target, workload)

    def warm(self, target: Target, workload: Workload, seconds: float) -> None:
        """Send the mix before anything is measured: ZetaKV is faster once the records that are used are hot."""
        if seconds > 0:
            self.run(target, replace(workload, seconds=seconds))

    def run(self, target: Target, workload: Workload) -> Run:
        """Send the mix for the given time, and wait until all is certified."""
        return self._call("run", target, workload)

    def _call(self, phase: str, target: Target, workload: Workload) -> Run:
        command = [*pinned(self._cpus), str(self._binary), phase, *target.arguments, *workload.arguments]
        before = cpu_seconds(target.pid)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise GeneratorError(f"{done.stderr.strip() or 'no message'} ({' '.join(command)})")
        report = json.loads(done.stdout)
        served = (cpu_seconds(target.pid) - before) / max(1, report["operations_checked"])
        return Run(report, served * 1e9)


def pinned(cpus: str | None) -> list[str]:
    """What to put before a command, so that it runs on these cores only."""
    return [] if cpus is None else ["taskset", "--cpu-list", cpus]


@cache
def build() -> Path:
    """Build the generator, if it is not up to date. Raises GeneratorError."""
    command = ["cargo", "build", "--release", "--package", "zetakv-loadgen", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GeneratorError(f"the load generator was not built:\n{done.stderr}")
    messages = (json.loads(line) for line in done.stdout.splitlines())
    executables = [message["executable"] for message in messages if message.get("executable")]
    return Path(executables[-1])
