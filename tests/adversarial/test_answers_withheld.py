"""The host does not answer, or not all: nobody can make it. The client says so in time, and says about what."""

import asyncio

import pytest
from _harness.client_frames import CERTIFICATE, ERROR, RECEIPT, REQUEST, RESUMED, dropping, untouched
from _harness.service import Service
from kvstore_client import CertificateTimeoutError, ConnectionLostError, OutcomeUnknownError, UnavailableError
from support.frames import Frame, FrameProxy, Link


async def test_certificate_is_withheld(shared: Service, wire: FrameProxy, key: bytes) -> None:
    async with shared.client(wire) as kv:
        wire.to_down = dropping(CERTIFICATE)
        answer = await kv.put(key, b"1")
        with pytest.raises(CertificateTimeoutError, match=f"epoch {answer.epoch} ") as caught:
            await answer.certified(timeout=0.5)
        assert caught.value.epoch == answer.epoch
        assert not answer.is_certified
        # It comes late, with the certificates after it: then the answer is final after all.
        wire.to_down = untouched
        await kv.put(key, b"2", certified=True)
        await answer.certified()


async def test_every_request_is_dropped(shared: Service, wire: FrameProxy, key: bytes) -> None:
    async with shared.client(wire, timeout=0.5) as kv:
        wire.to_up = dropping(REQUEST)
        with pytest.raises(ConnectionLostError):
            await kv.put(key, b"1")


async def test_every_receipt_is_dropped(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """What a read found is lost; that a write ran is learned from the monitor's answer to the resume."""
    async with shared.client(wire, timeout=0.5) as kv:
        wire.to_down = dropping(RECEIPT)
        await kv.put(key, b"1", certified=True)
        with pytest.raises(ConnectionLostError):
            await kv.get(key)
    async with shared.client() as honest:
        assert (await honest.get(key, certified=True)).value == b"1"


async def test_answers_are_said_to_be_impossible_now(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """The host says so of a write that ran: the client claims nothing of it, and only of what it never sent."""

    def refuse(_: Link, frame: Frame) -> list[Frame]:
        return [Frame(ERROR, b"\x0a\0no disk")] if frame.kind in (RECEIPT, RESUMED) else [frame]

    async with shared.client(wire) as kv:
        wire.to_down = refuse
        async with asyncio.timeout(10):
            with pytest.raises(OutcomeUnknownError, match="no disk"):
                await kv.increment(key)
            with pytest.raises(UnavailableError, match="no disk"):
                await kv.increment(key)
        wire.to_down = untouched
        assert (await kv.increment(key, certified=True)).value == 2


async def test_answers_get_through_after_a_loss(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """One receipt is lost with its connection: the operation ran once, and the client learns that from the monitor."""
    lost = False

    def lose_one(link: Link, frame: Frame) -> list[Frame]:
        nonlocal lost
        if frame.kind != RECEIPT or lost:
            return [frame]
        lost = True
        link.cut()
        return []

    async with shared.client(wire) as kv:
        wire.to_down = lose_one
        await kv.put(key, b"1", certified=True)
        assert lost
        assert (await kv.get(key, certified=True)).value == b"1"
