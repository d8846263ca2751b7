"""A server of its own for each measurement, on free ports, in a temporary directory."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 60


@dataclass(frozen=True)
class Service:
    """`fingerprint`: None if it runs unverified. `pid`: its supervisor's."""

    address: str
    fingerprint: str | None
    home: Path
    pid: int


@contextmanager
def running_server(*, workers: int, epoch_ms: int, verified: bool) -> Iterator[Service]:
    """Start `zetakv serve` on an empty store, and stop it at the end. Raises RuntimeError if it does not get ready."""
    options = ["--workers", str(workers), "--epoch-ms", str(epoch_ms)]
    with (
        tempfile.TemporaryDirectory(prefix="zetakv-bench-") as folder,
        server_in(Path(folder), options if verified else [*options, "--unverified"]) as service,
    ):
        yield service


@contextmanager
def server_in(folder: Path, options: Sequence[str]) -> Iterator[Service]:
    """The same with a store that stays, in `folder`/data. The service may be killed meanwhile."""
    zetakv = str(Path(sys.executable).with_name("zetakv"))
    home = folder / "home"
    command = [zetakv, "serve", "--data", str(folder / "data"), "--port", "0", "--no-http", *options]
    environment = os.environ | {"ZETAKV_HOME": str(home)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        if not words or words[0] != "ready:":
            raise RuntimeError(f"the server did not start: {' '.join(words) or 'see its messages above'}")
        try:
            yield Service(words[1], words[3] if words[2] == "monitor" else None, home, process.pid)
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
