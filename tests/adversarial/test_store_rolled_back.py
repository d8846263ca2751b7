"""The store is put back to an older copy, emptied, or given another's sealed state: the monitor does not start."""

import shutil
from pathlib import Path

import pytest
from _harness.client_frames import flipped
from _harness.expect import EXIT_VIOLATION
from _harness.service import Launch, Service, certified

from kvstore.storage import SEALED_KEY


async def _refused(service: Service, name: str) -> None:
    result = await service.start_refused()
    assert result.code == EXIT_VIOLATION, result
    assert name in result.stderr


async def test_one_checkpoint_back(launch: Launch, directory: Path) -> None:
    service = await launch()
    await certified(service, [(b"alice", b"old")])
    await service.stop()
    service.disk.copy_to(directory / "old")
    await service.start()
    await certified(service, [(b"alice", b"new")])
    await service.stop()
    newest = directory / "newest"
    service.disk.copy_to(newest)
    service.disk.put_back(directory / "old")
    await _refused(service, "rollback")
    # It is the store that is wrong, not the monitor: with the right one it starts.
    service.disk.put_back(newest)
    await service.start()
    async with service.client() as kv:
        assert (await kv.get(b"alice", certified=True)).value == b"new"


async def test_one_checkpoint_back_after_a_crash(launch: Launch, directory: Path) -> None:
    service = await launch()
    await certified(service, [(b"alice", b"old")])
    service.server.kill()
    service.disk.copy_to(directory / "old")
    await service.start()
    await certified(service, [(b"alice", b"new")])
    service.server.kill()
    service.disk.put_back(directory / "old")
    await _refused(service, "rollback")


async def test_only_the_sealed_state_is_put_back(launch: Launch) -> None:
    service = await launch()
    await certified(service, [(b"alice", b"old")])
    await service.stop()
    old = service.disk.row(SEALED_KEY)
    await service.start()
    await certified(service, [(b"alice", b"new")])
    await service.stop()
    service.disk.set_row(SEALED_KEY, old)
    await _refused(service, "rollback")


async def test_empty_store(launch: Launch) -> None:
    service = await launch()
    await certified(service, [(b"alice", b"1")])
    await service.stop()
    shutil.rmtree(service.server.store)
    await _refused(service, "rollback")


@pytest.mark.parametrize("place", [0, 24, -1], ids=["nonce", "content", "tag"])
async def test_changed_sealed_state(launch: Launch, place: int) -> None:
    service = await launch()
    await certified(service, [(b"alice", b"1")])
    await service.stop()
    sealed = service.disk.row(SEALED_KEY)
    assert sealed is not None
    service.disk.set_row(SEALED_KEY, flipped(sealed, place))
    await _refused(service, "sealed_state_invalid")


async def test_sealed_state_of_another_store(launch: Launch) -> None:
    service, other = await launch(), await launch()
    for one in (service, other):
        await certified(one, [(b"alice", b"1")])
        await one.stop()
    service.disk.set_row(SEALED_KEY, other.disk.row(SEALED_KEY))
    await _refused(service, "sealed_state_invalid")
