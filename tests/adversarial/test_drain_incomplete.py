"""At the cut the host keeps a record back, or cached, or adds one twice: it would be in two places, or in none."""

from _harness.expect import caught
from _harness.monitor_proxy import once
from _harness.service import Launch, certified
from _harness.verifier_log import AddBlum, Entry, EvictBlum, EvictBlumMerkle, NextEpoch
from blake3 import blake3

_EPOCH_MS = 300
_SLOTS = 1_024
_LATE_COUNTER = 1 << 30


def _leaf_adds(entries: list[Entry], key: bytes) -> list[int]:
    return [
        at
        for at, entry in enumerate(entries)
        if isinstance(entry, AddBlum) and entry.key.is_leaf and entry.key.bits == blake3(key).digest()
    ]


async def test_record_dropped_from_the_drain(launch: Launch) -> None:
    """A record that nobody used in the epoch is neither added nor evicted again: it stays behind in the old one."""
    service = await launch("--slots", str(_SLOTS), epoch_ms=_EPOCH_MS, through_proxy=True)
    await certified(service, [(b"alice", b"1"), (b"bob", b"1")])

    def drop(entries: list[Entry]) -> list[Entry] | None:
        adds = _leaf_adds(entries, b"alice")
        if not adds or NextEpoch() not in entries[: adds[0]]:
            return None
        add = entries[adds[0]]
        assert isinstance(add, AddBlum)
        dropped = {adds[0]}
        for at, entry in enumerate(entries[adds[0] :], adds[0]):
            if isinstance(entry, EvictBlum) and entry.slot == add.slot:
                dropped.add(at)
                break
        return [entry for at, entry in enumerate(entries) if at not in dropped]

    service.proxy.on_log = once(drop)
    async with service.client() as kv:
        lied = await kv.put(b"bob", b"2")
        await caught(service, kv, "epoch_mismatch", provisional=[lied])


async def test_record_still_cached_at_the_cut(launch: Launch) -> None:
    service = await launch("--slots", str(_SLOTS), epoch_ms=_EPOCH_MS, through_proxy=True)
    await certified(service, [(b"alice", b"1")])

    def keep(entries: list[Entry]) -> list[Entry] | None:
        evictions = [
            at
            for at, entry in enumerate(entries)
            if isinstance(entry, EvictBlum | EvictBlumMerkle) and NextEpoch() in entries[:at]
        ]
        return entries[: evictions[-1]] + entries[evictions[-1] + 1 :] if evictions else None

    service.proxy.on_log = once(keep)
    async with service.client() as kv:
        lied = await kv.put(b"bob", b"2")
        await caught(service, kv, "cache_not_empty", provisional=[lied])


async def test_record_added_twice(launch: Launch) -> None:
    """A second copy of a record, with the value that it had at the last cut, lives beside the first."""
    service = await launch("--slots", str(_SLOTS), epoch_ms=_EPOCH_MS, through_proxy=True)
    await certified(service, [(b"alice", b"old")])
    added: list[AddBlum] = []

    def add_again(entries: list[Entry]) -> list[Entry] | None:
        for at in _leaf_adds(entries, b"alice"):
            add = entries[at]
            assert isinstance(add, AddBlum)
            added.append(add)
        if not added or NextEpoch() not in entries:
            return None
        at = entries.index(NextEpoch())
        first = added[0]
        copy = AddBlum(_SLOTS - 1, first.ts, first.thread, first.key, first.value)
        evict = EvictBlum(_SLOTS - 1, (first.ts >> 32 << 32) + _LATE_COUNTER)
        return [*entries[:at], copy, evict, *entries[at:]]

    service.proxy.on_log = once(add_again)
    async with service.client() as kv:
        lied = await kv.put(b"alice", b"new")
        await caught(service, kv, "epoch_mismatch", provisional=[lied])
