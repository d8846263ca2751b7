"""The same scripts on a whole service: real processes and sockets, LMDB, the SDK as its users have it, epochs by time.

Slower by two orders than `run.py`, so few runs are of this kind. Rows are lied about in the LMDB file only, not as they
are read or stored.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Final

import lmdb
from _harness.disk import Disk
from _harness.monitor_proxy import MonitorProxy
from crash.history import History
from kvstore_client import (
    KV,
    Answer,
    IntegrityError,
    KVStoreError,
    NotANumberError,
    NotAppliedError,
    ProvisionalLostError,
    ViolationError,
    connect,
)
from lies.catalogue import CATALOGUE, HOT, NODE, RECORD
from lies.host import Origin, Stored
from lies.liar import Layer, Liar
from lies.run import FalseAccusationError, Outcome, Verdict, WrongAnswerError
from lies.script import CLIENTS, KEYS, Ask, Cut, Do, Reconnect, Release, Restart, Script, Step, Tell, value_of
from support.frames import Frame, FrameProxy, Link
from support.linearizability import NOT_A_NUMBER, Fate, Kind, NotExplainedError, Operation, explain_all
from support.server import MonitorProcess, ProcessEndedError, Server

EPOCH_MS: Final = 50
CUT_SECONDS: Final = 3 * EPOCH_MS / 1000
ANSWER_SECONDS: Final = 1.0
"""So long waits a client before it reconnects, and once more before it gives up."""
SERVED_SECONDS: Final = 10.0
"""Nobody promises an answer after a lie; but most are given."""
HONEST_SECONDS: Final = 60.0


class FullRun:
    """`directory`: for everything; its path is short, since sockets are in it."""

    def __init__(self, directory: Path, script: Script) -> None:
        self.liar = Liar(CATALOGUE)
        self.history = History(dict.fromkeys(KEYS), order=itertools.count(1))
        self._script = script
        self._monitor = MonitorProcess(directory, open_to_all=True)
        self._monitor_proxy = MonitorProxy(self._monitor.socket)
        self._proxy_socket = directory / "proxy.sock"
        self._server = Server(directory, admin_key=self._monitor.admin_key)
        self._disk = Disk(self._server.store)
        self._proxies: list[FrameProxy] = []
        self._stack = contextlib.AsyncExitStack()
        self._clients: list[KV | None] = []
        self._answers: list[tuple[Operation, Answer]] = []
        self._snapshots: list[Stored] = []
        self._names: set[str] = set()
        self._violated = False
        self._accused = False
        self._restarted = False

    async def execute(self) -> Outcome:
        """Raises WrongAnswerError or FalseAccusationError."""
        try:
            await self._begin()
            for step in self._script.steps:
                await self._step(step)
            served = await self._end()
        finally:
            await self._close()
        return self._judge(served)

    async def _begin(self) -> None:
        proxy, liar = self._monitor_proxy, self.liar
        proxy.on_log, proxy.on_outputs = liar.log, liar.outputs
        proxy.to_monitor, proxy.to_host = liar.to_monitor, liar.to_host
        await asyncio.to_thread(self._monitor.start)
        await proxy.listen(self._proxy_socket)
        await self._start(self._script.workers)
        for number in range(CLIENTS + 1):
            self._proxies.append(self._interposed(number))
            await self._proxies[number].listen()
        for number in range(CLIENTS):
            self._clients.append(await self._connect(number))

    def _interposed(self, number: int) -> FrameProxy:
        """A man in the middle before one client."""
        proxy = FrameProxy(("127.0.0.1", self._server.port))

        def to_up(_: Link, frame: Frame) -> Sequence[Frame]:
            return self._sent(number, self.liar.to_server(Origin(number, 0), frame), upward=True)

        def to_down(_: Link, frame: Frame) -> Sequence[Frame]:
            return self._sent(number, self.liar.to_client(Origin(number, 0), frame), upward=False)

        proxy.to_up, proxy.to_down = to_up, to_down
        return proxy

    def _sent(self, number: int, frames: list[tuple[Origin, Frame]], *, upward: bool) -> list[Frame]:
        for who, frame in frames:
            if who.client != number:
                self._send(who, frame, upward=upward)
        return [frame for who, frame in frames if who.client == number]

    def _send(self, who: Origin, frame: Frame, *, upward: bool) -> None:
        links = self._proxies[who.client].links
        if links:
            (links[-1].send_up if upward else links[-1].send_down)(frame)

    # --- steps ---

    async def _step(self, step: Step) -> None:
        match step:
            case Do(number, asked):
                if (kv := self._clients[number]) is not None:
                    await asyncio.gather(*(self._ask(kv, number, ask) for ask in asked))
            case Cut(crash=None):
                await asyncio.sleep(CUT_SECONDS)
            case Cut():
                await self._restart(self._script.workers)
            case Restart(workers):
                await self._restart(workers)
            case Reconnect(number):
                for link in self._proxies[number].links:
                    link.cut()
            case Release():
                self._release()
            case Tell(lie):
                self.liar.arm(lie)
                if lie.layer is Layer.STORE:
                    await asyncio.to_thread(self._edit_store)

    async def _ask(self, kv: KV, number: int, ask: Ask) -> None:
        value, expected = value_of(ask.value), value_of(ask.expected)
        call: Awaitable[Answer]
        arguments: dict[str, object] = {}
        match ask.kind:
            case Kind.GET:
                call = kv.get(ask.key)
            case Kind.DELETE:
                call = kv.delete(ask.key)
            case Kind.PUT:
                arguments, call = {"value": value or b""}, kv.put(ask.key, value or b"")
            case Kind.INSERT:
                arguments, call = {"value": value or b""}, kv.insert(ask.key, value or b"")
            case Kind.COMPARE_AND_SET:
                arguments = {"value": value, "expected": expected}
                call = kv.compare_and_set(ask.key, expected, value)
            case Kind.INCREMENT:
                arguments, call = {"delta": 1}, kv.increment(ask.key, 1)
        operation = self.history.call(ask.key, ask.kind, client=number, **arguments)
        try:
            answer = await call
        except (NotAppliedError, ProvisionalLostError):
            self.history.settle(operation, Fate.GONE)
        except NotANumberError as error:
            self.history.result(operation, NOT_A_NUMBER)
            if error.receipt is not None:
                self._answers.append((operation, Answer(error.receipt)))
        except KVStoreError as error:
            self._note(error)
        else:
            self.history.answer(operation, answer)
            self._answers.append((operation, answer))

    def _note(self, error: KVStoreError) -> None:
        if isinstance(error, ViolationError):
            self._violated = True
            self._names.add(error.violation.name)
        elif isinstance(error, IntegrityError):
            self._accused = True
            self._names.add(type(error).__name__)

    async def _restart(self, workers: int) -> None:
        """After a kill of everything, the monitor included."""
        self._restarted = True
        await asyncio.to_thread(self._server.close)
        await asyncio.to_thread(self._monitor.close)
        await asyncio.to_thread(self._monitor.start)
        await self._start(workers)
        for proxy in self._proxies:
            proxy.upstream = ("127.0.0.1", self._server.port)

    async def _start(self, workers: int) -> None:
        options = ["--workers", str(workers), "--epoch-ms", str(EPOCH_MS), "--slots", "512"]
        options += ["--hot-records", str(self._script.hot_records), "--monitor", f"unix:{self._proxy_socket}"]
        options += ["--durability", "wal" if self._script.has_log else "epoch"]
        self._server.options = options
        self._server.spawn()
        try:
            seconds = SERVED_SECONDS if self.liar.told else HONEST_SECONDS
            await asyncio.to_thread(self._server.wait_until_ready, seconds)
        except ProcessEndedError as error:
            if not self.liar.told:
                raise
            self._violated |= error.code == 3
            await asyncio.to_thread(self._server.close)

    async def _connect(self, number: int) -> KV | None:
        address, monitor = f"127.0.0.1:{self._proxies[number].port}", self._server.fingerprint
        seconds = ANSWER_SECONDS if self._script.lies else HONEST_SECONDS
        connection = connect(address, monitor=monitor, timeout=seconds, certificate_timeout=HONEST_SECONDS)
        try:
            return await self._stack.enter_async_context(connection)
        except KVStoreError as error:
            self._note(error)
            return None

    def _edit_store(self) -> None:
        """What a lie about the store changes, is changed in the file. The service may be running, or have ended."""
        if not (self._server.store / "data.mdb").exists():
            return
        with contextlib.suppress(AssertionError, lmdb.Error):  # nobody applies what is pending, or removes the file
            before = {key: row for kind in (RECORD, NODE, HOT) for key, row in self._disk.rows(kind).items()}
            stored = Stored(rows=dict(before))
            self.liar.between(stored, self._snapshots)
            self._snapshots.append(Stored(rows=before))
            for key in before.keys() | stored.rows.keys():
                if before.get(key) != stored.rows.get(key):
                    self._disk.set_row(key, stored.rows.get(key))

    def _release(self) -> None:
        for layer in (Layer.TO_SERVER, Layer.TO_CLIENT, Layer.CERTIFICATES):
            for who, frame in self.liar.released(layer):
                self._send(who, frame, upward=layer is Layer.TO_SERVER)

    # --- the end ---

    async def _end(self) -> bool:
        """Whether a client that knows nothing is served, when the lies have stopped."""
        self.liar.disarm()
        self._release()
        for attempt in range(2):
            if attempt or self._server.process is None:
                await self._restart(2)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SERVED_SECONDS if self.liar.told else HONEST_SECONDS):
                    if self._server.process is not None and await self._read_all():
                        return True
        return False

    async def _read_all(self) -> bool:
        reader = await self._connect(CLIENTS)
        if reader is None:
            return False
        for number, kv in enumerate([*self._clients, reader]):
            if kv is not None:
                await asyncio.gather(*(self._ask(kv, number, Ask(Kind.GET, key)) for key in KEYS))
        try:
            await reader.barrier()
        except KVStoreError as error:
            self._note(error)
            return False
        return not any(operation.client == CLIENTS and operation.answered is None for operation in self._own(CLIENTS))

    def _own(self, number: int) -> list[Operation]:
        return [operation for operation in self.history.operations if operation.client == number]

    async def _close(self) -> None:
        for operation, answer in self._answers:
            settled, error = answer.receipt.state
            if settled and error is None:
                self.history.settle(operation, Fate.CERTIFIED)
            elif isinstance(error, ProvisionalLostError):
                self.history.settle(operation, Fate.GONE)
            elif isinstance(error, KVStoreError):
                self._note(error)
        with contextlib.suppress(KVStoreError):
            await self._stack.aclose()
        await asyncio.to_thread(self._server.close)
        await asyncio.to_thread(self._monitor.close)
        for proxy in (*self._proxies, self._monitor_proxy):
            await proxy.close()

    def _judge(self, served: bool) -> Outcome:
        try:
            explain_all(self.history.operations)
        except NotExplainedError as error:
            raise WrongAnswerError(f"{self._script}\ntold: {', '.join(map(str, self.liar.told))}\n{error}") from error
        fates = {fate: sum(one.fate is fate for one in self.history.operations) for fate in Fate}
        outcome = Outcome(Verdict.HARMLESS, self._names, self.liar.told, fates)
        if not self.liar.told:
            if self._names or not served:
                raise FalseAccusationError(f"{self._script}\n{self._names or 'not served'}")
            outcome.verdict = Verdict.HONEST
        elif self._violated:
            outcome.verdict = Verdict.MONITOR
        elif self._accused:
            outcome.verdict = Verdict.CLIENT
        elif not served:
            outcome.verdict = Verdict.NO_SERVICE
        return outcome
