"""Real processes: `zetakv serve`, `zetakv-monitor`, and the command line as a person calls it.

Everything lives in one directory of the test: data, the monitor's state, and `ZETAKV_HOME`. What a process wrote to
stderr is in `errors`, and is part of every failure's text.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

START_SECONDS = 30.0
STOP_SECONDS = 30.0
_COMMAND_SECONDS = 60.0

ZETAKV = str(Path(sys.executable).with_name("zetakv"))
ZETAKV_MONITOR = str(Path(sys.executable).with_name("zetakv-monitor"))


_CHILD = re.compile(r"kvstore\.(worker|checkpointer|gateway)|zetakv-(monitor) ")


class ProcessEndedError(AssertionError):
    """A process ended, or did not do what was waited for. `code`: its exit code, None if it still runs."""

    def __init__(self, what: str, code: int | None, errors: str) -> None:
        super().__init__(f"{what} (exit code {code}); it wrote:\n{errors}")
        self.code = code
        self.errors = errors


class Process:
    """A child whose output is collected by threads, so that it can be waited for from sync and async tests alike."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.name = Path(arguments[0]).name
        self._process = subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C in the test run is for pytest, which then stops what it started.
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._grown = threading.Condition()
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """The first match in what it has written. Raises ProcessEndedError if it ends or takes longer."""
        end = time.monotonic() + seconds
        with self._grown:
            while (found := re.search(pattern, self.output, re.MULTILINE)) is None:
                if not self._collector.is_alive() or time.monotonic() > end:
                    raise ProcessEndedError(f"{self.name} never wrote {pattern!r}", self.exit_code, self.output)
                self._grown.wait(0.1)
        return found

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Its exit code, when it has ended and all that it wrote is collected."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ProcessEndedError(f"{self.name} did not end within {seconds} s", None, self.output) from None
        self._collector.join(STOP_SECONDS)
        return code

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and collect it. Its children see their connection end, and end too."""
        self._process.kill()
        self._process.wait()
        self._collector.join(STOP_SECONDS)

    def _collect(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._grown:
                    self._lines.append(line)
                    self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()


@dataclass(frozen=True)
class CommandResult:
    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        return json.loads(self.stdout)


def environment_of(home: Path) -> dict[str, str]:
    """No settings of the person who runs the tests may reach the processes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZETAKV_")}
    return kept | {"ZETAKV_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}


class Server:
    """`zetakv serve` on free ports. `options` are those of the command line, without `--data` and the ports."""

    def __init__(
        self,
        directory: Path,
        options: Sequence[str] = (),
        *,
        admin_key: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """`admin_key`: where its monitor keeps the admin's key, if the monitor is run apart. `environment`: added."""
        self.environment = environment or {}
        self.home = directory / "home"
        self.data = directory / "data"
        self.options = list(options)
        self.admin_key = admin_key or self.data / "monitor" / "admin.key"
        self.process: Process | None = None
        self.port = 0
        self.fingerprint = ""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        return self.data / "store"

    def spawn(self) -> Process:
        """Start the process without waiting until it serves."""
        arguments = [ZETAKV, "serve", "--data", str(self.data), "--port", "0", "--no-http", *self.options]
        self.process = Process(arguments, environment_of(self.home) | self.environment)
        return self.process

    def start(self) -> Self:
        """Raises ProcessEndedError if it does not get ready."""
        self.spawn()
        return self.wait_until_ready()

    def wait_until_ready(self, seconds: float = START_SECONDS) -> Self:
        """After `spawn`. Raises ProcessEndedError if it does not get ready."""
        ready = self._running().wait_for(r"^ready: 127\.0\.0\.1:(\d+) (?:monitor ([0-9a-f]{64})|unverified)", seconds)
        self.port, self.fingerprint = int(ready[1]), ready[2] or ""
        return self

    def start_refused(self) -> CommandResult:
        """Start a server that must not get ready: its exit code and output."""
        process = self.spawn()
        code = process.wait()
        assert "ready:" not in process.output, process.output
        self.process = None
        return CommandResult(code, "", process.output)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM: a clean stop, after which every record is in Merkle. Fails unless it exits with 0."""
        process, self.process = self._running(), None
        process.terminate()
        code = process.wait(seconds)
        if code != 0:
            raise ProcessEndedError("the server did not stop cleanly", code, process.output)

    def kill(self) -> None:
        """SIGKILL: a crash of the whole service."""
        process, self.process = self._running(), None
        process.kill()

    def close(self) -> None:
        """End it, whatever its state: for the teardown of tests that latch a violation."""
        if self.process is not None:
            self.kill()

    def children(self) -> dict[int, str]:
        """What its children are (monitor, worker, checkpointer, gateway), by process id."""
        parent = str(self._running().pid)
        listed = subprocess.run(["pgrep", "-a", "-P", parent], capture_output=True, text=True, check=False)
        found = {}
        for line in listed.stdout.splitlines():
            process_id, command = line.split(" ", 1)
            if name := _CHILD.search(command):
                found[int(process_id)] = name[1] or name[2]
        return found

    def command(self, *arguments: str) -> CommandResult:
        """Run `zetakv ARGUMENTS` against this server, as its admin on this machine would."""
        return self._command(*arguments, "--server", self.address, "--key", str(self.admin_key))

    def status(self) -> CommandResult:
        """`zetakv status --json`, which needs no key."""
        return self._command("status", "--json", "--server", self.address)

    def offline_command(self, *arguments: str) -> CommandResult:
        """`zetakv ARGUMENTS`, of a command that asks no server."""
        return self._command(*arguments)

    def _command(self, *arguments: str) -> CommandResult:
        done = subprocess.run(
            [ZETAKV, *arguments],
            env=environment_of(self.home),
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def _running(self) -> Process:
        assert self.process is not None, "the server is not running"
        return self.process


class MonitorProcess:
    """`zetakv-monitor` on its own, as when it is run apart from the host."""

    def __init__(self, directory: Path, *, open_to_all: bool = False, tcp: bool = False) -> None:
        self.state = directory / "monitor-state"
        self.socket = directory / "monitor.sock"
        self.address = "tcp:127.0.0.1:0" if tcp else f"unix:{self.socket}"
        """With the port, over TCP, from the first start on; it stays the same."""
        self._options = ["--open"] if open_to_all else []
        self.process: Process | None = None

    def start(self) -> Self:
        scheme, _, rest = self.address.partition(":")
        where = ["--socket" if scheme == "unix" else "--listen", rest]
        arguments = [ZETAKV_MONITOR, "--state", str(self.state), *where, *self._options]
        self.process = Process(arguments, environment_of(self.state.parent / "home"))
        ready = json.loads(self.process.wait_for(r'^\{"ready": true.*\}$')[0])
        if "address" in ready:
            self.address = f"tcp:{ready['address']}"
        return self

    @property
    def admin_key(self) -> Path:
        return self.state / "admin.key"

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None
