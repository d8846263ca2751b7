"""At the cut the host keeps a record back, or cached, or adds one twice: it would be in two places, or in none."""

from collections.abc import Callable
from dataclasses import replace

from _harness.expect import caught
from _harness.monitor_proxy import once
from _harness.service import Launch, hot
from _harness.verifier_log import AddBlum, Entry, EvictBlum, NextEpoch
from blake3 import blake3

_EPOCH_MS = 300
_SLOTS = 1_024
_LATE_COUNTER = 1 << 30


def _is_leaf_of(entry: AddBlum, key: bytes) -> bool:
    return entry.key.is_leaf and entry.key.bits == blake3(key).digest()


class _Alice:
    """A hook that gets hold of what the drain does with the record of `alice`: its add, and the eviction that follows.

    `instead` gives the entries to write in place of the add; the eviction is left out.
    """

    def __init__(self, instead: Callable[[AddBlum], list[Entry]]) -> None:
        self._instead = instead
        self._closing = self._done = False
        self._slot: int | None = None

    def __call__(self, _: int, entries: list[Entry]) -> list[Entry]:
        return [edited for entry in entries for edited in self._edit(entry)]

    def _edit(self, entry: Entry) -> list[Entry]:
        self._closing |= isinstance(entry, NextEpoch)
        if self._done or not self._closing:
            return [entry]
        if isinstance(entry, AddBlum) and _is_leaf_of(entry, b"alice"):
            self._slot = entry.slot
            return self._instead(entry)
        if isinstance(entry, EvictBlum) and entry.slot == self._slot:
            self._done = True
            return []
        return [entry]


async def test_record_dropped_from_the_drain(launch: Launch) -> None:
    """A record that nobody used in the epoch is neither added nor evicted again: it stays behind in the old one."""
    service = await launch("--slots", str(_SLOTS), epoch_ms=_EPOCH_MS, through_proxy=True)
    await hot(service, [(b"alice", b"1"), (b"bob", b"1")])
    service.proxy.on_log = _Alice(lambda _: [])
    async with service.client() as kv:
        lied = await kv.put(b"bob", b"2")
        await caught(service, kv, "epoch_mismatch", provisional=[lied])


async def test_record_still_cached_at_the_cut(launch: Launch) -> None:
    service = await launch("--slots", str(_SLOTS), epoch_ms=_EPOCH_MS, through_proxy=True)
    await hot(service, [(b"alice", b"1"), (b"bob", b"1")])
    service.proxy.on_log = _Alice(lambda add: [replace(add, slot=_SLOTS - 1)])
    async with service.client() as kv:
        lied = await kv.put(b"bob", b"2")
        await caught(service, kv, "cache_not_empty", provisional=[lied])


async def test_record_added_twice(launch: Launch) -> None:
    """A second copy of a record, with the value that it had at the last cut, lives beside the first."""
    service = await launch("--slots", str(_SLOTS), epoch_ms=_EPOCH_MS, through_proxy=True)
    await hot(service, [(b"alice", b"old")])
    added: list[AddBlum] = []

    def add_again(entries: list[Entry]) -> list[Entry] | None:
        added.extend(entry for entry in entries if isinstance(entry, AddBlum) and _is_leaf_of(entry, b"alice"))
        if not added or NextEpoch() not in entries:
            return None
        at = entries.index(NextEpoch())
        copy = replace(added[0], slot=_SLOTS - 1)
        evict = EvictBlum(_SLOTS - 1, (copy.ts >> 32 << 32) + _LATE_COUNTER)
        return [*entries[:at], copy, evict, *entries[at:]]

    service.proxy.on_log = once(add_again)
    async with service.client() as kv:
        lied = await kv.put(b"alice", b"new")
        await caught(service, kv, "epoch_mismatch", provisional=[lied])
