"""The processes of a service, from outside: which there are, their memory and CPU time, and their end by SIGKILL.

Memory is what is theirs alone and cannot be dropped (anonymous pages, Linux only). Pages of the store's file that are
mapped are the system's cache: they go when something else needs the room.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

_KIB = 1 << 10
_SAMPLE_SECONDS = 0.2


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def kill_member(pid: int, name: str) -> None:
    """SIGKILL to the one descendant that runs the program of this name."""
    (found,) = (member for member in family(pid) if Path(f"/proc/{member}/comm").read_text().strip() == name)
    os.kill(found, signal.SIGKILL)


def kill_family(pid: int) -> None:
    """SIGKILL to all of them, the parent first, so that it starts nothing anew."""
    for member in family(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def anonymous_bytes(pid: int) -> int:
    """Anonymous memory of one process; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * _KIB
    return 0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all that descend from it, so far. Of those that have ended: nothing."""
    ticks = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            # after the name, which is in parentheses, come fields 3 and on; times are fields 14 and 15
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class MemoryPeak:
    """The largest sum of anonymous memory that a family has had, sampled."""

    def __init__(self) -> None:
        self.bytes = 0

    @contextlib.contextmanager
    def watching(self, pid: int) -> Iterator[None]:
        stopped = threading.Event()

        def watch() -> None:
            while not stopped.wait(_SAMPLE_SECONDS):
                self.bytes = max(self.bytes, sum(anonymous_bytes(member) for member in family(pid)))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stopped.set()
            watcher.join()
