"""A row of the store is gone or garbled: nothing can be proved without it; it is the host that says so."""

import asyncio
import os
import signal
import subprocess

import pytest
from _harness.expect import EXIT_VIOLATION, attempted, reported
from _harness.service import Launch, Service, certified
from kvstore_client import RefusedError, ViolationError

from kvstore._prover import store_key_of


async def _without_its_row(launch: Launch, row: bytes | None) -> Service:
    service = await launch()
    await certified(service, [(b"alice", b"1"), (b"bob", b"1")])
    await service.stop()
    service.disk.set_row(store_key_of(b"alice"), row)
    await service.start()
    return service


@pytest.mark.parametrize("row", [None, b"\xff"], ids=["gone", "garbled"])
async def test_record_without_its_row(launch: Launch, row: bytes | None) -> None:
    service = await _without_its_row(launch, row)
    async with service.client() as kv:
        before = await kv.put(b"bob", b"2", certified=True)
        with pytest.raises(RefusedError, match="missing_row") as refused:
            await kv.get(b"alice")
        assert not isinstance(refused.value, ViolationError)
        await before.certified()
    violation = (await service.status()).json()["violation"]
    assert violation["key"] == store_key_of(b"alice").hex()
    assert not violation["signed"]
    await reported(service, "missing_row")


@pytest.mark.parametrize("checksum_fits", [False, True], ids=["by_hand", "checksum_fits"])
async def test_long_value_of_a_record_in_use(launch: Launch, checksum_fits: bool) -> None:
    """The worker keeps the hash of a long value that it drops from memory, and so sees by itself that it changed."""
    service = await launch()
    long = b"x" * 5_000
    await certified(service, [(b"alice", long)])
    await certified(service, [(b"bob", b"1")])  # with the next cut, the former's row is in the store alone
    if checksum_fits:
        service.disk.write(b"alice", long[:-1] + b"y")
    else:
        service.disk.flip(b"alice")
    async with service.client() as kv:
        with pytest.raises(RefusedError, match="does not hold the value that was stored") as refused:
            await kv.get(b"alice")
    assert "the record is that of key 'alice'" in str(refused.value)
    finding = (await service.status()).json()["violation"]["host_finding"]
    assert ("changed on disk, by their checksums: 'alice'" in finding) is not checksum_fits
    await reported(service, "missing_row")


async def test_other_answers_of_the_epoch_are_not_certified(launch: Launch) -> None:
    service = await _without_its_row(launch, None)
    async with service.client() as kv:
        other = await attempted(kv.put(b"bob", b"2"))
        assert await attempted(kv.get(b"alice")) is None
        if other is not None and not other.is_certified:
            with pytest.raises(RefusedError):
                await other.certified()


async def test_nothing_is_restarted_after_it(launch: Launch) -> None:
    """A restart would put the evidence away, and go on with a store that is known to be wrong."""
    service = await _without_its_row(launch, None)
    async with service.client() as kv:
        with pytest.raises(RefusedError, match="missing_row"):
            await kv.get(b"alice")
    process = service.server.process
    assert process is not None
    (worker,) = await asyncio.to_thread(workers_of, process.pid)
    os.kill(worker, signal.SIGKILL)
    assert await asyncio.to_thread(process.wait) == EXIT_VIOLATION
    assert "worker-0 ended unexpectedly (signal 9); after a violation nothing is restarted" in process.output
    assert "INTEGRITY VIOLATION missing_row" in process.output
    assert "Traceback" not in process.output
    service.server.process = None


def workers_of(supervisor: int) -> list[int]:
    command = ["pgrep", "-P", str(supervisor), "-f", r"kvstore\.worker"]
    return [int(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]
