"""Honest use: every call, types and limits, coalescing, certification, roles, administration, the blocking client."""

from __future__ import annotations

import asyncio
import struct
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from double import RECEIPT, STATUS_ANSWER, Frames, Host, Monitor, eventually, seed
from kvstore_client import (
    KV,
    AuthorizedClient,
    CertificateTimeoutError,
    ClientKey,
    ConnectionLostError,
    ForbiddenError,
    IdentityError,
    KeyRequiredError,
    NotANumberError,
    NumberOverflowError,
    ProtocolError,
    RefusedError,
    Role,
    SyncKV,
    TooLongError,
    UnknownKeyError,
    connect,
    connect_sync,
)
from kvstore_client._lane import IN_FLIGHT_MAX, OPERATIONS_MAX


def client(host: Host, **options: Any) -> Any:
    return connect(host.address, host.monitor.identity.hex(), **{"timeout": 5, **options})


def op_counts(host: Host) -> list[int]:
    return [struct.unpack_from("<H", request, 14)[0] for request in host.requests]


async def listing(kv: KV) -> list[bytes]:
    found: list[bytes] = []
    async for key in kv.keys():
        found.append(key)  # noqa: PERF401 - the comprehension reads as one of a dict
    return found


async def test_every_operation(host: Host) -> None:
    async with client(host) as kv:
        assert (await kv.get(b"a")).value is None
        await kv.put(b"a", b"")
        assert (await kv.get(b"a")).value == b""
        assert not (await kv.insert(b"a", b"x")).applied
        assert (await kv.insert(b"b", b"x" * 33)).applied
        assert (await kv.get(b"b")).value == b"x" * 33
        missed = await kv.compare_and_set(b"b", b"y", b"z")
        assert (missed.applied, missed.value) == (False, b"x" * 33)
        assert (await kv.compare_and_set(b"b", b"x" * 33, None)).applied
        assert (await kv.get(b"b")).value is None
        assert (await kv.compare_and_set(b"b", None, b"new")).applied
        await kv.delete(b"b")
        assert (await kv.get(b"b")).value is None
        assert (await kv.increment(b"n")).value == 1
        assert (await kv.increment(b"n", -3)).value == -2
        with pytest.raises(NumberOverflowError):
            await kv.increment(b"n", -(1 << 63))
        await kv.put(b"text", b"text")
        with pytest.raises(NotANumberError):
            await kv.increment(b"text")
        with pytest.raises(NumberOverflowError):
            await kv.increment(b"n", 1 << 63)


async def test_receipts_are_certified_by_their_epoch(host: Host) -> None:
    async with client(host) as kv:
        written = await kv.put(b"k", b"v")
        assert not written.is_certified
        assert (written.epoch, written.ts >> 32) == (1, 1)
        waiting = asyncio.create_task(written.certified())
        await asyncio.sleep(0)
        host.close_epoch()
        await waiting
        assert written.is_certified
        assert kv.epoch == 1
        certified = asyncio.create_task(kv.get(b"k", certified=True))
        await eventually(lambda: len(host.requests) == 2)
        host.close_epoch()
        assert (await certified).is_certified


async def test_settled_outcomes_are_dropped(host: Host) -> None:
    async with client(host) as kv:
        for epoch in range(1, 20):
            await kv.put(b"k", b"v")
            host.close_epoch()
            await eventually(lambda epoch=epoch: kv.epoch == epoch)
        assert kv._session.outcomes.open() == []


async def test_receipt_after_its_certificate(host: Host) -> None:
    """A certificate may overtake a receipt of its epoch."""
    held: Frames = []

    def hold(kind: int, body: bytes) -> Frames:
        if kind == RECEIPT:
            held.append((kind, body))
            return []
        return [(kind, body)]

    async with client(host) as kv:
        host.to_client = hold
        call = asyncio.create_task(kv.put(b"k", b"v"))
        await eventually(lambda: len(held) == 1)
        host.close_epoch()
        await eventually(lambda: kv.epoch == 1)
        host.to_client = lambda kind, body: [(kind, body)]
        host.push(*held[0])
        assert (await call).is_certified


async def test_withheld_certificate(host: Host) -> None:
    async with client(host, certificate_timeout=0.05) as kv:
        written = await kv.put(b"k", b"v")
        with pytest.raises(CertificateTimeoutError, match="epoch 1 ") as caught:
            await written.certified()
        assert caught.value.epoch == 1
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(CertificateTimeoutError):
            await kv.barrier()
        host.close_epoch()
        await written.certified(timeout=5)


async def test_barrier(host: Host) -> None:
    async with client(host) as kv:
        await kv.barrier()
        answers = await kv.put_many({b"%d" % i: b"v" for i in range(10)})
        waiting = asyncio.create_task(kv.barrier())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        host.close_epoch()
        await waiting
        assert all(answer.is_certified for answer in answers)


async def test_concurrent_calls_share_requests(host: Host) -> None:
    async with client(host) as kv:
        await asyncio.gather(*(kv.put(b"%d" % i, b"v%d" % i) for i in range(64)))
        assert len(host.requests) == host.monitor.threads
        values = await asyncio.gather(*(kv.get(b"%d" % i) for i in range(64)))
        assert [value.value for value in values] == [b"v%d" % i for i in range(64)]
        assert len(host.requests) == 2 * host.monitor.threads
        assert sum(op_counts(host)) == 128


async def test_many_are_split_within_limits(host: Host) -> None:
    count = 3 * OPERATIONS_MAX * 2
    async with client(host) as kv:
        await kv.put_many((b"%d" % i, b"%d" % i * 10) for i in range(count))
        values = await kv.get_many([b"%d" % i for i in range(count)])
        assert [value.value for value in values] == [b"%d" % i * 10 for i in range(count)]
        assert max(op_counts(host)) == OPERATIONS_MAX
        assert await kv.get_many([]) == []


async def test_requests_in_flight_are_bounded(host: Host) -> None:
    async with client(host, timeout=1) as kv:
        host.to_client = lambda kind, body: [] if kind == RECEIPT else [(kind, body)]
        call = asyncio.create_task(kv.get_many([b"%d" % i for i in range(OPERATIONS_MAX * 40)]))
        await eventually(lambda: len(host.requests) == 2 * IN_FLIGHT_MAX)
        await asyncio.sleep(0.05)
        assert len(host.requests) == 2 * IN_FLIGHT_MAX
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def test_long_values_are_split_over_frames_and_fetched_alone(host: Host) -> None:
    host.frame_max = 100_000
    values = {b"%d" % i: bytes([i]) * 30_000 for i in range(8)}
    async with client(host) as kv:
        await kv.put_many(values)
        assert max(op_counts(host)) == 1
        host.requests.clear()
        got = await kv.get_many(values)
        assert [value.value for value in got] == list(values.values())
        # What did not fit into the first answers came alone.
        assert 1 in op_counts(host)
        assert max(op_counts(host)) > 1


async def test_mismatch_whose_value_does_not_fit(host: Host) -> None:
    host.frame_max = 100_000
    keys = [b"%d" % i for i in range(64)]
    async with client(host) as kv:
        await kv.put_many((key, key * 10_000) for key in keys)
        missed = await asyncio.gather(*(kv.compare_and_set(key, b"", b"") for key in keys))
        assert not any(attempt.applied for attempt in missed)
        assert any(attempt.value_left_out and attempt.value is None for attempt in missed)
        for attempt, key in zip(missed, keys, strict=True):
            assert attempt.value == (None if attempt.value_left_out else key * 10_000)


@pytest.mark.parametrize("wrong", ["text", bytearray(b"k"), memoryview(b"k"), None, 1])
async def test_only_bytes(host: Host, wrong: Any) -> None:
    async with client(host) as kv:
        with pytest.raises(TypeError, match="bytes, not"):
            await kv.get(wrong)
        with pytest.raises(TypeError, match="bytes, not"):
            await kv.put(b"k", wrong)
        with pytest.raises(TypeError, match="bytes, not"):
            await kv.put_many([(b"k", b"v"), (wrong, b"v")])
        assert host.requests == []


async def test_too_long(host: Host) -> None:
    async with client(host) as kv:
        with pytest.raises(TooLongError, match="4096"):
            await kv.get(b"k" * 4097)
        with pytest.raises(TooLongError, match="1048576"):
            await kv.put(b"k", bytes((1 << 20) + 1))
        await kv.put(b"k" * 4096, bytes(1 << 20))
        assert (await kv.get(b"k" * 4096)).value == bytes(1 << 20)


async def test_status_and_keys(host: Host) -> None:
    keys = {b"key %d" % i for i in range(2500)}
    async with client(host) as kv:
        assert await kv.status() == {"epoch": 1}
        assert await listing(kv) == []
        await kv.put_many((key, b"v") for key in keys)
        listed = await listing(kv)
        assert set(listed) == keys
        assert len(listed) == len(keys)


async def test_after_ts_spans_threads(host: Host) -> None:
    """A request to one thread names the latest time that a receipt of another one gave."""
    async with client(host) as kv:
        highest = 0
        for i in range(20):
            written = await kv.put(b"%d" % i, b"v")
            assert struct.unpack_from("<Q", host.requests[-1], 24)[0] == highest
            highest = max(highest, written.ts)


async def test_administration(monitor: Monitor, host: Host) -> None:
    admin, friend = ClientKey(seed("admin")), ClientKey(seed("friend"))
    monitor.open = False
    monitor.clients[admin.public_key] = (3, b"admin")
    with pytest.raises(KeyRequiredError) as caught:
        async with client(host):
            pass
    assert caught.value.code == 4
    with pytest.raises(UnknownKeyError):
        async with client(host, key=friend):
            pass
    async with client(host, key=admin) as kv:
        assert kv.role is Role.ADMIN
        added = await kv.clients.add("friend", friend.public_key, Role.READ)
        host.close_epoch()
        await added.certified()
        with pytest.raises(RefusedError, match="already"):
            await kv.clients.add("friend", friend.public_key, Role.READ)
        assert AuthorizedClient(Role.READ, friend.public_key, "friend") in await kv.clients.list()
        await kv.put(b"k", b"v")
        async with client(host, key=friend) as reader:
            assert (await reader.get(b"k")).value == b"v"
            with pytest.raises(ForbiddenError):
                await reader.put(b"k", b"w")
            with pytest.raises(ForbiddenError):
                await reader.clients.list()
        await kv.clients.remove(friend.public_key)
        assert len(await kv.clients.list()) == 1
        with pytest.raises(ValueError, match="64"):
            await kv.clients.add("x" * 65, friend.public_key, Role.READ)


async def test_role_that_was_taken_away(monitor: Monitor, host: Host) -> None:
    async with client(host) as kv:
        monitor.sessions[max(monitor.sessions)].role = 1
        with pytest.raises(ForbiddenError):
            await kv.put(b"k", b"v")


async def test_unverified_server(monitor: Monitor) -> None:
    async with Host(monitor, unverified=True) as host:
        with pytest.raises(IdentityError, match="unverified=True"):
            async with client(host):
                pass
        async with connect(host.address, unverified=True) as kv:
            written = await kv.put(b"k", b"v" * 100)
            assert (await kv.get(b"k")).value == b"v" * 100
            assert not written.is_certified
            host.close_epoch()
            await written.certified(timeout=5)
            with pytest.raises(RefusedError):
                await kv.clients.list()


async def test_unverified_client_of_a_verified_server(host: Host) -> None:
    with pytest.raises(ProtocolError, match="without unverified"):
        async with connect(host.address, unverified=True):
            pass


async def test_wrong_fingerprint(host: Host) -> None:
    with pytest.raises(IdentityError) as caught:
        async with connect(host.address, Monitor(name="other").identity.hex()):
            pass
    assert set(caught.value.evidence) == {"client_hello", "server_hello"}


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:", ":1", "127.0.0.1:0", "127.0.0.1:99999", "h:x"])
async def test_bad_address(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        async with connect(address, "00" * 32):
            pass


@pytest.mark.parametrize("fingerprint", ["", "zz" * 32, "00" * 31, "00 " * 32])
async def test_bad_fingerprint(fingerprint: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        async with connect("127.0.0.1:1", fingerprint):
            pass


async def test_calls_after_close(host: Host) -> None:
    async with client(host) as kv:
        written = await kv.put(b"k", b"v")
    with pytest.raises(ConnectionLostError, match="closed"):
        await kv.get(b"k")
    with pytest.raises(ConnectionLostError, match="closed"):
        await written.certified()


async def test_cancelled_call_harms_nobody(host: Host) -> None:
    async with client(host) as kv:
        call = asyncio.create_task(kv.put(b"k", b"v"))
        other = asyncio.create_task(kv.put(b"l", b"w"))
        await asyncio.sleep(0)
        call.cancel()
        await other
        assert (await kv.get(b"l")).value == b"w"
        assert call.cancelled()


def _use_blocking(address: str, fingerprint: str, admin: ClientKey) -> None:
    with connect_sync(address, fingerprint, key=admin, certificate_timeout=5) as kv:
        kv.put(b"a", b"1")
        assert kv.get(b"a").value == b"1"
        assert kv.insert(b"b", b"2").applied
        assert not kv.compare_and_set(b"b", b"x", b"y").applied
        assert kv.increment(b"n", 5).value == 5
        kv.put_many({b"c": b"3", b"d": b"4"})
        assert [value.value for value in kv.get_many([b"c", b"d"])] == [b"3", b"4"]
        answer = kv.delete(b"c")
        assert sorted(kv.keys()) == [b"a", b"b", b"c", b"d", b"n"]
        assert kv.status()["epoch"] >= 1
        kv.clients.add("friend", bytes(32), kv.role)
        assert len(kv.clients.list()) == 2
        kv.clients.remove(bytes(32))
        kv.wait_certified(answer)
        kv.barrier()
        assert kv.epoch >= 1
        with pytest.raises(NotANumberError):
            kv.increment(b"a")


async def test_blocking_client(monitor: Monitor, host: Host) -> None:
    admin = ClientKey(seed("admin"))
    monitor.clients[admin.public_key] = (3, b"admin")

    async def close_epochs() -> None:
        while True:
            await asyncio.sleep(0.05)
            host.close_epoch()

    closing = asyncio.create_task(close_epochs())
    await asyncio.to_thread(_use_blocking, host.address, monitor.identity.hex(), admin)
    closing.cancel()


async def test_certified_error(host: Host) -> None:
    """That a value is no number is an answer, too: with `certified=True` it is raised when it is certified."""
    async with client(host, certificate_timeout=0.2) as kv:
        await kv.put(b"text", b"x")
        with pytest.raises(NotANumberError) as caught:
            await kv.increment(b"text")
        assert caught.value.receipt is not None
        assert caught.value.receipt.state == (False, None)
        with pytest.raises(CertificateTimeoutError):
            await kv.increment(b"text", certified=True)
        waiting = asyncio.create_task(kv.increment(b"text", certified=True))
        await asyncio.sleep(0.05)
        host.close_epoch()
        with pytest.raises(NotANumberError):
            await waiting


async def test_answers_are_neither_true_nor_false(host: Host) -> None:
    """`if await kv.insert(...)` looks like a test of whether it applied."""
    async with client(host) as kv:
        for answer in (await kv.insert(b"k", b"v"), await kv.get(b"none")):
            with pytest.raises(TypeError, match="look at its fields"):
                bool(answer)


@pytest.mark.parametrize("delta", [1.5, "1", None])
async def test_only_integers(host: Host, delta: Any) -> None:
    async with client(host) as kv:
        with pytest.raises(TypeError, match="int"):
            await kv.increment(b"n", delta)


async def test_status_that_is_nested_without_end(host: Host) -> None:
    async with client(host) as kv:
        host.to_client = lambda kind, body: [(kind, b"[" * 100_000 if kind == STATUS_ANSWER else body)]
        with pytest.raises(ProtocolError, match="status"):
            await kv.status()


async def test_name_that_is_no_host(monitor: Monitor) -> None:
    """The error says what is wrong, not only that something is."""
    with pytest.raises(ConnectionLostError, match="label"):
        async with connect("a" * 70 + ":1", monitor.identity.hex(), timeout=0.2):
            pass


async def test_blocking_client_that_is_closed_under_a_waiting_thread(host: Host) -> None:
    host.to_client = lambda kind, body: [] if kind == RECEIPT else [(kind, body)]

    def use() -> SyncKV:
        with ThreadPoolExecutor(1) as pool:
            with connect_sync(host.address, host.monitor.identity.hex(), timeout=30) as kv:
                waiting = pool.submit(kv.get, b"k")
                while not host.requests:
                    time.sleep(0.01)
            with pytest.raises(ConnectionLostError, match="closed"):
                waiting.result(5)
        return kv

    kv = await asyncio.to_thread(use)
    with pytest.raises(ConnectionLostError, match="closed"):
        kv.get(b"k")


async def test_interrupted_call_of_the_blocking_client(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a call waits for a connection: it is not sent later."""

    def use() -> None:
        with connect_sync(host.address, host.monitor.identity.hex(), timeout=5) as kv:
            asyncio.run_coroutine_threadsafe(host.stop(), loop).result()
            result = Future.result

            def interrupted(future: Future[Any], timeout: float | None = None) -> Any:
                monkeypatch.setattr(Future, "result", result)
                time.sleep(0.05)
                raise KeyboardInterrupt

            monkeypatch.setattr(Future, "result", interrupted)
            with pytest.raises(KeyboardInterrupt):
                kv.put(b"k", b"v")
            asyncio.run_coroutine_threadsafe(host.listen(), loop).result()
            assert kv.get(b"k").value is None

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(use)
    assert len(host.requests) == 1


def test_blocking_client_without_a_server() -> None:
    with pytest.raises(ConnectionLostError), connect_sync("127.0.0.1:1", "00" * 32, timeout=0.2):
        pass


def test_other_event_loop(monitor: Monitor) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def run() -> None:
        async with Host(monitor) as host, client(host) as kv:
            await kv.put_many((b"%d" % i, b"v" * 1000) for i in range(2000))
            assert len(await kv.get_many([b"%d" % i for i in range(2000)])) == 2000
            host.drop_connections()
            assert (await kv.get(b"1")).value == b"v" * 1000

    uvloop.run(run())
