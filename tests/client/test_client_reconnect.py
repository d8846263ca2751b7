"""Lost connections, lost sessions, lost servers: what was in flight is settled as the monitor says."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from blake3 import blake3
from double import (
    ADMIN,
    ADMIN_ANSWER,
    CERTIFICATE,
    ERROR,
    GREETING,
    HELLO,
    HELLO_OK,
    RECEIPT,
    REJECTED,
    REQUEST,
    RESUME,
    RESUMED,
    STATUS_ANSWER,
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
    ForbiddenError,
    NotAppliedError,
    OutcomeUnknownError,
    ProtocolError,
    ProvisionalLostError,
    ReceiptError,
    ResultLostError,
    UnknownKeyError,
    _certificates,
    _session,
    connect,
)
from kvstore_client._crypto import signed_by


def client(host: Host, **options: Any) -> Any:
    return connect(host.address, host.monitor.identity.hex(), **{"timeout": 2, "certificate_timeout": 2, **options})


@pytest.fixture
async def kv(host: Host) -> AsyncIterator[KV]:
    async with client(host) as kv:
        yield kv


def drop(wanted: int) -> Any:
    return lambda kind, body: [] if kind == wanted else [(kind, body)]


class Calls:
    """One call of each kind, in flight together; all keys are new but `n` and `old`."""

    def __init__(self, kv: KV) -> None:
        self.put = asyncio.create_task(kv.put(b"put", b"v"))
        self.delete = asyncio.create_task(kv.delete(b"old"))
        self.get = asyncio.create_task(kv.get(b"kept"))
        self.insert = asyncio.create_task(kv.insert(b"insert", b"v"))
        self.swap = asyncio.create_task(kv.compare_and_set(b"swap", None, b"v"))
        self.increment = asyncio.create_task(kv.increment(b"n"))

    def all(self) -> list[asyncio.Task[Any]]:
        return [self.put, self.delete, self.get, self.insert, self.swap, self.increment]


async def prepare(host: Host, kv: KV) -> None:
    await kv.put_many({b"old": b"1", b"kept": b"2"})
    await kv.increment(b"n")
    host.close_epoch()
    await eventually(lambda: kv.epoch == 1)


async def in_flight(host: Host, kv: KV, hook: str, wanted: int) -> Calls:
    """Start the calls, with their requests or receipts lost on the way."""
    seen: list[int] = []

    def lose(kind: int, body: bytes) -> Frames:
        if kind == wanted:
            seen.append(kind)
            return []
        return [(kind, body)]

    setattr(host, hook, lose)
    calls = Calls(kv)
    await eventually(lambda: len(seen) == host.monitor.threads)
    setattr(host, hook, honest)
    return calls


async def test_requests_lost_with_the_connection_are_sent_again(host: Host, kv: KV) -> None:
    await prepare(host, kv)
    calls = await in_flight(host, kv, "to_monitor", REQUEST)
    host.drop_connections()
    await asyncio.gather(*calls.all())
    assert (calls.get.result().value, calls.increment.result().value) == (b"2", 2)
    assert calls.insert.result().applied
    assert calls.swap.result().applied
    assert (await kv.get(b"old")).value is None


async def test_receipts_lost_with_the_connection(host: Host, kv: KV) -> None:
    await prepare(host, kv)
    calls = await in_flight(host, kv, "to_client", RECEIPT)
    host.drop_connections()
    assert (await calls.get).value == b"2"
    for written in (await calls.put, await calls.delete):
        assert written.epoch == 2
        assert not written.is_certified
    for call in (calls.insert, calls.swap, calls.increment):
        with pytest.raises(ResultLostError):
            await call
    values = await kv.get_many([b"put", b"old", b"insert", b"swap", b"n"])
    assert [value.value for value in values] == [b"v", None, b"v", b"v", struct.pack("<q", 2)]
    host.close_epoch()
    await calls.put.result().certified()


async def test_order_is_kept_over_a_reconnect(host: Host, kv: KV) -> None:
    """What is sent again comes before what was called later."""
    host.to_monitor = drop(REQUEST)
    first = [asyncio.create_task(kv.put(b"k", b"%d" % i)) for i in range(5)]
    await asyncio.sleep(0.01)
    host.drop_connections()
    later = asyncio.create_task(kv.put(b"k", b"last"))
    await asyncio.sleep(0)
    host.to_monitor = honest
    await asyncio.gather(*first, later)
    assert (await kv.get(b"k")).value == b"last"


async def test_same_session_in_a_new_generation(host: Host, kv: KV) -> None:
    await kv.put(b"k", b"v")
    sessions = dict(host.monitor.sessions)
    for connections in range(2, 5):
        host.drop_connections()
        await kv.put(b"k", b"v")
        assert host.connections_count == connections
    assert host.monitor.sessions == sessions
    assert set(next(iter(sessions.values())).generation) == {4}


async def test_held_back_request_never_runs_later(host: Host, kv: KV) -> None:
    held: list[bytes] = []
    host.to_monitor = lambda kind, body: held.append(body) or [] if kind == REQUEST else [(kind, body)]
    call = asyncio.create_task(kv.put(b"k", b"v"))
    await eventually(lambda: len(held) == 1)
    host.to_monitor = honest
    host.drop_connections()
    await call
    length = struct.unpack_from("<I", held[0])[0]
    assert host.monitor.request(held[0][4 : 4 + length]) in (3, 4)


async def test_certificates_missed_while_away(host: Host, kv: KV) -> None:
    written = await kv.put(b"k", b"v")
    host.to_client = drop(CERTIFICATE)
    host.close_epoch()
    host.drop_connections()
    host.to_client = honest
    await written.certified()


async def test_resumed_that_is_forged(host: Host, kv: KV) -> None:
    host.to_client = lambda kind, body: [(kind, body[:16] + b"\1" + body[17:])] if kind == RESUMED else [(kind, body)]
    host.drop_connections()
    with pytest.raises(ReceiptError) as caught:
        await kv.get(b"k")
    assert set(caught.value.evidence) == {"resume", "resumed"}


async def test_resumed_of_an_earlier_resume(host: Host, kv: KV) -> None:
    answers: list[bytes] = []
    host.to_client = lambda kind, body: answers.append(body) or [(kind, body)] if kind == RESUMED else [(kind, body)]
    host.drop_connections()
    await kv.get(b"k")
    by_thread = {struct.unpack_from("<H", answer, 12)[0]: answer for answer in answers}
    host.to_client = lambda kind, body: (
        [(kind, by_thread[struct.unpack_from("<H", body, 12)[0]])] if kind == RESUMED else [(kind, body)]
    )
    host.drop_connections()
    with pytest.raises(ReceiptError):
        await kv.get(b"k")


async def test_restart_after_everything_was_certified(host: Host, kv: KV) -> None:
    await prepare(host, kv)
    for threads in (2, 4, 1):
        host.restart(threads)
        assert (await kv.get(b"kept")).value == b"2"
    await kv.put(b"more", b"3")
    assert len(host.monitor.sessions) == 1


async def test_restart_loses_provisional_answers(host: Host, kv: KV) -> None:
    await prepare(host, kv)
    lost = await kv.put(b"kept", b"lost")
    waiting = asyncio.create_task(lost.certified())
    await asyncio.sleep(0)
    host.restart()
    with pytest.raises(ProvisionalLostError, match="epoch 2 ") as caught:
        await waiting
    assert caught.value.epoch == 2
    with pytest.raises(ProvisionalLostError):
        await kv.barrier()
    await kv.barrier()
    assert (await kv.get(b"kept")).value == b"2"
    # The epoch is run again, and certified, by another incarnation: that does not certify the lost answer.
    again = await kv.put(b"kept", b"again")
    assert again.epoch == lost.epoch
    host.close_epoch()
    await again.certified()
    with pytest.raises(ProvisionalLostError):
        await lost.certified()


async def test_restart_and_a_certificate_before_the_client_is_back(host: Host, kv: KV) -> None:
    """The lost epoch's number has been certified by the new incarnation when the client comes back."""
    await prepare(host, kv)
    lost = await kv.put(b"kept", b"lost")
    host.monitor.restart()
    host.monitor.close_epoch()
    host.drop_connections()
    with pytest.raises(ProvisionalLostError):
        await lost.certified()


async def test_restart_behind_an_open_connection(host: Host, kv: KV) -> None:
    """A proxy may keep the client's connection while the server restarts behind it."""
    await prepare(host, kv)
    lost = await kv.put(b"kept", b"lost")
    host.monitor.restart()
    host.close_epoch()
    with pytest.raises(ProvisionalLostError):
        await lost.certified()
    assert (await kv.get(b"kept")).value == b"2"


async def test_restart_with_requests_that_took_effect(host: Host, kv: KV) -> None:
    """Their receipts were lost, but the epoch was certified before the crash: the monitor's answer says so."""
    await prepare(host, kv)
    calls = await in_flight(host, kv, "to_client", RECEIPT)
    host.to_client = drop(CERTIFICATE)
    host.close_epoch()
    host.to_client = honest
    host.restart(4)
    for written in (await calls.put, await calls.delete):
        assert written.is_certified
    assert (await calls.get).value == b"2"
    for call in (calls.insert, calls.swap, calls.increment):
        with pytest.raises(ResultLostError):
            await call
    assert (await kv.get(b"n")).value == struct.pack("<q", 2)


async def test_restart_with_requests_that_did_not(host: Host, kv: KV) -> None:
    """They ran, but were not certified: undone. Nothing answered was lost, so they are sent again, and run once."""
    await prepare(host, kv)
    calls = await in_flight(host, kv, "to_client", RECEIPT)
    host.restart(4)
    await asyncio.gather(*calls.all())
    assert calls.increment.result().value == 2
    assert calls.insert.result().applied
    assert (await kv.get(b"n")).value == struct.pack("<q", 2)


async def test_no_write_called_before_a_loss_is_applied_after_it(host: Host, kv: KV) -> None:
    await prepare(host, kv)
    lost = await kv.put(b"first", b"v")
    calls = await in_flight(host, kv, "to_monitor", REQUEST)
    host.restart()
    assert (await calls.get).value == b"2"
    for call in (calls.put, calls.delete, calls.insert, calls.swap, calls.increment):
        with pytest.raises(NotAppliedError):
            await call
    with pytest.raises(ProvisionalLostError):
        await lost.certified()
    values = await kv.get_many([b"first", b"put", b"insert", b"swap"])
    assert [value.value for value in values] == [None] * 4


async def test_restart_before_the_first_certificate(host: Host, kv: KV) -> None:
    """The monitor does not know the session, because none of its epochs was sealed: so nothing took effect."""
    calls = await in_flight(host, kv, "to_client", RECEIPT)
    host.restart()
    await asyncio.gather(*calls.all())
    assert calls.increment.result().value == 1


async def test_restart_with_an_unknown_session_and_a_possible_epoch(host: Host, kv: KV) -> None:
    """The monitor has forgotten the session, and an epoch was certified that the requests can have run in."""
    await prepare(host, kv)
    calls = await in_flight(host, kv, "to_client", RECEIPT)
    host.to_client = drop(CERTIFICATE)
    host.close_epoch()
    host.to_client = honest
    host.monitor.restart()
    host.monitor.former.clear()
    host.drop_connections()
    assert (await calls.get).value == b"2"
    for call in (calls.put, calls.delete, calls.insert, calls.swap, calls.increment):
        with pytest.raises(OutcomeUnknownError):
            await call


async def test_restart_with_an_unknown_session_and_no_possible_epoch(host: Host, kv: KV) -> None:
    """The monitor has forgotten the session, but certified nothing after the requests were sent."""
    await prepare(host, kv)
    calls = await in_flight(host, kv, "to_client", RECEIPT)
    host.monitor.restart()
    host.monitor.former.clear()
    host.monitor.close_epoch()
    host.drop_connections()
    await asyncio.gather(*calls.all())
    assert calls.increment.result().value == 2


async def test_answer_about_the_former_session_is_lost(host: Host, kv: KV) -> None:
    """It is given once; when the connection breaks again, the chain still tells what it can."""
    await prepare(host, kv)
    calls = await in_flight(host, kv, "to_client", RECEIPT)
    hellos: list[int] = []

    def lose_once(kind: int, body: bytes) -> Frames:
        if kind == HELLO_OK and not hellos:
            hellos.append(kind)
            host.drop_connections()
            return []
        return [(kind, body)]

    host.to_client = lose_once
    host.restart()
    await asyncio.gather(*calls.all())
    assert hellos
    assert calls.increment.result().value == 2


async def test_connection_is_lost_before_an_older_session_was_asked_about(host: Host, kv: KV) -> None:
    """The answer of a session before the former one is lost, and its loss is told however often the connection breaks:
    no write that was called before it is applied."""
    await prepare(host, kv)
    lost = await kv.put(b"first", b"v")
    host.monitor.sessions.clear()
    host.drop_connections()
    await kv.get(b"kept")  # in a session of its own
    held: list[int] = []
    host.to_monitor = lambda kind, body: held.append(kind) or [] if kind == REQUEST else [(kind, body)]
    built_on_it = asyncio.create_task(kv.put(b"second", b"v"))
    await eventually(lambda: len(held) == 1)
    host.to_monitor = honest
    hellos: list[int] = []

    def lose_the_second(kind: int, body: bytes) -> Frames:
        if kind == HELLO_OK:
            hellos.append(kind)
            if len(hellos) == 2:
                host.drop_connections()
                return []
        return [(kind, body)]

    host.to_client = lose_the_second
    host.restart()
    with pytest.raises(NotAppliedError):
        await built_on_it
    with pytest.raises(ProvisionalLostError):
        await lost.certified()
    assert len(hellos) == 3
    assert (await kv.get(b"second")).value is None


async def test_session_that_the_host_closed(host: Host, kv: KV) -> None:
    await prepare(host, kv)
    provisional = await kv.put(b"kept", b"3")
    calls = await in_flight(host, kv, "to_client", RECEIPT)
    host.monitor.sessions.clear()
    host.drop_connections()
    assert (await calls.get).value == b"3"
    for call in (calls.put, calls.delete, calls.insert, calls.swap, calls.increment):
        with pytest.raises(OutcomeUnknownError):
            await call
    host.close_epoch()
    await provisional.certified()


async def test_client_that_was_removed_is_told_so(monitor: Monitor, host: Host) -> None:
    """The monitor resumes its session still, but takes no request."""
    key = ClientKey(seed("removed"))
    monitor.open = False
    monitor.clients[key.public_key] = (2, b"removed")
    async with client(host, key=key) as kv:
        await kv.put(b"k", b"v")
        monitor.clients.clear()

        def without_a_role(kind: int, body: bytes) -> Frames:
            if kind != RECEIPT:
                return [(kind, body)]
            session, _, thread, _, sequence = struct.unpack_from("<QIHHQ", body, 4)
            return [(REJECTED, struct.pack("<QHQB", session, thread, sequence, 1))]

        host.to_client = without_a_role
        with pytest.raises(UnknownKeyError):
            await kv.get(b"k")
        assert host.connections_count == 2


async def test_host_that_rejects_everything(host: Host, kv: KV) -> None:
    """Its word alone: the client tries, and gives up in time."""
    host.to_client = lambda kind, body: (
        [(REJECTED, body[4:12] + body[16:18] + body[20:28] + b"\2")] if kind == RECEIPT else [(kind, body)]
    )
    kv._link._timeout_seconds = 0.3
    async with asyncio.timeout(5):
        with pytest.raises((ConnectionLostError, ResultLostError, OutcomeUnknownError)):
            await kv.increment(b"n")
    assert host.connections_count > 1


async def test_host_that_keeps_receipts(host: Host) -> None:
    """The connection is made again, and the monitor's answer to the resume tells what the receipts would have."""
    async with client(host, timeout=0.2) as kv:
        host.to_client = drop(RECEIPT)
        await kv.put(b"k", b"v")
        with pytest.raises(ResultLostError):
            await kv.increment(b"n")
        with pytest.raises(ConnectionLostError, match="does not answer requests"):
            await kv.get(b"k")
        host.to_client = honest
        host.drop_connections()
        assert (await kv.get(b"n")).value == struct.pack("<q", 1)


@pytest.mark.parametrize("silent", [REQUEST, GREETING, HELLO_OK, RESUMED])
async def test_silent_host(host: Host, silent: int) -> None:
    """A host that does not answer: calls fail after a while, and the client recovers when it does."""
    async with client(host, timeout=0.2) as kv:
        host.to_client = host.to_monitor = drop(silent)
        if silent == HELLO_OK:
            host.restart()
        elif silent != REQUEST:
            host.drop_connections()
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionLostError, match=r"within 0\.2 s"):
                await kv.increment(b"n")
        host.to_client = host.to_monitor = honest
        host.drop_connections()
        # A call that was told that its outcome is unknown is not sent again behind the caller's back.
        assert (await kv.get(b"n")).value is None


async def test_server_that_is_down_and_comes_back(host: Host, kv: KV) -> None:
    await prepare(host, kv)
    await host.stop()
    call = asyncio.create_task(kv.get(b"kept"))
    await asyncio.sleep(0.1)
    await host.listen()
    assert (await call).value == b"2"


async def test_no_server() -> None:
    with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:1: there is no connection"):
        async with connect("127.0.0.1:1", "00" * 32, timeout=0.2):
            pass


async def test_server_that_is_not_ready_yet(host: Host) -> None:
    """`not now` is tried again."""
    refusals: list[int] = []

    def not_now(kind: int, body: bytes) -> Frames:
        if kind == HELLO_OK and len(refusals) < 2:
            refusals.append(kind)
            return [(ERROR, struct.pack("<H", 6) + b"starting")]
        return [(kind, body)]

    host.to_client = not_now
    async with client(host) as kv:
        await kv.put(b"k", b"v")
    assert len(refusals) == 2


async def test_admin_request_over_a_lost_connection(monitor: Monitor, host: Host) -> None:
    admin = ClientKey(seed("admin"))
    monitor.clients[admin.public_key] = (3, b"admin")
    async with client(host, key=admin) as kv:
        host.to_monitor = drop(ADMIN)
        call = asyncio.create_task(kv.clients.list())
        await asyncio.sleep(0.05)
        host.to_monitor = honest
        host.drop_connections()
        assert len(await call) == 1
        host.to_client = drop(ADMIN_ANSWER)
        change = asyncio.create_task(kv.clients.remove(bytes(32)))
        await asyncio.sleep(0.05)
        host.to_client = honest
        host.drop_connections()
        with pytest.raises(OutcomeUnknownError):
            await change
        assert len(await kv.clients.list()) == 1


async def test_status_over_a_lost_connection(host: Host, kv: KV) -> None:
    host.drop_connections()
    assert (await kv.status())["epoch"] == 1


async def test_unverified_server_restarts(monitor: Monitor) -> None:
    async with Host(monitor, unverified=True) as host, connect(host.address, unverified=True, timeout=2) as kv:
        written = await kv.put(b"k", b"v")
        host.to_client = drop(RECEIPT)
        get, put = asyncio.create_task(kv.get(b"k")), asyncio.create_task(kv.put(b"k", b"w"))
        await asyncio.sleep(0.05)
        host.to_client = honest
        host.drop_connections()
        assert (await get).value == b"w"
        with pytest.raises(OutcomeUnknownError):
            await put
        with pytest.raises(OutcomeUnknownError):
            await written.certified()


async def test_certificates_withheld_while_catching_up(host: Host, kv: KV) -> None:
    """After a restart the chain up to the new head is asked for before anything is settled."""
    await prepare(host, kv)
    kv._link._timeout_seconds = 0.2
    host.monitor.restart()
    host.monitor.close_epoch()
    host.to_client = drop(CERTIFICATE)
    host.drop_connections()
    with pytest.raises(ConnectionLostError, match="withholds certificates"):
        await kv.get(b"kept")
    host.to_client = honest
    host.drop_connections()
    assert (await kv.get(b"kept")).value == b"2"


async def test_server_hello_with_a_former_session_of_another_shape(host: Host, kv: KV) -> None:
    await prepare(host, kv)
    host.monitor.restart()
    number, (incarnation, key, lasts) = next(iter(host.monitor.former.items()))
    host.monitor.former[number] = (incarnation, key, lasts * 2)
    host.drop_connections()
    with pytest.raises(ProtocolError, match="threads"):
        await kv.get(b"k")


async def test_resume_is_sent_to_every_thread(host: Host, kv: KV) -> None:
    seen: list[int] = []
    host.to_monitor = lambda kind, body: seen.append(kind) or [(kind, body)]
    host.drop_connections()
    await kv.get(b"k")
    assert seen[: host.monitor.threads] == [RESUME] * host.monitor.threads
    assert HELLO not in seen


async def test_answer_at_a_resume_that_was_certified_before_a_crash(host: Host, kv: KV) -> None:
    """The put ran in epoch 2, which was certified; the resume, in epoch 3, only tells that it ran by then. The next
    incarnation tells that it took effect."""
    await prepare(host, kv)
    host.to_client = drop(RECEIPT)
    put = asyncio.create_task(kv.put(b"k", b"v"))
    await eventually(lambda: len(host.monitor.store) == 4)
    host.to_client = drop(CERTIFICATE)
    host.close_epoch()
    host.to_client = honest
    host.drop_connections()
    written = await put
    assert written.epoch == 3
    host.restart()
    await written.certified()
    assert (await kv.get(b"k")).value == b"v"


async def test_answer_at_a_resume_that_is_lost(host: Host, kv: KV) -> None:
    await prepare(host, kv)
    host.to_client = drop(RECEIPT)
    put = asyncio.create_task(kv.put(b"k", b"v"))
    await eventually(lambda: len(host.monitor.store) == 4)
    host.to_client = honest
    host.drop_connections()
    written = await put
    host.restart()
    with pytest.raises(ProvisionalLostError):
        await written.certified()
    assert (await kv.get(b"k")).value is None


async def test_resume_without_answers_loses_none(host: Host, kv: KV) -> None:
    """Nothing was answered in epoch 2, so nothing is lost with it: writes that wait are sent again."""
    await prepare(host, kv)
    host.drop_connections()
    await eventually(lambda: host.connections_count == 2 and kv._session.phase.name == "READY")
    calls = await in_flight(host, kv, "to_monitor", REQUEST)
    host.restart()
    await asyncio.gather(*calls.all())
    await kv._link.ready()
    host.close_epoch()
    await kv.barrier()


async def test_host_that_never_answers_on_one_thread(host: Host) -> None:
    """What waits there fails in time, though others are answered all the while."""
    async with client(host, timeout=0.3) as kv:
        keys: dict[int, bytes] = {}
        for i in range(100):
            key = b"%d" % i
            keys.setdefault(blake3(key).digest()[0] * 2 >> 8, key)
        host.to_monitor = lambda kind, body: (
            [] if kind == REQUEST and struct.unpack_from("<H", body, 16)[0] == 1 else [(kind, body)]
        )
        stuck = asyncio.create_task(kv.put(keys[1], b"v"))
        async with asyncio.timeout(5):
            while not stuck.done():
                await kv.get(keys[0])
                await asyncio.sleep(0.01)
        with pytest.raises(ConnectionLostError):
            await stuck


def new_sessions_only(kind: int, body: bytes) -> Frames:
    """A lie: no resume is accepted, and no request answered."""
    if kind == RESUMED:
        return [(REJECTED, body[:8] + body[12:14] + bytes(8) + b"\1")]
    return [] if kind == RECEIPT else [(kind, body)]


async def test_host_that_gives_new_sessions_in_place_of_answers(host: Host) -> None:
    """A new session is no answer: what waits fails in time."""
    async with client(host, timeout=0.2) as kv:
        host.to_client = new_sessions_only
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionLostError):
                await kv.get(b"k")
        assert len(host.monitor.sessions) > 1


async def test_host_that_certifies_and_restarts_in_place_of_answers(host: Host) -> None:
    """Certificates that are followed on the way to one session after the other are no answer either."""
    async with client(host, timeout=0.3) as kv:
        host.to_client = new_sessions_only
        get = asyncio.create_task(kv.get(b"k"))
        async with asyncio.timeout(5):
            while not get.done():
                host.monitor.close_epoch()
                host.drop_connections()
                await asyncio.sleep(0.1)
            with pytest.raises(ConnectionLostError):
                await get
        assert kv.epoch > 3


async def test_dead_connection_is_made_again_though_all_callers_give_up(host: Host) -> None:
    async with client(host, timeout=0.2) as kv:
        host.to_client = drop(RECEIPT)
        async with asyncio.timeout(5):
            while host.connections_count == 1:
                with suppress(TimeoutError):
                    await asyncio.wait_for(kv.get(b"k"), 0.02)
        host.to_client = honest
        host.drop_connections()
        assert (await kv.get(b"k")).value is None


@pytest.mark.parametrize("silent", [GREETING, HELLO_OK, RESUMED, RECEIPT])
async def test_silent_connection_is_made_again(host: Host, silent: int) -> None:
    """A connection that has gone dead, in whatever phase, does not stay in the way of the next call."""
    async with client(host, timeout=0.2) as kv:
        host.to_client = drop(silent)
        if silent == HELLO_OK:
            host.monitor.restart()
        host.drop_connections()
        with pytest.raises(ConnectionLostError):
            await kv.get(b"k")
        host.to_client = honest
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await kv.get(b"k")).value is None
                    break
                except ConnectionLostError:
                    continue


async def test_answers_that_come_too_late(monitor: Monitor, host: Host) -> None:
    """A slow host is not taken for a liar: late answers to calls that have failed do no harm."""
    admin = ClientKey(seed("admin"))
    monitor.clients[admin.public_key] = (3, b"admin")
    held: Frames = []

    def hold(kind: int, body: bytes) -> Frames:
        if kind in (RECEIPT, ADMIN_ANSWER, STATUS_ANSWER):
            held.append((kind, body))
            return []
        return [(kind, body)]

    async with client(host, key=admin, timeout=0.3) as kv:
        host.to_client = hold
        calls = [asyncio.create_task(call) for call in (kv.get(b"k"), kv.clients.list(), kv.status())]
        for call in calls:
            with pytest.raises(ConnectionLostError):
                await call
        host.to_client = honest
        for frame in held:
            host.push(*frame)
        await kv._link.ready()
        assert len(await kv.clients.list()) == 1
        assert (await kv.status())["epoch"] == 1
        assert (await kv.get(b"k")).value is None


async def test_cancelled_admin_request(monitor: Monitor, host: Host) -> None:
    """The next one waits for its turn, and the cancelled one is not sent again."""
    admin = ClientKey(seed("admin"))
    monitor.clients[admin.public_key] = (3, b"admin")
    async with client(host, key=admin) as kv:
        host.to_client = drop(ADMIN_ANSWER)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await kv.clients.list()
        listing = asyncio.create_task(kv.clients.list())
        await asyncio.sleep(0.05)
        host.to_client = honest
        host.drop_connections()
        assert len(await listing) == 1
        # Never arrived, and given up: its number is used for something harmless.
        host.to_monitor = drop(ADMIN)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await kv.clients.remove(admin.public_key)
        host.to_monitor = honest
        host.drop_connections()
        assert len(await kv.clients.list()) == 1
        assert len(await kv.clients.list()) == 1


async def test_admin_request_that_was_not_sent_survives_a_restart(monitor: Monitor, host: Host) -> None:
    admin = ClientKey(seed("admin"))
    monitor.clients[admin.public_key] = (3, b"admin")
    async with client(host, key=admin) as kv:
        host.to_client = drop(ADMIN_ANSWER)
        first = asyncio.create_task(kv.clients.remove(bytes(32)))
        second = asyncio.create_task(kv.clients.list())
        await asyncio.sleep(0.05)
        host.to_client = honest
        host.restart()
        with pytest.raises(OutcomeUnknownError):
            await first
        assert len(await second) == 1


async def test_call_that_is_cancelled_while_it_waits_is_never_sent(host: Host, kv: KV) -> None:
    await host.stop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await kv.put(b"k", b"v")
    await host.listen()
    assert (await kv.get(b"k")).value is None
    assert len(host.requests) == 1


async def test_certificate_that_overtakes_a_hello(host: Host, kv: KV) -> None:
    """An honest service may certify an epoch between the monitor's hello and its arrival."""
    await prepare(host, kv)

    def overtake(kind: int, body: bytes) -> Frames:
        if kind == HELLO_OK:
            return [(CERTIFICATE, host.monitor.close_epoch()), (kind, body)]
        return [(kind, body)]

    host.to_client = overtake
    host.restart()
    assert (await kv.get(b"kept")).value == b"2"
    assert kv.epoch == 2


async def test_loss_while_a_barrier_waits_is_reported_once(host: Host, kv: KV) -> None:
    await prepare(host, kv)
    await kv.put(b"k", b"v")
    barrier = asyncio.create_task(kv.barrier())
    await asyncio.sleep(0)
    host.restart()
    with pytest.raises(ProvisionalLostError):
        await barrier
    await kv.barrier()


async def test_long_absence(host: Host, kv: KV, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates are asked for by the page, and the last signature of each vouches for the page."""
    monkeypatch.setattr(_session, "CERTIFICATES_MAX", 16)
    checked: list[bytes] = []

    def counted(*arguments: bytes) -> bool:
        checked.append(arguments[1])
        return signed_by(*arguments)

    monkeypatch.setattr(_certificates, "signed_by", counted)
    await prepare(host, kv)
    host.monitor.restart()
    for _ in range(40):
        host.monitor.close_epoch()
    checked.clear()
    host.drop_connections()
    assert (await kv.get(b"kept")).value == b"2"
    assert kv.epoch == 41
    assert len(checked) == 3
    assert kv._session.chain is not None
    assert kv._session.chain.mountains is not None


async def test_slow_catching_up_is_waited_for(host: Host, kv: KV, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as pages of certificates come, no call gives up."""
    monkeypatch.setattr(_session, "CERTIFICATES_MAX", 1)
    await prepare(host, kv)
    kv._link._timeout_seconds = 0.4
    host.monitor.restart()
    for _ in range(6):
        host.monitor.close_epoch()
    pages: list[bytes] = []

    def slowly(kind: int, body: bytes) -> Frames:
        if kind == CERTIFICATE:
            pages.append(body)
            asyncio.get_running_loop().call_later(0.15, host_push, body)
            return []
        return [(kind, body)]

    def host_push(body: bytes) -> None:
        to_client, host.to_client = host.to_client, honest
        host.push(CERTIFICATE, body)
        host.to_client = to_client

    host.to_client = slowly
    host.drop_connections()
    status = asyncio.create_task(kv.clients.list())
    assert (await kv.get(b"kept")).value == b"2"
    assert len(pages) == 6
    with pytest.raises(ForbiddenError):
        await status
