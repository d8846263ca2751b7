"""One service that is crashed again and again under load, by a schedule that a seed decides.

Each round plans one failure (a failpoint, which of its hits, one process or all), lets clients run until it has
happened, waits until the service answers again (starting it if its supervisor is gone, perhaps with another number of
workers), lets the clients find out what became of their operations, and checks their history against the certified
value of every key. No client may be told of a violation, and nothing may be left over of processes that were killed.

A seed fixes the schedule and what the clients ask for, but not how processes and messages interleave: the same seed
finds a bug again often, not always.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crash.history import History
from crash.load import KEYS, Bulk, Client, certified_values
from crash.plans import FailpointDirectory, Plan, service_points
from kvstore_client import KV, connect
from support.linearizability import Fate
from support.ports import free_port
from support.server import ProcessEndedError, Server

EPOCH_MS = 60
CONNECTIONS = 3
LINES = 2
"""Of calls at the same time, on each connection."""
SERVED_SECONDS_MAX = 1.0
"""How long the service runs if the failpoint is not come to; then all of it is killed, with the failpoint still armed
for the start."""
DISK_FAILS_SECONDS = 1.5
RECOVERY_SECONDS_MAX = 40.0
"""From the crash to the first answer. The usual is 1 to 2; a machine that does much else needs more."""
LEFTOVER_SECONDS_MAX = 5.0
OFTEN_HIT = {"worker.before_log", "worker.before_answers"}
BULKY = {"pending.before_apply"}
"""Points that only a large checkpoint comes to; and how many of the other rounds have some."""
BULKY_SHARE = 0.2
WORKERS = [1, 1, 2, 2, 4]
_POLL_SECONDS = 0.01


@dataclass
class Summary:
    """Of one run, or of several."""

    crashes: Counter[str] = field(default_factory=Counter)
    """By failpoint."""
    fates: Counter[Fate] = field(default_factory=Counter)
    recovery_seconds: list[float] = field(default_factory=list)
    hits: set[str] = field(default_factory=set)
    """Failpoints that any process came to."""

    def add(self, other: "Summary") -> None:
        self.crashes += other.crashes
        self.fates += other.fates
        self.recovery_seconds += other.recovery_seconds
        self.hits |= other.hits


class Run:
    """A service in a directory of its own."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        monitor: Path,
        on_crash: Callable[[], None] = lambda: None,
        durability: str = "epoch",
    ) -> None:
        """`monitor`: the build with failpoints. `on_crash` is called after every round."""
        self.summary = Summary()
        self._chance = random.Random(seed)
        self._on_crash = on_crash
        points = sorted(service_points())
        self._points = [point for point in points if durability == "wal" or not point.startswith("wal.")]
        self._failpoints = FailpointDirectory(directory / "failpoints")
        self._sockets = directory / "t"
        self._sockets.mkdir()
        environment = self._failpoints.environment(monitor) | {"TMPDIR": str(self._sockets)}
        self._options = ["--epoch-ms", str(EPOCH_MS), "--slots", "512", "--hot-records", "4"]
        self._options += ["--port", str(free_port()), "--durability", durability]
        self._server = Server(directory, environment=environment)
        self._connections: list[KV] = []
        self._history = History(dict.fromkeys(KEYS))
        self._bulk: Bulk

    async def crash(self, times: int) -> Summary:
        """Raises AssertionError, or IntegrityError, with what was found."""
        try:
            await self._start()
            async with self._connect() as self._connections:
                self._bulk = Bulk(self._connections[-1])
                for _ in range(times):
                    plan = self._plan()
                    await self._round(plan, self._crash_and_recover(plan))
                    self._on_crash()
                await self._stop_cleanly()
        finally:
            await asyncio.to_thread(self._server.close)
            self.summary.fates = self._history.fates
            self.summary.hits = self._failpoints.hits
        return self.summary

    async def fail_disk(self, plans: Sequence[Plan]) -> Summary:
        """Let writes fail for a while, one plan after the other. Raises as `crash` does."""
        try:
            await self._start()
            async with self._connect() as self._connections:
                self._bulk = Bulk(self._connections[-1])
                for plan in plans:
                    await self._round(plan, self._fail_and_mend_disk(plan))
                await self._stop_cleanly()
        finally:
            await asyncio.to_thread(self._server.close)
            self.summary.fates = self._history.fates
        return self.summary

    async def _round(self, plan: Plan, disaster: Coroutine[None, None, None]) -> None:
        """Clients run until the disaster is over; then their history is checked."""
        self._failpoints.arm(plan)
        over = asyncio.Event()
        is_bulky = plan.point in BULKY or self._chance.random() < BULKY_SHARE
        try:
            async with asyncio.TaskGroup() as clients:
                for kv in self._connections:
                    for _ in range(LINES):
                        chance = random.Random(self._chance.randbytes(8))
                        clients.create_task(Client(kv, self._history, chance).run(over))
                if is_bulky:
                    clients.create_task(self._bulk.run(over))
                await disaster
                over.set()
            self._history.check(await self._values())
            if is_bulky:
                await self._bulk.check()
        except Exception as error:
            error.add_note(f"after {plan}; {sum(self.summary.crashes.values())} crashes before it")
            if self._server.process is not None:
                error.add_note(f"the server wrote:\n{self._server.process.output}")
            raise

    def _plan(self) -> Plan:
        point = self._chance.choice(self._points)
        hit = self._chance.choice([1, 1, 2, 3, 5, 10])
        if point in OFTEN_HIT:
            hit *= self._chance.randint(1, 10)
        return Plan(point, hit, self._chance.choice(["kill", "kill-all"]))

    async def _crash_and_recover(self, plan: Plan) -> None:
        served = time.monotonic()
        # A file is waited for, so there is no event.
        while not (  # noqa: ASYNC110
            self._failpoints.fired or self._has_ended() or time.monotonic() > served + SERVED_SECONDS_MAX
        ):
            await asyncio.sleep(_POLL_SECONDS)
        crashed = time.monotonic()
        if self._failpoints.fired:
            self.summary.crashes[plan.point] += 1
        else:
            self.summary.crashes["at any moment"] += 1
            await self._kill_all()
        async with asyncio.timeout(RECOVERY_SECONDS_MAX):
            await self._answers_again(plan)
        self.summary.recovery_seconds.append(time.monotonic() - crashed)
        self._failpoints.disarm()
        async with asyncio.timeout(RECOVERY_SECONDS_MAX):  # the plan may have been carried out just before
            await self._answers_again(plan)

    async def _fail_and_mend_disk(self, plan: Plan) -> None:
        await asyncio.sleep(DISK_FAILS_SECONDS)
        if plan.point.startswith("checkpointer."):  # else the monitor has ended, and with it the service
            status = (await asyncio.to_thread(self._server.status)).json()
            assert status["state"] == "degraded", status
        self._failpoints.disarm()
        mended = time.monotonic()
        async with asyncio.timeout(RECOVERY_SECONDS_MAX):
            await self._answers_again(None)
        self.summary.recovery_seconds.append(time.monotonic() - mended)

    async def _answers_again(self, plan: Plan | None) -> None:
        answered = asyncio.create_task(self._values())
        while not answered.done():
            if self._has_ended():
                await self._nothing_left()
                fired_before = self._failpoints.fired
                try:
                    await self._start()
                except ProcessEndedError:
                    # The plan may have been for a step of the start.
                    if plan is None or fired_before or not self._failpoints.fired:
                        raise
                    self.summary.crashes[plan.point] += 1
            await asyncio.wait([answered], timeout=_POLL_SECONDS)
        await answered

    async def _values(self) -> dict[bytes, bytes | None]:
        return dict(zip(KEYS, await certified_values(self._connections[0], KEYS), strict=True))

    # --- the service ---

    def _has_ended(self) -> bool:
        return self._server.process is None or self._server.process.exit_code is not None

    async def _start(self) -> None:
        self._server.options = [*self._options, "--workers", str(self._chance.choice(WORKERS))]
        await asyncio.to_thread(self._server.start)

    async def _kill_all(self) -> None:
        if not self._has_ended():
            await asyncio.to_thread(self._server.kill)
        await self._nothing_left()

    async def _nothing_left(self) -> None:
        """Children of a supervisor that is gone end by themselves."""
        since = time.monotonic()
        while left := self._failpoints.processes():
            assert time.monotonic() < since + LEFTOVER_SECONDS_MAX, f"processes are left over: {left}"
            await asyncio.sleep(_POLL_SECONDS)

    async def _stop_cleanly(self) -> None:
        self._failpoints.disarm()
        await asyncio.to_thread(self._server.stop)
        await self._nothing_left()
        left = [path.name for path in self._sockets.iterdir()]
        assert left == [], "sockets of former starts are left over"
        await self._start()
        values = await self._values()
        self._history.check(values)
        await asyncio.to_thread(self._server.stop)

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator[list[KV]]:
        fingerprint, key = self._server.fingerprint, self._server.admin_key
        async with contextlib.AsyncExitStack() as stack:
            connections = [connect(self._server.address, monitor=fingerprint, key=key) for _ in range(CONNECTIONS)]
            yield [await stack.enter_async_context(connection) for connection in connections]
