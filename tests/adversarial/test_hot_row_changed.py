"""After a crash, records that were in Blum are read from the store: no hash pins them, only the secret sum does.

A wrong value is then answered, with a true receipt, and found at the end of the epoch: it is never certified. The
monitor cannot say which record it was. The host can, where the row's checksum does not fit.
"""

import asyncio

import pytest
from _harness.expect import attempted, caught
from _harness.service import Launch, hot

_EPOCH_MS = 300


@pytest.mark.parametrize("checksum_fits", [False, True], ids=["by_hand", "checksum_fits"])
async def test_record_in_blum_is_changed_after_a_crash(launch: Launch, checksum_fits: bool) -> None:
    service = await launch(epoch_ms=_EPOCH_MS)
    await hot(service, [(b"alice", b"100 coins")])
    await asyncio.to_thread(service.server.kill)
    if checksum_fits:
        service.disk.write(b"alice", b"999 coins")
    else:
        service.disk.flip(b"alice")
    await service.start()
    async with service.client() as kv:
        lied = await attempted(kv.get(b"alice"))
        found = await caught(service, kv, "epoch_mismatch", provisional=[lied])
        assert lied is None or found.violation.epoch == lied.epoch
        finding = "" if checksum_fits else "changed on disk, by their checksums: 'alice'"
        assert found.violation.host_finding == finding
        assert (await service.status()).json()["violation"]["host_finding"] == finding


async def test_a_record_that_nobody_asks_for_is_named(launch: Launch) -> None:
    """At the end of the epoch all that is in Blum is read."""
    service = await launch(epoch_ms=_EPOCH_MS)
    await hot(service, [(b"alice", b"100 coins"), (b"bob", b"1")])
    await asyncio.to_thread(service.server.kill)
    service.disk.flip(b"alice")
    await service.start()
    async with service.client() as kv:
        answer = await attempted(kv.get(b"bob"))
        found = await caught(service, kv, "epoch_mismatch", provisional=[answer])
        assert "'alice'" in found.violation.host_finding
        assert "'bob'" not in found.violation.host_finding
