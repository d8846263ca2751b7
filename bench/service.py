"""A server of its own for each measurement, on free ports, in a temporary directory."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 60


@dataclass(frozen=True)
class Service:
    """`fingerprint`: None if it runs unverified."""

    address: str
    fingerprint: str | None
    home: Path


@contextmanager
def running_server(*, workers: int, epoch_ms: int, verified: bool) -> Iterator[Service]:
    """Start `zetakv serve`, and stop it at the end. Raises RuntimeError if it does not get ready."""
    with tempfile.TemporaryDirectory(prefix="zetakv-bench-") as folder:
        home = Path(folder, "home")
        command = [
            str(Path(sys.executable).with_name("zetakv")),
            "serve",
            "--data",
            str(Path(folder, "data")),
            "--port",
            "0",
        ]
        command += ["--no-http", "--workers", str(workers), "--epoch-ms", str(epoch_ms)]
        if not verified:
            command.append("--unverified")
        environment = os.environ | {"ZETAKV_HOME": str(home)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            if not words or words[0] != "ready:":
                raise RuntimeError(f"the server did not start: {' '.join(words) or 'see its messages above'}")
            try:
                yield Service(words[1], words[3] if verified else None, home)
            finally:
                process.terminate()
                process.wait(STOP_SECONDS)
