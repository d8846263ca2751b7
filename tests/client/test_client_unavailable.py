"""A server that refuses changes: they fail at once, for good and with the server's reason; gets are answered.

And one that can give no answer at all for now, since the disk of its write-ahead log takes nothing.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest
from double import (
    ADMIN,
    ADMIN_ANSWER,
    CHANGES_REFUSED,
    ERROR,
    NO_ANSWER_NOW,
    RECEIPT,
    REJECTED,
    REQUEST,
    RESUME,
    RESUMED,
    Frames,
    Host,
    Monitor,
    eventually,
    honest,
    seed,
)
from kvstore_client import (
    KV,
    ClientKey,
    ConnectionLostError,
    NotAppliedError,
    OutcomeUnknownError,
    Role,
    UnavailableError,
    connect,
)


@pytest.fixture
async def kv(host: Host) -> AsyncIterator[KV]:
    async with connect(host.address, host.monitor.identity.hex(), timeout=2, certificate_timeout=2) as kv:
        await kv.put(b"kept", b"v")
        yield kv


def request_of(body: bytes) -> bytes:
    return body[4 : 4 + struct.unpack_from("<I", body)[0]]


async def test_a_refused_change_fails_at_once_and_leaves_no_gap(host: Host, kv: KV) -> None:
    host.full = True
    for _ in range(3):
        with pytest.raises(UnavailableError, match="no space left"):
            await kv.put(b"k", b"v")
        assert (await kv.get(b"kept")).value == b"v"
    host.full = False
    await kv.put(b"k", b"later")
    assert (await kv.get(b"k")).value == b"later"
    assert host.connections_count == 1, "the connection is of use all the while"


async def test_gets_in_one_request_with_refused_changes_are_answered(host: Host, kv: KV) -> None:
    host.full = True
    for _ in range(5):
        calls = [kv.get(b"kept"), kv.put(b"kept", b"x"), kv.get(b"kept"), kv.increment(b"n"), kv.delete(b"kept")]
        first, put, second, *others = await asyncio.gather(*calls, return_exceptions=True)
        assert [getattr(answer, "value", answer) for answer in (first, second)] == [b"v", b"v"]
        assert all(isinstance(error, UnavailableError) for error in (put, *others))
    assert host.connections_count == 1


async def test_gets_do_not_starve_beside_changes_that_are_tried_again_and_again(host: Host, kv: KV) -> None:
    host.full = True

    async def keep_writing() -> None:
        while True:
            with pytest.raises(UnavailableError):
                await kv.put(b"k", b"v")

    writers = [asyncio.create_task(keep_writing()) for _ in range(4)]
    async with asyncio.timeout(2):
        for _ in range(50):
            assert (await kv.get(b"kept")).value == b"v"
    for writer in writers:
        writer.cancel()
    assert host.connections_count == 1


async def test_many_changes_are_refused_together(host: Host, kv: KV) -> None:
    host.full = True
    with pytest.raises(UnavailableError):
        await kv.put_many((str(i).encode(), b"v") for i in range(20_000))
    assert len(host.requests) < 100, "what is queued is not sent, one request after the other"
    host.full = False
    assert [answer.value for answer in await kv.get_many([b"0", b"19999"])] == [None, None]


async def test_a_change_that_is_said_to_be_refused_and_passed_on_later_never_runs(host: Host, kv: KV) -> None:
    held: list[bytes] = []

    def refuse_and_hold(kind: int, body: bytes) -> Frames:
        if kind != 0x02:
            return [(kind, body)]
        held.append(body)
        host.push(*CHANGES_REFUSED)
        return []

    host.to_monitor = refuse_and_hold
    with pytest.raises(NotAppliedError):
        await kv.put(b"k", b"v")
    host.to_monitor = honest
    assert host.monitor.request(request_of(held[0])) == 4, "its generation is over"
    assert (await kv.get(b"k")).value is None


async def test_a_change_that_runs_although_it_is_said_to_be_refused_is_answered_as_applied(host: Host, kv: KV) -> None:
    def refuse_and_run(kind: int, body: bytes) -> Frames:
        if kind == 0x02:
            host.monitor.request(request_of(body))
            host.push(*CHANGES_REFUSED)
            return []
        return [(kind, body)]

    host.to_monitor = refuse_and_run
    await kv.put(b"k", b"v")
    host.to_monitor = honest
    assert (await kv.get(b"k")).value == b"v"


async def test_nothing_is_said_of_a_change_before_the_monitor_has_answered(host: Host, kv: KV) -> None:
    resumes: list[bytes] = []
    host.full = True
    host.to_monitor = lambda kind, body: resumes.append(body) or [] if kind == RESUME else [(kind, body)]
    call = asyncio.create_task(kv.put(b"k", b"v"))
    await eventually(lambda: len(resumes) == host.monitor.threads)
    assert not call.done()
    host.to_monitor = honest
    host.drop_connections()
    with pytest.raises(UnavailableError):
        await call


async def test_a_receipt_of_before_the_refusal_is_taken_while_the_session_is_resumed(host: Host, kv: KV) -> None:
    late: Frames = []

    def hold_receipt(kind: int, body: bytes) -> Frames:
        if kind == 0x82 and not late:
            late.append((kind, body))
            return [CHANGES_REFUSED]
        if kind == 0x84 and late[1:] == []:
            late.append((kind, body))
            return [late[0], (kind, body)]
        return [(kind, body)]

    host.to_client = hold_receipt
    assert (await kv.increment(b"n")).value == 1, "its result is not lost"
    assert len(late) == 2


async def test_a_refusal_of_nothing_ends_the_connection(host: Host, kv: KV) -> None:
    host.push(*CHANGES_REFUSED)
    await eventually(lambda: host.connections_count == 2)
    assert (await kv.get(b"kept")).value == b"v"


async def test_a_refused_admin_request_never_takes_effect(monitor: Monitor, host: Host) -> None:
    admin, other = ClientKey(seed("admin")), ClientKey(seed("other"))
    monitor.clients[admin.public_key] = (3, b"admin")
    async with connect(host.address, monitor.identity.hex(), key=admin, timeout=2) as kv:
        held: list[bytes] = []
        host.full = True
        host.to_monitor = lambda kind, body: held.append(body) or [(kind, body)] if kind == ADMIN else [(kind, body)]
        with pytest.raises(UnavailableError, match="no space left"):
            await kv.clients.remove(other.public_key)
        assert len(await kv.clients.list()) == 1
        host.full = False
        assert monitor.admin(held[0]) == 3, "its sequence is taken"


async def test_an_admin_request_that_is_answered_after_another_was_refused(monitor: Monitor, host: Host) -> None:
    """It had been passed on before: its answer is the monitor's, and what was sent in its place is not run."""
    admin, other = ClientKey(seed("admin")), ClientKey(seed("other"))
    monitor.clients[admin.public_key] = (3, b"admin")
    async with connect(host.address, monitor.identity.hex(), key=admin, timeout=2) as kv:
        late: list[bytes] = []
        host.to_client = lambda kind, body: late.append(body) or [] if kind == ADMIN_ANSWER else [(kind, body)]
        adding = asyncio.create_task(kv.clients.add("other", other.public_key, Role.WRITE))
        await eventually(lambda: len(late) == 1)
        host.full = True
        copies: list[bytes] = []
        host.to_monitor = lambda kind, body: copies.append(body) or [] if kind == ADMIN else [(kind, body)]
        with pytest.raises(UnavailableError):
            await kv.put(b"k", b"v")
        await eventually(lambda: len(copies) == 1)
        host.to_client = host.to_monitor = honest
        host.push(ADMIN_ANSWER, late[0])
        await adding
        session, sequence = struct.unpack_from("<QQ", copies[0])
        host.push(REJECTED, struct.pack("<QHQB", session, 65535, sequence, monitor.admin(copies[0])))
        assert {entry.name for entry in await kv.clients.list()} == {"admin", "other"}
        assert host.connections_count == 1


async def test_a_refusal_by_an_unverified_server_ends_the_connection(monitor: Monitor) -> None:
    async with Host(monitor, unverified=True) as host, connect(host.address, unverified=True, timeout=1) as kv:
        await kv.put(b"k", b"v")
        host.push(ERROR, CHANGES_REFUSED[1])
        await eventually(lambda: host.connections_count == 2)
        assert (await kv.get(b"k")).value == b"v"


async def test_a_server_that_refuses_at_the_greeting(host: Host) -> None:
    host.to_client = lambda kind, body: [CHANGES_REFUSED] if kind == 0x80 else [(kind, body)]
    with pytest.raises(ConnectionLostError, match="no space left"):
        async with connect(host.address, host.monitor.identity.hex(), timeout=1):
            pass


def answers_held(kind: int, body: bytes) -> Frames:
    return [NO_ANSWER_NOW] if kind in (RECEIPT, RESUMED) else [(kind, body)]


@pytest.fixture
async def patient(host: Host) -> AsyncIterator[KV]:
    """A client whose timeout no test waits for."""
    async with connect(host.address, host.monitor.identity.hex(), timeout=60) as kv:
        await kv.put(b"kept", b"v")
        yield kv


async def test_without_answers_a_change_in_flight_may_have_run(host: Host, patient: KV) -> None:
    host.to_client = answers_held
    async with asyncio.timeout(5):
        with pytest.raises(OutcomeUnknownError, match=r"no space left.*may have taken effect or not"):
            await patient.increment(b"n")
        with pytest.raises(UnavailableError, match="no space left"):
            await patient.get(b"kept")
    host.to_client = honest
    assert (await patient.increment(b"n")).value == 2, "it had run, and runs only once"


async def test_without_answers_a_change_in_flight_may_never_run(host: Host, patient: KV) -> None:
    """A server that was asked when the trouble had begun has not passed the request on. Only it knows that."""
    host.to_monitor = lambda kind, body: (
        host.push(*NO_ANSWER_NOW) or [] if kind in (REQUEST, RESUME) else [(kind, body)]
    )
    async with asyncio.timeout(5):
        with pytest.raises(OutcomeUnknownError):
            await patient.increment(b"n")
    host.to_monitor = honest
    assert (await patient.increment(b"n")).value == 1, "it is not sent again"


async def test_without_answers_what_was_not_sent_never_runs(host: Host, patient: KV) -> None:
    host.to_client = answers_held
    async with asyncio.timeout(5):
        with pytest.raises(OutcomeUnknownError):
            await patient.put(b"first", b"v")
        sent = len(host.requests)
        for _ in range(3):
            with pytest.raises(UnavailableError, match="no space left"):
                await patient.put(b"later", b"v")
    assert len(host.requests) == sent
    host.to_client = honest
    assert [answer.value for answer in await patient.get_many([b"first", b"later"])] == [b"v", None]


async def test_without_answers_many_calls_fail_together(host: Host, patient: KV) -> None:
    host.to_client = answers_held
    async with asyncio.timeout(5):
        with pytest.raises((OutcomeUnknownError, UnavailableError)):
            await patient.put_many((str(i).encode(), b"v") for i in range(20_000))
    host.to_client = honest
    await patient.put(b"after", b"v")
