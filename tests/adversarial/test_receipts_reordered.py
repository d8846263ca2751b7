"""The host delivers true receipts for other requests than they answer: exchanged, repeated, or of another client."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from _harness.client_frames import RECEIPT, Receipt, changing, recording
from _harness.expect import learned
from _harness.service import Service
from kvstore_client import ReceiptError
from support.frames import Frame, FrameProxy, Link


class _BothHeld:
    """A hook that holds the first receipt until the second is there, and lets out what `exchange` makes of the two."""

    def __init__(self, exchange: Callable[[Frame, Frame], list[Frame]]) -> None:
        self.first_held = asyncio.Event()
        self._exchange = exchange
        self._held: list[Frame] = []

    def __call__(self, _: Link, frame: Frame) -> list[Frame]:
        if frame.kind != RECEIPT:
            return [frame]
        self._held.append(frame)
        self.first_held.set()
        return self._exchange(*self._held) if len(self._held) == 2 else []


async def _two_increments(shared: Service, wire: FrameProxy, key: bytes, hook: _BothHeld) -> None:
    async with shared.client(wire) as kv:
        wire.to_down = hook
        first = asyncio.create_task(kv.increment(key, 1))
        await hook.first_held.wait()
        second = asyncio.create_task(kv.increment(key, 1))
        for call in (first, second):
            with pytest.raises(ReceiptError):
                await call


async def test_receipts_of_two_requests_are_exchanged(shared: Service, wire: FrameProxy, key: bytes) -> None:
    await _two_increments(shared, wire, key, _BothHeld(lambda one, two: [two, one]))


async def test_only_the_results_are_exchanged(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """The receipts come in order, each with the other's results and MAC."""

    def exchange(first: Frame, second: Frame) -> list[Frame]:
        one, two = Receipt.of(first), Receipt.of(second)
        return [
            replace(one, results=two.results, mac=two.mac).frame(),
            replace(two, results=one.results, mac=one.mac).frame(),
        ]

    await _two_increments(shared, wire, key, _BothHeld(exchange))


async def test_receipt_comes_twice(shared: Service, wire: FrameProxy, key: bytes) -> None:
    async with shared.client(wire) as kv:
        wire.to_down = lambda _, frame: [frame, frame] if frame.kind == RECEIPT else [frame]
        await kv.put(key, b"1")
        error = await learned(kv)
        assert isinstance(error, ReceiptError)
        assert "receipt" in error.evidence


async def test_receipt_of_another_client(shared: Service, wire: FrameProxy, key: bytes) -> None:
    stolen: list[Frame] = []
    wire.to_down = recording(RECEIPT, stolen)
    async with shared.client(wire) as other:
        await other.put(key, b"1")
    async with shared.client(wire) as kv:
        wire.to_down = changing(RECEIPT, lambda _: stolen[0])
        with pytest.raises(ReceiptError):
            await kv.put(key, b"1")
