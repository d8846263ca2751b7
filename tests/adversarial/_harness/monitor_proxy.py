"""Between the host's processes and the real monitor: what a lying host would say to it, entry by entry.

The honest host stays as it is and writes honest logs; an attack changes them under way (`on_log`), adds log messages
of its own (`inject`), or changes control messages. Whatever passes is decoded and encoded again, so each test also
checks the codec against real logs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from support.frames import Frame, FrameProxy, Link

from _harness import verifier_log
from _harness.verifier_log import Entry, Output
from kvstore.messages import Monitor

LogHook = Callable[[int, list[Entry]], list[Entry]]
OutputsHook = Callable[[int, list[Output]], list[Output]]
ControlHook = Callable[[Frame], Sequence[Frame]]


class MonitorProxy:
    """Hooks get the number of the verifier thread. All of them may be exchanged at any time.

    `logs` keeps every entry that reached the monitor, by thread, if `record` is set.
    """

    def __init__(self, monitor: Path) -> None:
        self.on_log: LogHook = lambda _, entries: entries
        self.on_outputs: OutputsHook = lambda _, outputs: outputs
        self.to_monitor: ControlHook = lambda frame: (frame,)
        self.to_host: ControlHook = lambda frame: (frame,)
        self.monitor = monitor
        self.record = False
        self.logs: dict[int, list[Entry]] = {}
        self._proxy = FrameProxy(monitor)
        self._proxy.to_up = self._up
        self._proxy.to_down = self._down
        self._control: Link | None = None
        self._threads: dict[Link, int] = {}
        self._pending: dict[int, deque[asyncio.Future[list[Output]] | None]] = {}

    async def listen(self, path: Path) -> None:
        await self._proxy.listen(path)

    async def close(self) -> None:
        await self._proxy.close()

    def inject(self, thread: int, entries: Sequence[Entry]) -> asyncio.Future[list[Output]]:
        """Send a log message of our own on a thread's connection. Its outputs come here, and not to the host."""
        answer: asyncio.Future[list[Output]] = asyncio.get_running_loop().create_future()
        self._pending[thread].append(answer)
        self._log_link(thread).send_up(Frame(Monitor.LOG, verifier_log.encode(entries)))
        return answer

    def send_log_bytes(self, thread: int, log: bytes) -> None:
        """A log message that need not be one. Nothing is expected back but a failure."""
        self._log_link(thread).send_up(Frame(Monitor.LOG, log))

    def send_control(self, frame: Frame) -> None:
        """A control message of our own to the monitor."""
        assert self._control is not None
        self._control.send_up(frame)

    def _log_link(self, thread: int) -> Link:
        return next(link for link, number in self._threads.items() if number == thread)

    def _up(self, link: Link, frame: Frame) -> Sequence[Frame]:
        if frame.kind == Monitor.LOG_OPEN:
            thread = int.from_bytes(frame.body[2:4], "little")
            self._threads[link] = thread
            self._pending[thread] = deque()
            return (frame,)
        if frame.kind == Monitor.CONTROL:
            self._control = link
            return (frame,)
        if link not in self._threads:
            return self.to_monitor(frame)
        thread = self._threads[link]
        entries = verifier_log.decode(frame.body)
        assert verifier_log.encode(entries) == frame.body
        entries = self.on_log(thread, entries)
        if self.record:
            self.logs.setdefault(thread, []).extend(entries)
        self._pending[thread].append(None)
        return (Frame(Monitor.LOG, verifier_log.encode(entries)),)

    def _down(self, link: Link, frame: Frame) -> Sequence[Frame]:
        if link not in self._threads:
            return self.to_host(frame)
        assert frame.kind == Monitor.OUTPUTS
        thread = self._threads[link]
        outputs = verifier_log.decode_outputs(frame.body)
        assert verifier_log.encode_outputs(outputs) == frame.body
        own = self._pending[thread].popleft() if self._pending[thread] else None
        if own is not None:
            own.set_result(outputs)
            return ()
        return (Frame(Monitor.OUTPUTS, verifier_log.encode_outputs(self.on_outputs(thread, outputs))),)


def once(edit: Callable[[list[Entry]], list[Entry] | None]) -> LogHook:
    """A hook that tries `edit` on every log until it changes one; None: the log does not have what it needs."""
    done = False

    def hook(_: int, entries: list[Entry]) -> list[Entry]:
        nonlocal done
        edited = None if done else edit(entries)
        done = done or edited is not None
        return entries if edited is None else edited

    return hook
