"""A record is added on one verifier thread with a timestamp at which another one is to evict it later.

The sums would agree in the end, but an answer would be certified that read the record before its latest write: the
promise is linearizability, so nobody may use an eviction that has not happened yet.
"""

from _harness.expect import caught
from _harness.service import Launch, certified
from _harness.verifier_log import AddBlum, BaseKey
from blake3 import blake3
from kvstore_client import Number

_SLOTS = 1_024
_LONG_EPOCH_MS = 60_000


async def test_eviction_that_has_not_happened(launch: Launch) -> None:
    service = await launch("--slots", str(_SLOTS), workers=2, through_proxy=True)
    await certified(service, [(b"alice", b"1")])
    service.proxy.on_log = lambda _, entries: entries
    async with service.client() as kv:
        provisional: Number = await kv.increment(b"counter", 1)
        future = (provisional.epoch << 32) + (1 << 20)
        value = b"\x01\x03lie"
        service.proxy.inject(1, [AddBlum(_SLOTS - 1, future, 0, BaseKey(256, blake3(b"alice").digest()), value)])
        await caught(service, kv, "clock_not_passed", key=b"alice")
