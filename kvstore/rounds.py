"""The rounds of one engine: read rows, send the verifier log, absorb the outputs; and, between two rounds, the cut.

While the monitor checks one log, the next is written and sent, if it is long enough for its message (as by Nagle's
algorithm, RFC 896): else what arrives meanwhile waits, and goes together. An engine that cannot go on ends the rounds
for good: `EngineStoppedError` says why.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from kvstore import failpoints
from kvstore._prover import RANGE_ROWS_MAX, PlainEngine, Prover, ProverError
from kvstore.monitor_link import LogLink
from kvstore.storage import StoreReader

Engine = Prover | PlainEngine

_LOGS_IN_FLIGHT_MAX: Final = 2
"""One that the monitor checks, and the next: it never waits for a log that could have been written."""

# An engine that is busy but has nothing to say waits for what another process does; asking again sooner helps no one.
_FRUITLESS_ROUND_SECONDS: Final = 0.001

_RANGE_BYTES_AT_ONCE: Final = 16 << 20
"""Of ranges of rows, before the engine is asked whether it takes more: one may ask for thousands of them."""


class EngineStoppedError(Exception):
    """The engine cannot prove any more. `store_key`: the row that it lacks, if that is why."""

    def __init__(self, text: str, store_key: bytes | None) -> None:
        super().__init__(text)
        self.store_key = store_key


class Rounds:
    """Drives an engine. After every round `deliver(answers)` gets its answers, then `after_round()` is called."""

    def __init__(
        self,
        engine: Engine,
        store: StoreReader,
        monitor: LogLink,
        deliver: Callable[[list[tuple[int, bytes]]], None],
        after_round: Callable[[], None],
        handed_over: Callable[[int], None],
    ) -> None:
        self._engine = engine
        self._store = store
        self._monitor = monitor
        self._deliver = deliver
        self._after_round = after_round
        self._handed_over = handed_over
        self._news = asyncio.Event()
        monitor.on_news = self._news.set
        self._cut: bool | None = None
        self.cutting = False

    def wake(self) -> None:
        """There may be something to do. Mostly it has to wait for more, or for the monitor: then nothing is woken."""
        if self._may_write():
            self._news.set()

    def cut(self, *, all_to_merkle: bool) -> None:
        """Close the epoch when what is admitted has run; `handed_over(epoch)` follows."""
        self._cut = all_to_merkle
        self.cutting = True
        self._news.set()

    async def run(self) -> None:
        """Run for ever. Raises EngineStoppedError or MonitorLostError."""
        while True:
            await self.finish()
            await self._news.wait()

    async def finish(self) -> None:
        """Run until there is nothing to do. Raises EngineStoppedError or MonitorLostError."""
        while True:
            self._news.clear()
            if self._cut is not None:
                self._engine.start_cut(all_to_merkle=self._cut)
                self._cut = None
            try:
                if (outputs := self._monitor.receive()) is not None:
                    self._absorb(outputs)
                elif self._may_write():
                    await self._write()
                elif self._monitor.in_flight:
                    await self._news.wait()
                else:
                    return
            except ProverError as error:
                text, store_key = error.args if len(error.args) == 2 else (str(error), None)
                raise EngineStoppedError(text, store_key) from error

    def _may_write(self) -> bool:
        in_flight = self._monitor.in_flight
        return in_flight < _LOGS_IN_FLIGHT_MAX and (self._engine.full if in_flight else self._engine.busy)

    async def _write(self) -> None:
        """The next log, for which rows are read."""
        engine = self._engine
        while any(reads := engine.reads()):
            keys, ranges = reads
            found = self._store.read_ranges(ranges, RANGE_ROWS_MAX, _RANGE_BYTES_AT_ONCE)
            engine.supply(self._store.read(keys), found)
        log = engine.log()
        failpoints.hit("worker.in_cut" if self.cutting else "worker.before_log")
        if log:
            self._monitor.send(log)
        elif not self._monitor.in_flight:
            # Nothing is waited for: let the sockets have their turn.
            await asyncio.sleep(0 if self._absorb(b"") else _FRUITLESS_ROUND_SECONDS)

    def _absorb(self, outputs: bytes) -> bool:
        """Returns whether anything came of them."""
        answers = self._engine.absorb(outputs)
        epoch = self._engine.handed_over()
        failpoints.hit("worker.before_answers")
        self._deliver(answers)
        if epoch is not None:
            self.cutting = False
            self._handed_over(epoch)
        self._after_round()
        return bool(answers) or epoch is not None
