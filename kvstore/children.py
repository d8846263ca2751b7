"""The supervisor's side of its child processes: starting them, talking to them, noticing their end.

Children are fresh interpreters, never forks, so none inherits an open LMDB environment or a running event loop. Each
connects back to the control socket in the private runtime directory; a child that ends while it should not is fatal.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from kvstore import limits
from kvstore.config import ChildConfig
from kvstore.framing import FrameProtocol
from kvstore.messages import FromChild, Json, ToChild

logger = logging.getLogger(__name__)

MONITOR_BINARY: Final = "zetakv-monitor"
MONITOR_VARIABLE: Final = "ZETAKV_MONITOR_BINARY"


class ServiceError(Exception):
    """The service cannot start or go on. The text says what happened and what to do."""


class Child:
    """One process. `ready` is its next READY message."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process
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


class Children:
    """All children. `on_message(child, type, body)` gets what they say; `on_death(text)` is called if one ends."""

    def __init__(self, on_message: Callable[[Child, int, bytes], None], on_death: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._on_death = on_death
        self._children: dict[str, Child] = {}
        self._links: dict[FrameProtocol, Child] = {}
        self._waits: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None

    async def listen(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        # Kept, since the loop does not: without a reference it is collected, and its socket with it.
        self._server = await loop.create_unix_server(lambda: FrameProtocol(self._received, self._lost), str(path))

    async def start(self, module: str, name: str, config: ChildConfig, descriptors: Sequence[int] = ()) -> Child:
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
        return self._add(name, process)

    async def start_monitor(self, socket: Path, state: Path, *, open_mode: bool, register: str | None) -> Child:
        """Start the monitor and wait until it listens. Raises ServiceError."""
        # Its standard input is a pipe that only this process holds: its end tells the monitor that we are gone.
        arguments = ["--socket", str(socket), "--state", str(state), "--exit-on-stdin-eof"]
        if open_mode:
            arguments.append("--open")
        if register is not None:
            arguments += ["--register", register]
        process = await asyncio.create_subprocess_exec(
            find_monitor(), *arguments, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        child = self._add("monitor", process)
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), limits.START_SECONDS)
            child.is_ready(json.loads(line))
        except (TimeoutError, ValueError) as error:
            raise ServiceError("the monitor did not start; its own messages are above") from error
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

    async def end_all(self) -> None:
        if self._server is not None:
            self._server.close()
        await self.end(self._children.values())
        await asyncio.gather(*self._waits)

    def kill_all(self) -> None:
        """End every child at once, without waiting."""
        for child in self._children.values():
            child.ending = True
            if child.process.returncode is None:
                child.process.kill()

    def _add(self, name: str, process: Process) -> Child:
        child = Child(name, process)
        self._children[name] = child
        self._waits.append(asyncio.get_running_loop().create_task(self._watch(child)))
        return child

    async def _watch(self, child: Child) -> None:
        code = await child.process.wait()
        # What it said last may still be on its way: it explains more than an exit code.
        await asyncio.sleep(0)
        if not child.ending:
            self._on_death(f"{child.name} ended unexpectedly ({_exit_text(code)})")

    def _received(self, link: FrameProtocol, kind: int, body: bytes) -> None:
        if kind == FromChild.ATTACH:
            who = json.loads(body)
            name = f"worker-{who['index']}" if who["role"] == "worker" else str(who["role"])
            child = self._children[name]
            child.link = link
            child.attached.set()
            self._links[link] = child
        elif (sender := self._links.get(link)) is None:
            link.close()
        elif kind == FromChild.READY:
            sender.is_ready(json.loads(body))
        elif kind == FromChild.FATAL:
            self._on_death(body.decode())
        else:
            self._on_message(sender, kind, body)

    def _lost(self, link: FrameProtocol, _error: Exception | None) -> None:
        self._links.pop(link, None)


def find_monitor() -> str:
    """Path of the monitor's binary: $ZETAKV_MONITOR_BINARY, or beside this interpreter, or on PATH.

    Raises ServiceError.
    """
    if chosen := os.environ.get(MONITOR_VARIABLE):
        return chosen
    beside = Path(sys.executable).parent / MONITOR_BINARY
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(MONITOR_BINARY)
    if found is None:
        raise ServiceError(
            f"{MONITOR_BINARY} is not installed: install the package zetakv-monitor, "
            "name a running one with --monitor, or serve without verification with --unverified"
        )
    return found


def _exit_text(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
