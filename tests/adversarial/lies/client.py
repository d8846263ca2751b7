"""The SDK's client without its sockets and clock, and what it was told of every operation."""

import random
from collections.abc import Iterator
from typing import Any

from crash.history import History
from kvstore_client import (
    Answer,
    IntegrityError,
    KVStoreError,
    NotANumberError,
    NotAppliedError,
    NumberOverflowError,
    OperationError,
    ProvisionalLostError,
)
from kvstore_client import _operations as operations
from kvstore_client._receipts import Receipt
from kvstore_client._session import Session
from lies.host import Origin, split
from support.frames import Frame
from support.linearizability import NOT_A_NUMBER, OVERFLOW, Fate, Kind, Operation

_RESULTS_OF_ERRORS: dict[type[OperationError], str] = {
    NotANumberError: NOT_A_NUMBER,
    NumberOverflowError: OVERFLOW,
}


class NotedCall:
    """Who waits for one operation."""

    def __init__(self, history: History, operation: Operation) -> None:
        self.settled = False
        self.operation = operation
        self.receipt: Receipt | None = None
        self._history = history

    def deliver(self, index: int, answer: Answer) -> None:
        if not self.settled:
            self.settled = True
            self.receipt = answer.receipt
            self._history.answer(self.operation, answer)

    def fail(self, index: int, error: KVStoreError) -> None:
        if self.settled:
            return
        self.settled = True
        if isinstance(error, NotAppliedError | ProvisionalLostError):
            self._history.settle(self.operation, Fate.GONE)
        elif isinstance(error, OperationError) and error.receipt is not None:
            self.receipt = error.receipt
            self._history.result(self.operation, _RESULTS_OF_ERRORS[type(error)])

    def note_fate(self) -> None:
        """What the client would be told now by `certified()`."""
        if self.receipt is not None:
            settled, error = self.receipt.state
            if settled and error is None:
                self._history.settle(self.operation, Fate.CERTIFIED)
            elif isinstance(error, ProvisionalLostError):
                self._history.settle(self.operation, Fate.GONE)


class Client:
    """`frames()` takes what it sends; `receive` gives it what arrives. It reconnects when it is told to."""

    def __init__(self, number: int, identity: bytes, history: History, chance: random.Random) -> None:
        self.number = number
        self.connection = 0
        self.calls: list[NotedCall] = []
        self._history = history
        self._session = Session(identity, None, None, chance.randbytes, 1.0)

    @property
    def origin(self) -> Origin:
        return Origin(self.number, self.connection)

    @property
    def failure(self) -> KVStoreError | None:
        return self._session.failure

    @property
    def accuses(self) -> bool:
        return isinstance(self._session.failure, IntegrityError)

    @property
    def useless(self) -> bool:
        """Whether it wants another connection."""
        return self._session.dropped is not None

    @property
    def waits(self) -> bool:
        return self._session.busy

    def connected(self) -> None:
        """A new connection, in place of a former one."""
        if self.connection:
            self._session.connection_lost()
        self.connection += 1
        if self._session.failure is None:
            self._session.connection_made()

    def disconnected(self) -> None:
        self._session.connection_lost()

    def frames(self) -> Iterator[Frame]:
        self._session.flush()
        for data in self._session.take_output():
            yield from split(data)

    def receive(self, frame: Frame) -> None:
        self._session.receive(frame.kind, frame.body)

    def call(self, key: bytes, kind: Kind, **arguments: Any) -> None:
        """Queue an operation. Before its first session the SDK takes none."""
        if self._session.role is None:
            return
        call = NotedCall(self._history, self._history.call(key, kind, client=self.number, **arguments))
        self.calls.append(call)
        self._session.submit(_encoded(call))

    def give_up(self) -> None:
        """As the SDK does when its time is over: what still waits fails, and may have taken effect."""
        for line in self._session.busy_lines().values():
            line.abandon(KVStoreError("no answer"))
        for call in self.calls:
            call.note_fate()


def _encoded(call: NotedCall) -> operations.Operation:
    asked = call.operation
    match asked.kind:
        case Kind.GET:
            return operations.get(asked.key, call)
        case Kind.DELETE:
            return operations.delete(asked.key, call)
        case Kind.PUT:
            return operations.put(asked.key, asked.value or b"", call)
        case Kind.INSERT:
            return operations.insert(asked.key, asked.value or b"", call)
        case Kind.COMPARE_AND_SET:
            return operations.compare_and_set(asked.key, asked.expected, asked.value, call)
        case Kind.INCREMENT:
            return operations.increment(asked.key, asked.delta, call)
