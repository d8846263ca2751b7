"""The host gives out certificates that the monitor did not sign for this store, this epoch, this incarnation."""

import pytest
from _harness.client_frames import CERTIFICATE, changing, flipped, recording
from _harness.service import Interpose, Launch, Service
from kvstore_client import CertificateError
from support.frames import Frame, FrameProxy

# Places in a certificate: instance, incarnation, epoch, previous, range root, signature (protocol section 5).
PLACES = [4, 20, 36, 40, 72, 104, -1]


@pytest.mark.parametrize("place", PLACES)
async def test_changed_certificate(shared: Service, wire: FrameProxy, key: bytes, place: int) -> None:
    async with shared.client(wire) as kv:
        before = await kv.put(key, b"1", certified=True)
        wire.to_down = changing(CERTIFICATE, lambda frame: Frame(CERTIFICATE, flipped(frame.body, place)))
        answer = await kv.put(key, b"2")
        with pytest.raises(CertificateError) as caught:
            await answer.certified()
        assert "certificate" in caught.value.evidence
        assert not answer.is_certified
        await before.certified()


async def test_certificate_of_another_epoch_in_its_place(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """Old certificates certify nothing new, however often they come."""
    seen: list[Frame] = []

    async with shared.client(wire) as kv:
        wire.to_down = recording(CERTIFICATE, seen)
        await kv.put(key, b"1", certified=True)
        wire.to_down = changing(CERTIFICATE, lambda _: seen[0])
        answer = await kv.put(key, b"2")
        with pytest.raises(TimeoutError):
            await answer.certified(timeout=0.5)
        assert not answer.is_certified


async def test_certificate_of_another_store(
    shared: Service, wire: FrameProxy, key: bytes, launch: Launch, interpose: Interpose
) -> None:
    other = await launch()
    foreign: list[Frame] = []
    spy = await interpose(other)
    spy.to_down = recording(CERTIFICATE, foreign)
    async with other.client(spy) as kv:
        await kv.put(key, b"1", certified=True)
    async with shared.client(wire) as kv:
        wire.to_down = changing(CERTIFICATE, lambda _: foreign[0])
        answer = await kv.put(key, b"2")
        with pytest.raises(CertificateError):
            await answer.certified()
