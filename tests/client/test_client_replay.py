"""A server with a write-ahead log was lost, and has replayed it: what the client makes of the monitor's answer."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest
from double import RECEIPT, REQUEST, Frames, Host, Monitor, eventually, honest
from kvstore_client import (
    KV,
    NotAppliedError,
    OutcomeUnknownError,
    ProvisionalLostError,
    ResultLostError,
    connect,
)


@pytest.fixture
async def logged(monitor: Monitor, host: Host) -> AsyncIterator[KV]:
    monitor.has_log = True
    async with connect(host.address, monitor.identity.hex(), timeout=2, certificate_timeout=2) as kv:
        await kv.put(b"kept", b"v")
        host.close_epoch()
        await eventually(lambda: kv.epoch == 1)
        yield kv


def number(value: int) -> bytes:
    return struct.pack("<q", value)


async def test_answers_are_certified_by_the_incarnation_that_replayed_them(host: Host, logged: KV) -> None:
    answers = [await logged.increment(b"n"), await logged.put(b"other", b"v")]
    host.restart()
    assert (await logged.get(b"n")).value == number(1)
    assert not any(answer.is_certified for answer in answers)
    waiting = asyncio.gather(*(answer.certified() for answer in answers), logged.barrier())
    await asyncio.sleep(0)
    host.close_epoch()
    await waiting
    assert all(answer.is_certified for answer in answers)
    assert "certified" in repr(answers[0].receipt)


async def test_certificate_that_comes_before_the_client_is_back(host: Host, logged: KV) -> None:
    answer = await logged.increment(b"n")
    host.monitor.restart()
    host.monitor.close_epoch()
    host.drop_connections()
    await answer.certified()


@pytest.mark.parametrize("replayed", [0, 1, 2, 3])
async def test_end_of_the_log_that_was_lost(host: Host, logged: KV, replayed: int) -> None:
    answers = [await logged.increment(b"n") for _ in range(3)]
    host.restart(replayed_max=replayed)
    assert (await logged.get(b"n")).value == (number(replayed) if replayed else None)
    host.close_epoch()
    for answer in answers[:replayed]:
        await answer.certified()
    for answer in answers[replayed:]:
        with pytest.raises(ProvisionalLostError):
            await answer.certified()
        assert not answer.is_certified
    if replayed < 3:
        with pytest.raises(ProvisionalLostError):
            await logged.barrier()
    await logged.barrier()


async def test_writes_are_not_sent_again_when_an_answer_before_them_is_lost(host: Host, logged: KV) -> None:
    await logged.put(b"first", b"v")
    host.to_monitor = lambda kind, body: [] if kind == REQUEST else [(kind, body)]
    call = asyncio.create_task(logged.put(b"second", b"v"))
    await asyncio.sleep(0.05)
    host.to_monitor = honest
    host.restart(replayed_max=0)
    with pytest.raises(NotAppliedError):
        await call
    assert (await logged.get(b"second")).value is None


async def test_unanswered_operations_that_were_replayed_ran_once(host: Host, logged: KV) -> None:
    seen: list[int] = []

    def lose(kind: int, body: bytes) -> Frames:
        if kind == RECEIPT:
            seen.append(kind)
            return []
        return [(kind, body)]

    host.to_client = lose
    increment = asyncio.create_task(logged.increment(b"n"))
    await eventually(lambda: len(seen) == 1)
    put = asyncio.create_task(logged.put(b"put", b"v"))
    await eventually(lambda: len(seen) == 2)
    host.to_client = honest
    host.restart()
    with pytest.raises(ResultLostError):
        await increment
    written = await put
    assert not written.is_certified
    assert (await logged.get(b"n")).value == number(1)
    host.close_epoch()
    await written.certified()


async def test_two_crashes_before_a_certificate(host: Host, logged: KV) -> None:
    """The client had a session in the incarnation between: it asks about both that went before."""
    first = await logged.increment(b"n")
    host.restart()
    second = await logged.increment(b"n")
    host.restart()
    assert (await logged.get(b"n")).value == number(2)
    assert not first.is_certified
    assert not second.is_certified
    host.close_epoch()
    await asyncio.gather(first.certified(), second.certified())


async def test_second_crash_that_loses_what_the_first_did_not(host: Host, logged: KV) -> None:
    first = await logged.increment(b"n")
    host.restart()
    second = await logged.increment(b"n")
    host.restart(replayed_max=1)
    assert (await logged.get(b"n")).value == number(1)
    host.close_epoch()
    await first.certified()
    with pytest.raises(ProvisionalLostError):
        await second.certified()
    host.monitor.has_log = False
    third = await logged.increment(b"n")
    host.restart()
    with pytest.raises(ProvisionalLostError):
        await third.certified()


async def test_crash_before_the_client_is_back(host: Host, logged: KV) -> None:
    first = await logged.increment(b"n")
    host.monitor.restart()
    host.restart()
    assert (await logged.get(b"n")).value == number(1)
    host.close_epoch()
    await first.certified()


async def test_session_that_is_unknown_may_have_been_replayed(host: Host, logged: KV) -> None:
    """Without a log, the client would know that it was not, and send the operation again."""
    host.to_client = lambda kind, body: [] if kind == RECEIPT else [(kind, body)]
    call = asyncio.create_task(logged.increment(b"n"))
    await eventually(lambda: len(host.monitor.log) == 1)
    host.to_client = honest
    host.monitor.restart()
    host.monitor.former.clear()
    host.drop_connections()
    with pytest.raises(OutcomeUnknownError):
        await call
    assert (await logged.get(b"n")).value == number(1)


async def test_answers_of_a_session_that_is_unknown(host: Host, logged: KV) -> None:
    answer = await logged.increment(b"n")
    host.monitor.restart()
    host.monitor.former.clear()
    host.drop_connections()
    with pytest.raises(OutcomeUnknownError):
        await answer.certified()
