"""The host delivers true receipts for other requests than they answer: exchanged, repeated, or of another client."""

import asyncio

import pytest
from _harness.client_frames import RECEIPT, Receipt
from _harness.service import Service
from kvstore_client import ReceiptError
from support.frames import Frame, FrameProxy, Link


async def test_receipts_of_two_requests_are_exchanged(shared: Service, wire: FrameProxy, key: bytes) -> None:
    held: list[Frame] = []

    def exchange(_: Link, frame: Frame) -> list[Frame]:
        if frame.kind != RECEIPT:
            return [frame]
        held.append(frame)
        return [held[1], held[0]] if len(held) == 2 else []

    async with shared.client(wire) as kv:
        wire.to_down = exchange
        first = asyncio.create_task(kv.put(key, b"1"))
        while not held:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(kv.get(key))
        for call in (first, second):
            with pytest.raises(ReceiptError):
                await call


async def test_only_the_values_are_exchanged(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """The receipts come in order, each with the other's MAC and results."""
    held: list[Frame] = []

    def exchange(_: Link, frame: Frame) -> list[Frame]:
        if frame.kind != RECEIPT:
            return [frame]
        held.append(frame)
        if len(held) < 2:
            return []
        one, two = map(Receipt.of, held)
        return [one.but(results=two.results, mac=two.mac).frame(), two.but(results=one.results, mac=one.mac).frame()]

    async with shared.client(wire) as kv:
        await kv.put(key, b"1")
        wire.to_down = exchange
        first = asyncio.create_task(kv.increment(key + b"/counter", 1))
        while not held:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(kv.increment(key + b"/counter", 1))
        for call in (first, second):
            with pytest.raises(ReceiptError):
                await call


async def test_receipt_comes_twice(shared: Service, wire: FrameProxy, key: bytes) -> None:
    async with shared.client(wire) as kv:
        wire.to_down = lambda _, frame: [frame, frame] if frame.kind == RECEIPT else [frame]
        answer = await kv.put(key, b"1")
        with pytest.raises(ReceiptError) as caught:
            await answer.certified()
            await kv.get(key)
        assert "receipt" in caught.value.evidence


async def test_receipt_of_another_client(shared: Service, wire: FrameProxy, key: bytes) -> None:
    stolen: list[Frame] = []

    def steal(_: Link, frame: Frame) -> list[Frame]:
        if frame.kind == RECEIPT:
            stolen.append(frame)
        return [frame]

    wire.to_down = steal
    async with shared.client(wire) as other:
        await other.put(key, b"1")
    async with shared.client(wire) as kv:
        wire.to_down = lambda _, frame: [stolen[0]] if frame.kind == RECEIPT else [frame]
        with pytest.raises(ReceiptError):
            await kv.put(key, b"1")
