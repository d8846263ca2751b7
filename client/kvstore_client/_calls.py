"""Calls that wait in an event loop: for one operation, for many, or for an admin request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from kvstore_client._errors import ConnectionLostError, KVStoreError
from kvstore_client._messages import AdminAnswer, AdminOp
from kvstore_client._receipts import Answer, Receipt

T = TypeVar("T")


def settled_by(future: asyncio.Future[T]) -> Callable[[T | None, KVStoreError | None], None]:
    """The callback that gives a future its result, or the error in place of one. Only the first call counts."""

    def settle(result: T | None, error: KVStoreError | None) -> None:
        if future.done():
            return
        if result is None:
            future.set_exception(error or ConnectionLostError("no answer"))
        else:
            future.set_result(result)

    return settle


class SingleCall:
    """Waits for one operation."""

    __slots__ = ("future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[Answer] = loop.create_future()

    @property
    def settled(self) -> bool:
        return self.future.done()

    def deliver(self, index: int, answer: Answer) -> None:
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, index: int, error: KVStoreError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class ManyCall:
    """Waits for `count` operations, and gives their answers in order, or the first error when all are settled."""

    __slots__ = ("_answers", "_error", "_remaining", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self.future: asyncio.Future[list[Answer]] = loop.create_future()
        self._answers: list[Answer | None] = [None] * count
        self._remaining = count
        self._error: KVStoreError | None = None
        if count == 0:
            self.future.set_result([])

    @property
    def settled(self) -> bool:
        return self.future.done()

    def deliver(self, index: int, answer: Answer) -> None:
        self._answers[index] = answer
        self._remaining -= 1
        if self._remaining == 0:
            self._finish()

    def fail(self, index: int, error: KVStoreError) -> None:
        self._error = self._error or error
        self._remaining -= 1
        if self._remaining == 0:
            self._finish()

    def _finish(self) -> None:
        if self.future.done():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result([answer for answer in self._answers if answer is not None])


class AdminCall:
    """Waits for the monitor's answer to one admin request; of a change there is a receipt, too."""

    __slots__ = ("arguments", "future", "op")

    def __init__(self, loop: asyncio.AbstractEventLoop, op: AdminOp, arguments: bytes) -> None:
        self.op = op
        self.arguments = arguments
        self.future: asyncio.Future[tuple[AdminAnswer, Receipt | None]] = loop.create_future()

    @property
    def settled(self) -> bool:
        return self.future.done()

    def deliver(self, answer: AdminAnswer, receipt: Receipt | None) -> None:
        if not self.future.done():
            self.future.set_result((answer, receipt))

    def fail(self, error: KVStoreError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
