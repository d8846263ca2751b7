"""A server of its own for each measurement, on free ports, in a temporary directory."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.generator import Target, pinned

STOP_SECONDS = 60

Memory = Annotated[str | None, typer.Option(help="that each server may use, as its own option says")]


@dataclass(frozen=True)
class Service:
    """`fingerprint`: None if it runs unverified. `key`: of its admin. `pid`: its supervisor's."""

    address: str
    fingerprint: str | None
    home: Path
    key: Path
    pid: int

    @property
    def target(self) -> Target:
        """For the load generator."""
        if self.fingerprint is None:
            return Target(("--server", self.address, "--unverified"), self.pid)
        who = ("--monitor", self.fingerprint, "--key", str(self.key))
        return Target(("--server", self.address, *who), self.pid)


@contextmanager
def running_server(
    *, workers: int, epoch_ms: int, verified: bool, memory: str | None = None, cpus: str | None = None
) -> Iterator[Service]:
    """Start `zetakv serve` on an empty store, and stop it at the end. Raises RuntimeError if it does not get ready.

    `memory`: as in `server_options`. `cpus`: the cores that it may use, as for taskset.
    """
    options = server_options(workers, epoch_ms, memory)
    with (
        tempfile.TemporaryDirectory(prefix="zetakv-bench-") as folder,
        server_in(Path(folder), options if verified else [*options, "--unverified"], cpus) as service,
    ):
        yield service


def server_options(workers: int, epoch_ms: int, memory: str | None) -> list[str]:
    """`memory`: that it may use, if not the default."""
    rest = [] if memory is None else ["--memory", memory]
    return ["--workers", str(workers), "--epoch-ms", str(epoch_ms), *rest]


@contextmanager
def server_in(folder: Path, options: Sequence[str], cpus: str | None = None) -> Iterator[Service]:
    """The same with a store that stays, in `folder`/data. The service may be killed meanwhile."""
    zetakv = str(Path(sys.executable).with_name("zetakv"))
    home, data = folder / "home", folder / "data"
    command = [*pinned(cpus), zetakv, "serve", "--data", str(data), "--port", "0", "--no-http", *options]
    environment = os.environ | {"ZETAKV_HOME": str(home)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        if not words or words[0] != "ready:":
            raise RuntimeError(f"the server did not start: {' '.join(words) or 'see its messages above'}")
        try:
            fingerprint = words[3] if words[2] == "monitor" else None
            yield Service(words[1], fingerprint, home, data / "monitor" / "admin.key", process.pid)
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
