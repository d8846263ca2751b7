"""What calls return: answers with their receipt, provisional until its epoch is certified.

All answers of one epoch share one `EpochOutcome`, so what waits for a certificate is a few objects per epoch, however
many operations ran. An outcome is settled once, by the session; answers may be kept as long as one likes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from kvstore_client._errors import CertificateTimeoutError, KVStoreError
from kvstore_client._messages import FormerSession


class EpochOutcome:
    """Whether the operations of one epoch, of one incarnation, hold: provisional, then certified or failed.

    `epoch_first`: where it is only known that they ran by `epoch` (after a resume), the first epoch that they can have
    run in. `origin`: the session that they were called in.
    """

    __slots__ = (
        "_waiters",
        "answered",
        "epoch",
        "epoch_first",
        "error",
        "incarnation",
        "origin",
        "replay",
        "settled",
        "timeout_seconds",
    )

    def __init__(
        self,
        incarnation: bytes,
        epoch: int,
        epoch_first: int,
        timeout_seconds: float,
        origin: FormerSession | None = None,
    ) -> None:
        self.incarnation = incarnation
        self.epoch = epoch
        self.epoch_first = epoch_first
        self.timeout_seconds = timeout_seconds
        self.origin = origin
        self.answered: dict[int, int] = {}
        """The last sequence of each thread that an answer has come from."""
        self.replay: Replay | None = None
        """What became of it in a later incarnation."""
        self.settled = False
        self.error: KVStoreError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def settle(self, error: KVStoreError | None = None, replay: Replay | None = None) -> None:
        """Certified, or, with `error`, not; or, with `replay`, as that says. Only the first call counts."""
        if self.settled:
            return
        self.settled, self.error, self.replay = True, error, replay
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the timeout's error names the epoch
        """Return when settled. Raises `error`, or CertificateTimeoutError after `timeout` seconds (default: the
        client's)."""
        if not self.settled:
            seconds = self.timeout_seconds if timeout is None else timeout
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                async with asyncio.timeout(seconds):
                    await waiter
            except TimeoutError:
                raise CertificateTimeoutError(self.epoch, seconds) from None
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        if self.error is not None:
            raise self.error


@dataclass(frozen=True, slots=True)
class Replay:
    """The server restarted before the epoch was certified, and replayed the session's requests up to `last`, per
    thread: their outcome is that of the epoch that they ran in `again`. The others are lost, with `error`."""

    last: list[int]
    again: EpochOutcome
    error: KVStoreError


NOT_REPLAYED = 1 << 64
"""Sequence of what no write-ahead log holds: changes of the authorized clients."""


class Receipt:
    """A verified receipt: at or before timestamp `ts` (epoch << 32 | counter) the operation ran.

    It is of request `sequence` of its session on `thread`; what became of the request is known by `outcome`.
    """

    __slots__ = ("_outcome", "_sequence", "_thread", "ts")

    def __init__(self, ts: int, outcome: EpochOutcome, thread: int = 0, sequence: int = 0) -> None:
        self.ts = ts
        self._outcome = outcome
        self._thread = thread
        self._sequence = sequence
        if sequence > outcome.answered.get(thread, 0):
            outcome.answered[thread] = sequence

    def __repr__(self) -> str:
        settled, error = self.state
        state = "provisional" if not settled else "lost" if error else "certified"
        return f"Receipt(ts={self.ts >> 32}:{self.ts & 0xFFFFFFFF}, {state})"

    @property
    def incarnation(self) -> bytes:
        """Of the monitor that gave it."""
        return self._outcome.incarnation

    @property
    def state(self) -> tuple[bool, KVStoreError | None]:
        """Whether it is settled if the operation holds, and why it does not."""
        outcome = self._outcome
        while outcome.replay is not None:
            if self._sequence > outcome.replay.last[self._thread]:
                return True, outcome.replay.error
            outcome = outcome.replay.again
        return outcome.settled, outcome.error

    async def certified(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the timeout's error names the epoch
        """As `Answer.certified`."""
        outcome = self._outcome
        await outcome.wait(timeout)
        while outcome.replay is not None:
            if self._sequence > outcome.replay.last[self._thread]:
                raise outcome.replay.error
            outcome = outcome.replay.again
            await outcome.wait(timeout)


@dataclass(frozen=True, slots=True)
class Answer:
    """Common to all answers."""

    receipt: Receipt

    @property
    def ts(self) -> int:
        """The verifier's clock when the request that held the operation had run."""
        return self.receipt.ts

    @property
    def epoch(self) -> int:
        """The epoch whose certificate certifies this answer, unless the server restarts before and replays it."""
        return self.receipt.ts >> 32

    @property
    def is_certified(self) -> bool:
        return self.receipt.state == (True, None)

    def __bool__(self) -> bool:
        """Raises TypeError, since `if await kv.insert(...)` would always hold."""
        raise TypeError(f"{type(self).__name__} is neither true nor false: look at its fields, or at is_certified")

    async def certified(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the timeout's error names the epoch
        """Wait until the monitor has certified this answer: from then on it is linearizable and durable.

        Raises CertificateTimeoutError after `timeout` seconds (default: the client's `certificate_timeout`),
        ProvisionalLostError if the server restarted first (OutcomeUnknownError if it is unknown whether the operation
        was certified by then), ConnectionLostError if the client was closed first, or the IntegrityError that was
        found.
        """
        await self.receipt.certified(timeout)


@dataclass(frozen=True, slots=True)
class Value(Answer):
    """Of `get`. `value`: None if there is none."""

    value: bytes | None


@dataclass(frozen=True, slots=True)
class Written(Answer):
    """Of `put`, `delete`, and changes of the authorized clients, which always apply."""


@dataclass(frozen=True, slots=True)
class Attempt(Answer):
    """Of `insert` and `compare_and_set`. `applied`: whether it took effect.

    If `compare_and_set` did not, `value` is the value that is there instead; `value_left_out` says that it did not
    fit into the answer, and has to be fetched by `get`.
    """

    applied: bool
    value: bytes | None = None
    value_left_out: bool = False


@dataclass(frozen=True, slots=True)
class Number(Answer):
    """Of `increment`. `value`: the new number."""

    value: int
