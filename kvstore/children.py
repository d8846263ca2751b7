"""The supervisor's side of its child processes: starting them, talking to them, noticing their end.

Children are fresh interpreters, never forks, so none inherits an open LMDB environment or a running event loop. Each
connects back to the control socket in the private runtime directory, and says its process id, so that what a child of
a former run still says is never taken for its successor's. What the end of a child means is for its owner.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from kvstore import limits
from kvstore.config import ChildConfig
from kvstore.framing import FrameProtocol
from kvstore.messages import FromChild, Json, ToChild

logger = logging.getLogger(__name__)

MONITOR_BINARY: Final = "zetakv-monitor"
OPERATOR_BINARY: Final = "zetakv-monitor-operator"
MONITOR_VARIABLE: Final = "ZETAKV_MONITOR_BINARY"


class ServiceError(Exception):
    """The service cannot start or go on. The text says what happened and what to do."""


class ChildOwner(Protocol):
    """Whoever started a child gets what it says and, unless it was told to end, its end."""

    def child_message(self, child: "Child", kind: int, body: bytes) -> None: ...

    def child_ended(self, child: "Child", text: str, *, explained: bool) -> None:
        """`explained`: it ended because of what it found, and said so: if it was just started, another one would find
        the same. Else it was killed, or met a fault."""


class Child:
    """One process. `ready` is its next READY message."""

    def __init__(self, name: str, process: Process, owner: ChildOwner) -> None:
        self.name = name
        self.process = process
        self.owner = owner
        self.link: FrameProtocol | None = None
        self.attached = asyncio.Event()
        """Set when it can be sent messages."""
        self.ending = False
        """Whether its end is wanted."""
        self._ready: asyncio.Future[Json] = asyncio.get_running_loop().create_future()

    def send(self, kind: ToChild, *parts: bytes) -> None:
        if self.link is not None:
            self.link.send(kind, *parts)

    def send_json(self, kind: ToChild, content: Json) -> None:
        self.send(kind, json.dumps(content).encode())

    async def ready(self) -> Json:
        """Wait for one READY message."""
        content = await self._ready
        self._ready = asyncio.get_running_loop().create_future()
        return content

    def is_ready(self, content: Json) -> None:
        if not self._ready.done():
            self._ready.set_result(content)

    def kill(self) -> None:
        """End it at once, without waiting."""
        self.ending = True
        if self.process.returncode is None:
            self.process.kill()


class Children:
    """All children, by process id: those of the run, and the gateway."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._links: dict[FrameProtocol, Child] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        # Kept, since the loop does not: without a reference it is collected, and its socket with it.
        self._server = await loop.create_unix_server(lambda: FrameProtocol(self._received, self._lost), str(path))

    async def start(
        self, owner: ChildOwner, module: str, name: str, config: ChildConfig, descriptors: Sequence[int]
    ) -> Child:
        """Start `python -m module CONFIG` with open `descriptors` to inherit."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the package that this process runs, and not one that the current directory happens to hold
            "-m",
            module,
            config.to_json(),
            stdin=DEVNULL,
            pass_fds=descriptors,
            start_new_session=True,  # a Ctrl-C is for the supervisor, which ends the others in order
        )
        return self._add(Child(name, process, owner))

    async def start_monitor(
        self, owner: ChildOwner, socket: Path, state: Path, *, open_mode: bool, register: str | None
    ) -> Child:
        """Start the monitor, which is ready when it listens. Raises ServiceError if it is not installed."""
        # Its standard input is a pipe that only this process holds: its end tells the monitor that we are gone.
        arguments = ["--socket", str(socket), "--state", str(state), "--exit-on-stdin-eof"]
        if open_mode:
            arguments.append("--open")
        if register is not None:
            arguments += ["--register", register]
        process = await asyncio.create_subprocess_exec(
            find_monitor(), *arguments, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        child = self._add(Child("monitor", process, owner))
        self._spawn(_wait_for_line(child))
        return child

    async def end(self, children: Iterable[Child]) -> None:
        """Ask children to end, and wait; those that do not are killed."""
        processes = []
        for child in children:
            child.ending = True
            child.send(ToChild.END)
            if child.process.stdin is not None:
                child.process.stdin.close()
            elif child.link is None and child.process.returncode is None:
                child.process.kill()  # it has not got as far as to listen to us, or to do anything
            processes.append(child.process)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(process.wait() for process in processes)), limits.EXIT_SECONDS)
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def close(self) -> None:
        """Kill whatever is left, and listen no more."""
        if self._server is not None:
            self._server.close()
        self.kill_all()
        await asyncio.gather(*self._tasks)

    def kill_all(self) -> None:
        for child in self._children.values():
            child.kill()

    def _add(self, child: Child) -> Child:
        self._children[child.process.pid] = child
        self._spawn(self._watch(child))
        return child

    async def _watch(self, child: Child) -> None:
        code = await child.process.wait()
        # What it said last may still be on its way: it explains more than an exit code.
        await asyncio.sleep(0)
        del self._children[child.process.pid]
        if not child.ending:
            # One that was not killed exits with a code of its own, after it has written why.
            child.owner.child_ended(child, f"{child.name} ended unexpectedly ({_exit_text(code)})", explained=code > 0)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _received(self, link: FrameProtocol, kind: int, body: bytes) -> None:
        if kind == FromChild.ATTACH:
            self._attach(link, json.loads(body)["pid"])
        elif (sender := self._links.get(link)) is None:
            link.close()
        elif kind == FromChild.READY:
            sender.is_ready(json.loads(body))
        elif kind == FromChild.FATAL or kind == FromChild.FAULT:
            if not sender.ending:
                sender.ending = True
                sender.owner.child_ended(sender, body.decode(), explained=kind == FromChild.FATAL)
        else:
            sender.owner.child_message(sender, kind, body)

    def _attach(self, link: FrameProtocol, process_id: int) -> None:
        child = self._children.get(process_id)
        if child is None:
            link.close()  # the end of its connection is the end of a child
        else:
            child.link = link
            self._links[link] = child
            child.attached.set()

    def _lost(self, link: FrameProtocol, _error: Exception | None) -> None:
        self._links.pop(link, None)


async def _wait_for_line(monitor: Child) -> None:
    """The monitor says one line, when it is ready; if it ends instead, its end is noticed as that of any child."""
    assert monitor.process.stdout is not None, "it was started with a pipe"
    if line := await monitor.process.stdout.readline():
        monitor.is_ready(json.loads(line))


def find_monitor() -> str:
    """Path of the monitor's binary: $ZETAKV_MONITOR_BINARY, or beside this interpreter, or on PATH.

    Raises ServiceError.
    """
    found = os.environ.get(MONITOR_VARIABLE) or _find(MONITOR_BINARY)
    if found is None:
        raise ServiceError(
            f"{MONITOR_BINARY} is not installed: install the package zetakv-monitor, "
            "name a running one with --monitor, or serve without verification with --unverified"
        )
    return found


def find_operator() -> str:
    """Path of the operator's program, which does without a running monitor: beside this interpreter, or on PATH.

    Raises ServiceError.
    """
    found = _find(OPERATOR_BINARY)
    if found is None:
        raise ServiceError(f"{OPERATOR_BINARY} is not installed: install the package zetakv-monitor")
    return found


def _find(binary: str) -> str | None:
    beside = Path(sys.executable).parent / binary
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(binary)


def _exit_text(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
