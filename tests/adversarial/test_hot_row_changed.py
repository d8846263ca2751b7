"""After a crash, records that were in Blum are read from the store: no hash pins them, only the secret sum does.

A wrong value is then answered, with a true receipt, and found at the end of the epoch: it is never certified.
"""

import asyncio

from _harness.expect import attempted, caught
from _harness.service import Launch, certified

_EPOCH_MS = 300


async def test_record_in_blum_is_changed_after_a_crash(launch: Launch) -> None:
    service = await launch(epoch_ms=_EPOCH_MS)
    await certified(service, [(b"alice", b"100 coins")])
    await asyncio.to_thread(service.server.kill)
    service.disk.write(b"alice", b"999 coins")
    await service.start()
    async with service.client() as kv:
        lied = await attempted(kv.get(b"alice"))
        found = await caught(service, kv, "epoch_mismatch", provisional=[lied])
        assert lied is None or found.violation.epoch == lied.epoch
