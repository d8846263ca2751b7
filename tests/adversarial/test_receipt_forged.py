"""The host changes what a receipt says, or what its values are. The MAC, and the commitment under it, tell."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from _harness.client_frames import RECEIPT, Receipt, changing, flipped, untouched
from _harness.service import Service
from blake3 import blake3
from kvstore_client import ReceiptError, ValueMismatchError
from support.frames import Frame, FrameProxy


def _other_result(receipt: Receipt) -> Receipt:
    return replace(receipt, results=flipped(receipt.results, -1))


def _earlier_epoch(receipt: Receipt) -> Receipt:
    return replace(receipt, ts=receipt.ts - (1 << 32))


def _later_moment(receipt: Receipt) -> Receipt:
    return replace(receipt, ts=receipt.ts + 1)


def _error(receipt: Receipt) -> Receipt:
    return replace(receipt, error=1, count=0, results=b"")


def _made_up(receipt: Receipt) -> Receipt:
    return replace(receipt, mac=bytes(16))


def _fewer_results(receipt: Receipt) -> Receipt:
    return replace(receipt, count=0, results=b"")


@pytest.mark.parametrize("forge", [_other_result, _earlier_epoch, _later_moment, _error, _made_up, _fewer_results])
async def test_changed_receipt_is_refused(
    shared: Service, wire: FrameProxy, key: bytes, forge: Callable[[Receipt], Receipt]
) -> None:
    async with shared.client(wire) as kv:
        honest = await kv.put(key, b"honest")
        await honest.certified()
        wire.to_down = changing(RECEIPT, lambda frame: forge(Receipt.of(frame)).frame())
        with pytest.raises(ReceiptError) as caught:
            await kv.get(key)
        assert {"request", "receipt"} <= caught.value.evidence.keys()
        wire.to_down = untouched
        with pytest.raises(ReceiptError):
            await kv.get(key)
        await honest.certified()


async def test_bytes_of_a_value_are_changed(shared: Service, wire: FrameProxy, key: bytes) -> None:
    async with shared.client(wire) as kv:
        await kv.put(key, b"a value longer than a commitment holds inline")

        def change(frame: Frame) -> Frame:
            receipt = Receipt.of(frame)
            return replace(receipt, values=flipped(receipt.values, 7)).frame()

        wire.to_down = changing(RECEIPT, change)
        with pytest.raises(ValueMismatchError) as caught:
            await kv.get(key, certified=True)
        assert caught.value.evidence["key"] == key


async def test_values_of_two_results_are_exchanged(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """Two gets of one request: each value belongs to its result."""
    first, second = b"1" * 40, b"2" * 40

    def exchange(frame: Frame) -> Frame:
        receipt = Receipt.of(frame)
        assert receipt.values == b"\x01" + first + b"\x01" + second
        return replace(receipt, values=b"\x01" + second + b"\x01" + first).frame()

    async with shared.client(wire) as kv:
        other = _key_of_the_same_thread(key)
        await kv.put_many({key: first, other: second})
        wire.to_down = changing(RECEIPT, exchange)
        with pytest.raises(ValueMismatchError) as caught:
            await kv.get_many([key, other])
        assert caught.value.evidence["key"] == key


def _key_of_the_same_thread(key: bytes) -> bytes:
    """With two workers, the first bit of the hash says whose a key is."""
    half = blake3(key).digest()[0] >> 7
    candidates = (key + b"/%d" % number for number in range(100))
    return next(candidate for candidate in candidates if blake3(candidate).digest()[0] >> 7 == half)
