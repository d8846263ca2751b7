"""At the cut the host keeps a record cached, or has two of it; or it carries one over wrongly, or not at all.

A record would be in two places then, in none, or with another value.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from _harness.expect import caught
from _harness.monitor_proxy import once
from _harness.service import Launch, hot
from _harness.verifier_log import AddBlum, BaseKey, CarryOver, Entry, EvictBlum, NextEpoch
from blake3 import blake3
from kvstore_client._operations import commitment

_EPOCH_MS = 300
_LONG_EPOCH_MS = 60_000
_SLOTS = 1_024
_LATE_COUNTER = 1 << 30
_EPOCH = 1 << 32
_ALICE = BaseKey(256, blake3(b"alice").digest())


def _evicted_in_closing_epoch(entry: CarryOver) -> bool:
    """And not only carried over into it, at its counter 0."""
    return entry.ts % _EPOCH != 0


def _instead_of_carrying_alice(
    change: Callable[[CarryOver], list[Entry]], where: Callable[[CarryOver], bool] = lambda _: True
) -> Callable[[list[Entry]], list[Entry] | None]:
    def edit(entries: list[Entry]) -> list[Entry] | None:
        for at, entry in enumerate(entries):
            if isinstance(entry, CarryOver) and entry.key == _ALICE and where(entry):
                return [*entries[:at], *change(entry), *entries[at + 1 :]]
        return None

    return edit


@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda entry: [entry, entry],
        lambda entry: [replace(entry, value=commitment(b"lie"))],
        lambda entry: [replace(entry, ts=entry.ts + 1)],
    ],
    ids=["not at all", "twice", "another value", "another moment"],
)
async def test_record_carried_over_as_nobody_evicted_it(
    launch: Launch, change: Callable[[CarryOver], list[Entry]]
) -> None:
    """What goes on in the next epoch looks honest: only that the closing one does not hold gives it away."""
    service = await launch(epoch_ms=_EPOCH_MS, through_proxy=True)
    await hot(service, [(b"alice", b"1"), (b"bob", b"1")])
    service.proxy.on_log = once(_instead_of_carrying_alice(change))
    async with service.client() as kv:
        lied = await kv.put(b"bob", b"2")
        await caught(service, kv, "epoch_mismatch", provisional=[lied])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda entry: [replace(entry, thread=1)], "carried_from_other"),
        (lambda entry: [replace(entry, thread=64)], "unknown_thread"),
        (lambda entry: [replace(entry, ts=entry.ts - _EPOCH)], "epoch_not_closing"),
    ],
    ids=["of another thread", "of no thread", "of another epoch"],
)
async def test_record_carried_over_that_is_not_the_threads(
    launch: Launch, change: Callable[[CarryOver], list[Entry]], name: str
) -> None:
    """Another thread may still be in the closing epoch, and evict the record later than this thread's cut."""
    service = await launch(epoch_ms=_EPOCH_MS, through_proxy=True)
    await hot(service, [(b"alice", b"1")])
    service.proxy.on_log = once(_instead_of_carrying_alice(change, _evicted_in_closing_epoch))
    async with service.client() as kv:
        lied = await kv.put(b"alice", b"2")
        await caught(service, kv, name, provisional=[lied], key=b"alice")


async def test_record_carried_over_where_no_epoch_is_closing(launch: Launch) -> None:
    service = await launch(epoch_ms=_LONG_EPOCH_MS, through_proxy=True)
    async with service.client() as kv:
        answered = await kv.put(b"alice", b"1")
        lie = CarryOver(answered.epoch * _EPOCH + 2, 0, _ALICE, commitment(b"1"))
        service.proxy.inject(0, [lie])
        await caught(service, kv, "epoch_not_closing", provisional=[answered], key=b"alice", is_stored=False)


def _before_the_cut(*more: Callable[[AddBlum], Entry]) -> Callable[[list[Entry]], list[Entry] | None]:
    """Right before the cut, a copy of the record of `alice` as it was added before in that epoch, and `more`."""
    added: list[AddBlum] = []

    def edit(entries: list[Entry]) -> list[Entry] | None:
        for at, entry in enumerate(entries):
            if isinstance(entry, AddBlum) and entry.key == _ALICE:
                added.append(entry)
            if isinstance(entry, NextEpoch) and added:
                copy = replace(added[0], slot=_SLOTS - 1)
                return [*entries[:at], copy, *(make(copy) for make in more), *entries[at:]]
        return None

    return edit


def _late_evict(copy: AddBlum) -> Entry:
    return EvictBlum(copy.slot, copy.ts // _EPOCH * _EPOCH + _LATE_COUNTER)


async def test_record_still_cached_at_the_cut(launch: Launch) -> None:
    service = await launch("--slots", str(_SLOTS), epoch_ms=_EPOCH_MS, through_proxy=True)
    await hot(service, [(b"alice", b"1")])
    service.proxy.on_log = once(_before_the_cut())
    async with service.client() as kv:
        lied = await kv.put(b"alice", b"2")
        await caught(service, kv, "cache_not_empty", provisional=[lied])


async def test_record_added_twice(launch: Launch) -> None:
    """A second copy of a record, with the value that it had before, lives beside the first."""
    service = await launch("--slots", str(_SLOTS), epoch_ms=_EPOCH_MS, through_proxy=True)
    await hot(service, [(b"alice", b"old")])
    service.proxy.on_log = once(_before_the_cut(_late_evict))
    async with service.client() as kv:
        lied = await kv.put(b"alice", b"new")
        await caught(service, kv, "epoch_mismatch", provisional=[lied])
