"""The whole machine, the monitor's own directory included, is copied: two histories, or an older one.

No check of the monitor can find this, since it is the monitor that was put back. What remains is what its clients
remember: two certificates of one epoch, or an epoch that they have seen certified and that is gone.
"""

import asyncio
import shutil
from pathlib import Path

import pytest
from _harness.client_frames import CERTIFICATE, recording
from _harness.expect import learned
from _harness.service import Interpose, Launch, Service
from kvstore_client import ForkError, RollbackError
from support.frames import Frame


async def _two_copies(launch: Launch) -> tuple[Service, Service]:
    """Two running services of one monitor and one store, which part after a common beginning."""
    original = await launch()
    async with original.client() as kv:
        await kv.put(b"common", b"1", certified=True)
    await original.stop()
    copy = await launch(start=False)
    shutil.copytree(original.server.data, copy.server.data, dirs_exist_ok=True)
    await original.start()
    await copy.start()
    assert original.server.fingerprint == copy.server.fingerprint
    return original, copy


async def test_two_certificates_of_one_epoch(launch: Launch, interpose: Interpose) -> None:
    original, copy = await _two_copies(launch)
    spy = await interpose(copy)
    others: list[Frame] = []
    spy.to_down = recording(CERTIFICATE, others)
    async with copy.client(spy) as kv:
        other = await kv.put(b"k", b"other", certified=True)
    wire = await interpose(original)
    async with original.client(wire) as kv:
        answer = await kv.put(b"k", b"ours", certified=True)
        assert answer.epoch == other.epoch
        wire.links[-1].send_down(others[-1])
        error = await learned(kv)
        assert isinstance(error, ForkError)
        assert {"certificate", "other_certificate"} <= error.evidence.keys()
        await answer.certified()


async def test_client_is_moved_to_the_other_history(launch: Launch, directory: Path) -> None:
    original, copy = await _two_copies(launch)
    state = directory / "client-state"
    async with original.client(state=state) as kv:
        for _ in range(3):
            await kv.put(b"k", b"ours", certified=True)
    async with copy.client() as kv:
        for _ in range(6):
            await kv.put(b"k", b"other", certified=True)
    with pytest.raises(ForkError) as caught:
        async with copy.client(state=state) as kv:
            await kv.get(b"k", certified=True)
    assert caught.value.evidence


async def test_everything_is_put_back(launch: Launch, directory: Path) -> None:
    """Store and monitor together: the monitor starts, and the client remembers better."""
    service = await launch()
    state, backup = directory / "client-state", directory / "backup"
    async with service.client(state=state) as kv:
        await kv.put(b"k", b"1", certified=True)
    await service.stop()
    shutil.copytree(service.server.data, backup)
    await service.start()
    async with service.client(state=state) as kv:
        await kv.put(b"k", b"2", certified=True)
    await service.stop()
    shutil.rmtree(service.server.data)
    await asyncio.to_thread(shutil.copytree, backup, service.server.data)
    await service.start()
    with pytest.raises(RollbackError) as caught:
        async with service.client(state=state) as kv:
            await kv.get(b"k", certified=True)
    assert {"certificate", "server_hello"} <= caught.value.evidence.keys()
