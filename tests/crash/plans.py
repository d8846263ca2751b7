"""The test side of failpoints: their names, the build of the monitor that has them, and the plan of one failure."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
_HOST_POINT = re.compile(r"failpoints\.hit\(([^)]*)\)")
_MONITOR_POINT = re.compile(r'failpoint!\("([a-z_.]+)"\)')
_NAME = re.compile(r'"([a-z_]+\.[a-z_]+)"')


def host_points() -> set[str]:
    """Names of the host's failpoints, as the code has them."""
    calls = (call for path in CHECKOUT.glob("kvstore/**/*.py") for call in _HOST_POINT.findall(path.read_text()))
    return {name for call in calls for name in _NAME.findall(call)}


COMMANDS = ("backup.", "compact.", "restore.")
"""Beginnings of the points of commands, to which no service comes: `test_store_commands.py`."""


def service_points() -> set[str]:
    """Names of all points of a service."""
    return {point for point in host_points() | monitor_points() if not point.startswith(COMMANDS)}


def monitor_points() -> set[str]:
    sources = CHECKOUT.glob("monitor/daemon/src/**/*.rs")
    return {name for path in sources for name in _MONITOR_POINT.findall(path.read_text())}


def build_monitor(directory: Path) -> Path:
    """The monitor with failpoints, in this directory. Raises CalledProcessError, with what cargo said in `stderr`."""
    what = ["--package=zetakv-monitor-programs", "--bin=zetakv-monitor", "--features=failpoints"]
    command = ["cargo", "build", "--quiet", *what]
    built = subprocess.run(
        [*command, "--message-format=json"], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=600
    )
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    (binary,) = {message["executable"] for message in messages if message.get("executable")}
    # A copy, since the next `cargo build` puts another build in its place.
    return Path(shutil.copy(binary, directory / "zetakv-monitor-with-failpoints"))


@dataclass(frozen=True)
class Plan:
    """The action at the n-th hit of a failpoint (`kvstore/failpoints.py` says which there are)."""

    point: str
    hit: int
    action: str

    def __str__(self) -> str:
        return f"{self.action} at {self.point} hit {self.hit}"


class FailpointDirectory:
    """What `$ZETAKV_FAILPOINTS` names, for one service."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plans = 0
        (path / "hits").mkdir(parents=True)

    def environment(self, monitor: Path) -> dict[str, str]:
        return {"ZETAKV_FAILPOINTS": str(self.path), "ZETAKV_MONITOR_BINARY": str(monitor)}

    def arm(self, plan: Plan) -> None:
        self._plans += 1
        written = self.path / "plan.new"
        written.write_text(f"{self._plans} {plan.point} {plan.hit} {plan.action}")
        written.replace(self.path / "plan")

    def disarm(self) -> None:
        (self.path / "plan").unlink(missing_ok=True)

    @property
    def fired(self) -> bool:
        """Whether the last plan was carried out."""
        return (self.path / f"fired-{self._plans}").exists()

    @property
    def hits(self) -> set[str]:
        """All points that any process has come to."""
        return set(os.listdir(self.path / "hits"))

    def processes(self) -> set[int]:
        return processes_of(self.path)


def processes_of(failpoints: Path) -> set[int]:
    """Processes that run with this directory in their environment: those of the service, however orphaned."""
    marker = f"ZETAKV_FAILPOINTS={failpoints}\0".encode()
    found = set()
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                if marker in (directory / "environ").read_bytes():
                    found.add(int(directory.name))
            except OSError:
                continue  # it has ended, or belongs to someone else
    return found
