"""The rounds of one engine: read rows, send the verifier log, absorb the outputs; and, between two rounds, the cut.

All frames that arrive while a round is in flight form the next one. An engine that cannot go on ends the rounds for
good: `EngineStoppedError` says why.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from kvstore import failpoints
from kvstore._prover import RANGE_ROWS_MAX, PlainEngine, Prover, ProverError
from kvstore.storage import StoreReader

Engine = Prover | PlainEngine
Exchange = Callable[[bytes], Awaitable[bytes]]

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
        exchange: Exchange,
        deliver: Callable[[list[tuple[int, bytes]]], None],
        after_round: Callable[[], None],
        handed_over: Callable[[int], None],
    ) -> None:
        self._engine = engine
        self._store = store
        self._exchange = exchange
        self._deliver = deliver
        self._after_round = after_round
        self._handed_over = handed_over
        self._work = asyncio.Event()
        self._cut: bool | None = None
        self.cutting = False

    def wake(self) -> None:
        """There may be something to do."""
        self._work.set()

    def cut(self, *, all_to_merkle: bool) -> None:
        """Close the epoch at the end of the round in flight; `handed_over(epoch)` follows."""
        self._cut = all_to_merkle
        self.cutting = True
        self._work.set()

    async def start(self) -> None:
        """Run what the engine has to do before it takes requests. Raises EngineStoppedError."""
        while self._engine.busy:
            await self._round()

    async def run(self) -> None:
        """Run for ever. Raises EngineStoppedError, or what `exchange` raises."""
        while True:
            await self._work.wait()
            self._work.clear()
            self._start_cut()
            while self._engine.busy:
                await self._round()
                self._start_cut()

    def _start_cut(self) -> None:
        if self._cut is not None:
            self._engine.start_cut(all_to_merkle=self._cut)
            self._cut = None

    async def _round(self) -> None:
        engine = self._engine
        try:
            log = self._write()
            while engine.draining:
                # Both work at once: the monitor checks this piece while the next one is written.
                checked = self._exchange(log)
                log = self._write()
                if outputs := await checked:
                    engine.absorb(outputs)
            outputs = await self._exchange(log) if log else b""
            answers = engine.absorb(outputs)
            epoch = engine.handed_over()
        except ProverError as error:
            text, store_key = error.args if len(error.args) == 2 else (str(error), None)
            raise EngineStoppedError(text, store_key) from error
        failpoints.hit("worker.before_answers")
        self._deliver(answers)
        if epoch is not None:
            self.cutting = False
            self._handed_over(epoch)
        self._after_round()
        if not log:
            # Nothing was waited for above: let the sockets have their turn.
            await asyncio.sleep(0 if answers or epoch is not None else _FRUITLESS_ROUND_SECONDS)

    def _write(self) -> bytes:
        """The next piece of the verifier log, for which rows are read."""
        engine = self._engine
        while any(reads := engine.reads()):
            keys, ranges = reads
            found = self._store.read_ranges(ranges, RANGE_ROWS_MAX, _RANGE_BYTES_AT_ONCE)
            engine.supply(self._store.read(keys), found)
        log = engine.log()
        failpoints.hit("worker.in_drain" if self.cutting else "worker.before_log")
        return log
