"""The service restarts, by accident or on purpose: what the former incarnation said counts for nothing any more."""

import asyncio

import pytest
from _harness.client_frames import CERTIFICATE, RECEIPT, changing, recording
from _harness.service import Interpose, Launch, Service
from kvstore_client import CertificateTimeoutError, ConnectionLostError, ProvisionalLostError, ReceiptError
from support.frames import Frame, FrameProxy

_LONG_EPOCH_MS = 60_000


async def _restarted(service: Service, proxy: FrameProxy) -> None:
    await asyncio.to_thread(service.server.kill)
    await service.start()
    proxy.upstream = service.address


async def test_uncertified_answers_are_lost_by_a_crash(launch: Launch, key: bytes, interpose: Interpose) -> None:
    """The epoch is run again, and certified, under its old number: not for the answers that were lost."""
    service = await launch(epoch_ms=_LONG_EPOCH_MS)
    proxy = await interpose(service)
    async with service.client(proxy) as kv:
        lost = await kv.put(key, b"lost")
        service.server.options[3] = "100"
        await _restarted(service, proxy)
        with pytest.raises(ProvisionalLostError) as caught:
            await lost.certified()
        assert caught.value.epoch == lost.epoch
        again = await kv.put(key, b"again", certified=True)
        assert again.epoch == lost.epoch
        assert not lost.is_certified
        with pytest.raises(ProvisionalLostError):
            await lost.certified()


async def test_old_receipt_is_delivered_again(launch: Launch, key: bytes, interpose: Interpose) -> None:
    service = await launch()
    proxy = await interpose(service)
    old: list[Frame] = []
    proxy.to_down = recording(RECEIPT, old)
    async with service.client(proxy) as kv:
        await kv.put(key, b"1", certified=True)
        await _restarted(service, proxy)
        proxy.to_down = changing(RECEIPT, lambda _: old[0])
        with pytest.raises(ReceiptError):
            await kv.put(key, b"2")


async def test_restart_is_hidden_from_a_waiting_client(launch: Launch, key: bytes, interpose: Interpose) -> None:
    """The host passes only the new incarnation's certificates on the old connection: they do not certify.

    Whether the new one has replayed the answer only its monitor can say, and the host lets no one ask it.
    """
    service = await launch(epoch_ms=_LONG_EPOCH_MS)
    held = await interpose(service)
    async with service.client(held, timeout=1) as kv:
        lost = await kv.put(key, b"lost")
        link = held.links[-1]
        held.keeps_down = True
        service.server.options[3] = "100"
        await asyncio.to_thread(service.server.kill)
        await service.start()
        fresh = await interpose(service)
        certificates: list[Frame] = []
        fresh.to_down = recording(CERTIFICATE, certificates)
        async with service.client(fresh) as other:
            await other.put(key, b"other", certified=True)
        link.send_down(certificates[-1])
        with pytest.raises((CertificateTimeoutError, ConnectionLostError)):
            await lost.certified(timeout=2)
        assert not lost.is_certified
