"""Values are changed between two epochs, where only the multiset hash can tell: the record was in Blum.

The receipt is then true to the lie, and the client cannot see it: this is what *provisional* means. What a linear
hash (a sum of GMAC tags, or an XOR) would not notice is tried, too: two changes that cancel.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from _harness.expect import attempted, caught
from _harness.monitor_proxy import once
from _harness.service import Launch, Service, hot
from _harness.verifier_log import AddBlum, Entry
from blake3 import blake3
from kvstore_client import Value

_EPOCH_MS = 300
_FIRST, _SECOND = b"100 coins", b"555 coins"

Edit = Callable[[AddBlum, AddBlum], tuple[AddBlum, AddBlum]]


def _swapped(one: AddBlum, two: AddBlum) -> tuple[AddBlum, AddBlum]:
    return replace(one, value=two.value), replace(two, value=one.value)


def _with_equal_difference(one: AddBlum, two: AddBlum) -> tuple[AddBlum, AddBlum]:
    return replace(one, value=_differing(one.value)), replace(two, value=_differing(two.value))


def _one_changed(one: AddBlum, two: AddBlum) -> tuple[AddBlum, AddBlum]:
    return replace(one, value=_differing(one.value)), two


def _earlier(one: AddBlum, two: AddBlum) -> tuple[AddBlum, AddBlum]:
    """As if the record's state of an epoch before were current."""
    return replace(one, ts=one.ts - (1 << 32)), two


def _differing(value: bytes) -> bytes:
    return value[:2] + bytes((value[2] ^ 0x08,)) + value[3:]


def _adds_of(entries: Sequence[Entry], keys: Sequence[bytes]) -> list[int] | None:
    """Where the records of the keys are added from Blum in this log; None if not all are."""
    hashes = [blake3(key).digest() for key in keys]
    places = {
        entry.key.bits: at for at, entry in enumerate(entries) if isinstance(entry, AddBlum) and entry.key.is_leaf
    }
    return [places[key_hash] for key_hash in hashes] if all(key_hash in places for key_hash in hashes) else None


async def _two_hot_records(service: Service) -> None:
    await hot(service, [(b"alice", _FIRST), (b"bob", _SECOND)])


def _edit(change: Edit) -> Callable[[list[Entry]], list[Entry] | None]:
    def edit(entries: list[Entry]) -> list[Entry] | None:
        places = _adds_of(entries, [b"alice", b"bob"])
        if places is None:
            return None
        edited = list(entries)
        one, two = (entries[place] for place in places)
        assert isinstance(one, AddBlum)
        assert isinstance(two, AddBlum)
        edited[places[0]], edited[places[1]] = change(one, two)
        return edited

    return edit


@pytest.mark.parametrize("change", [_swapped, _with_equal_difference, _one_changed])
async def test_wrong_values_are_answered_and_never_certified(launch: Launch, change: Edit) -> None:
    service = await launch(epoch_ms=_EPOCH_MS, through_proxy=True)
    await _two_hot_records(service)
    service.proxy.on_log = once(_edit(change))
    async with service.client() as kv:
        lied: list[Value] = await kv.get_many([b"alice", b"bob"])
        assert [answer.value for answer in lied] != [_FIRST, _SECOND], "the attack did not take place"
        found = await caught(service, kv, "epoch_mismatch", provisional=lied)
        assert found.violation.epoch == lied[0].epoch


async def test_timestamp_of_a_closed_epoch(launch: Launch) -> None:
    service = await launch(epoch_ms=_EPOCH_MS, through_proxy=True)
    await _two_hot_records(service)
    service.proxy.on_log = once(_edit(_earlier))
    async with service.client() as kv:
        assert await attempted(kv.get_many([b"alice", b"bob"])) is None
        await caught(service, kv, "epoch_closed", key=b"alice")
