"""A record is added on one verifier thread with a timestamp at which another one is to evict it later.

The sums would agree in the end, but an answer would be certified that read the record before its latest write: the
promise is linearizability, so nobody may use an eviction that has not happened yet.
"""

from _harness.expect import caught
from _harness.service import Launch
from _harness.verifier_log import AddBlum, BaseKey
from blake3 import blake3
from kvstore_client._operations import commitment

_SLOTS = 1_024
_LONG_EPOCH_MS = 60_000


async def test_eviction_that_has_not_happened(launch: Launch) -> None:
    # No cut comes to move the other thread's clock.
    service = await launch("--slots", str(_SLOTS), workers=2, epoch_ms=_LONG_EPOCH_MS, through_proxy=True)
    async with service.client() as kv:
        answered = await kv.put(b"alice", b"1")
        future = (answered.epoch << 32) + (1 << 20)
        lie = AddBlum(_SLOTS - 1, future, 0, BaseKey(256, blake3(b"alice").digest()), commitment(b"lie"))
        service.proxy.inject(1, [lie])
        await caught(service, kv, "clock_not_passed", provisional=[answered], key=b"alice", is_stored=False)
