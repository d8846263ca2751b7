"""The host runs an operation on another record than the client named, on none, or without any client."""

import asyncio

import pytest
from _harness.expect import attempted, caught
from _harness.monitor_proxy import once
from _harness.service import Launch, certified
from _harness.verifier_log import (
    AddMerkle,
    Entry,
    EvictBlum,
    NextEpoch,
    Run,
    RunAbsent,
    VerifyEpoch,
)

_EPOCH_MS = 300
_RECORDS = [(b"alice", b"100 coins"), (b"bob", b"5 coins")]


async def test_get_is_answered_from_another_key(launch: Launch) -> None:
    service = await launch(epoch_ms=_EPOCH_MS, through_proxy=True)
    await certified(service, _RECORDS)

    def exchange(entries: list[Entry]) -> list[Entry] | None:
        runs = [at for at, entry in enumerate(entries) if isinstance(entry, Run)]
        return [*entries[: runs[1]], entries[runs[0]], *entries[runs[1] + 1 :]] if len(runs) == 2 else None

    service.proxy.on_log = once(exchange)
    async with service.client() as kv:
        assert await attempted(kv.get_many([b"alice", b"bob"])) is None
        await caught(service, kv, "wrong_record", key=b"bob")


async def test_present_key_is_said_to_be_absent(launch: Launch) -> None:
    service = await launch("--hot-records", "0", epoch_ms=_EPOCH_MS, through_proxy=True)
    await certified(service, _RECORDS)

    def deny(entries: list[Entry]) -> list[Entry] | None:
        parents = {entry.slot: entry.parent for entry in entries if isinstance(entry, AddMerkle) and entry.key.is_leaf}
        runs = [at for at, entry in enumerate(entries) if isinstance(entry, Run) and entry.slots[0] in parents]
        if not runs:
            return None
        edited = list(entries)
        run = entries[runs[0]]
        assert isinstance(run, Run)
        edited[runs[0]] = RunAbsent(parents[run.slots[0]])
        return edited

    service.proxy.on_log = once(deny)
    async with service.client() as kv:
        assert await attempted(kv.get(b"alice")) is None
        await caught(service, kv, "not_absent", key=b"alice")


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (Run((0,)), "no_request"),
        (EvictBlum(0, 1 << 40), "root_is_permanent"),
        (VerifyEpoch(), "epoch_not_closing_yet"),
    ],
    ids=["run", "root", "epoch"],
)
async def test_entry_that_nobody_asked_for(launch: Launch, entry: Entry, name: str) -> None:
    service = await launch(through_proxy=True)
    async with service.client() as kv:
        before = await kv.put(b"alice", b"1", certified=True)
        service.proxy.inject(0, [entry])
        await caught(service, kv, name, certified=[before])


async def test_bytes_that_are_no_log(launch: Launch) -> None:
    service = await launch(through_proxy=True)
    async with service.client() as kv:
        before = await kv.put(b"alice", b"1", certified=True)
        service.proxy.send_log_bytes(0, b"\xff")
        await caught(service, kv, "malformed_log", certified=[before])


async def test_epoch_is_closed_within_a_request(launch: Launch) -> None:
    service = await launch(epoch_ms=_EPOCH_MS, through_proxy=True)

    def close(entries: list[Entry]) -> list[Entry] | None:
        runs = [at for at, entry in enumerate(entries) if isinstance(entry, Run)]
        return [*entries[: runs[0] + 1], NextEpoch(), *entries[runs[0] + 1 :]] if len(runs) > 1 else None

    async with service.client() as kv:
        service.proxy.on_log = once(close)
        lied = await attempted(asyncio.gather(kv.put(b"alice", b"1"), kv.put(b"bob", b"1")))
        assert lied is None
        await caught(service, kv, "request_in_progress")
