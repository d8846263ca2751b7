"""The real verifier, as a process that follows the scripts of the model.

It is a unit test of the verifier (`monitor/verifier/src/tests/driver/`), as only these see its state.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .steps import Step

ROOT = Path(__file__).resolve().parents[2]
SOCKET = "ZETAKV_DRIVER_SOCKET"
TEST = "tests::driver::follow_scripts"
START_SECONDS_MAX = 30


def build() -> Path:
    """The unit tests of the verifier, built if they are not."""
    cargo = shutil.which("cargo")
    assert cargo, "cargo is needed to build the verifier"
    command = [cargo, "test", "--quiet", "--package", "zetakv-verifier", "--lib", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    [executable] = {message["executable"] for message in messages if message.get("executable")}
    return Path(executable)


@dataclass(frozen=True)
class Script:
    leaf_depth: int
    without: Sequence[str]
    """Checks that are left out."""
    steps: Sequence[Step]

    def text(self) -> str:
        lines = [" ".join((str(self.leaf_depth), *self.without)), *(step.line() for step in self.steps)]
        return "".join(f"{line}\n" for line in [*lines, ""])


class Driver:
    """`with Driver(build()) as driver: driver.follow(…)`."""

    def __init__(self, executable: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="zetakv-model-")
        path = f"{self._folder.name}/socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(START_SECONDS_MAX)
            self._process = subprocess.Popen(
                [executable, "--ignored", "--exact", TEST],
                env={**os.environ, SOCKET: path},
                stdout=subprocess.DEVNULL,
            )
            self._stream, _ = listener.accept()
        self._lines = self._stream.makefile("r", encoding="ascii")

    def follow(self, scripts: Iterable[Script]) -> list[list[list[str]]]:
        """What can be seen of each step of each; the last has one line, "panicked: …", if the verifier panicked."""
        texts = [script.text() for script in scripts]
        self._stream.sendall("".join([f"{len(texts)}\n", *texts]).encode())
        return [self._answer() for _ in texts]

    def _answer(self) -> list[list[str]]:
        seen: list[list[str]] = [[]]
        while (line := self._lines.readline()) != "\n":
            assert line, "the verifier's process has ended"
            if line == ".\n":
                seen.append([])
            else:
                seen[-1].append(line[:-1])
        return seen[:-1]

    def close(self) -> None:
        self._lines.close()
        self._stream.close()
        self._process.wait(START_SECONDS_MAX)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
