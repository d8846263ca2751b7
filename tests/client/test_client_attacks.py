"""What a lying host looks like to the client: each lie is a final error that carries the evidence."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import reference as ref
from double import (
    ADMIN_ANSWER,
    CERTIFICATE,
    CHECKPOINT,
    ERROR,
    HELLO_OK,
    RECEIPT,
    REQUEST,
    STATUS_ANSWER,
    VIOLATION,
    Frames,
    Host,
    Monitor,
    eventually,
    honest,
    seed,
)
from kvstore_client import (
    KV,
    CertificateError,
    CertificateTimeoutError,
    ClientKey,
    ConnectionLostError,
    ForkError,
    IdentityError,
    IntegrityError,
    KVStoreError,
    ProtocolError,
    ReceiptError,
    RefusedError,
    RollbackError,
    ValueMismatchError,
    ViolationError,
    connect,
)


def client(host: Host, **options: Any) -> Any:
    return connect(host.address, host.monitor.identity.hex(), **{"timeout": 2, "certificate_timeout": 2, **options})


@pytest.fixture
async def kv(host: Host) -> AsyncIterator[KV]:
    async with client(host) as kv:
        yield kv


async def failed(kv: KV, error: type[KVStoreError]) -> KVStoreError:
    """The final error, which later calls raise as well."""
    await eventually(lambda: kv._session.failure is not None)
    with pytest.raises(error) as caught:
        await kv.get(b"k")
    with pytest.raises(error):
        await kv.status()
    with pytest.raises(error):
        await kv.barrier()
    return caught.value


def flip(data: bytes, position: int) -> bytes:
    position %= len(data)
    return data[:position] + bytes((data[position] ^ 1,)) + data[position + 1 :]


def on(wanted: int, change: Any) -> Any:
    """A hook that changes frames of one type."""

    def hook(kind: int, body: bytes) -> Frames:
        return [(kind, change(body))] if kind == wanted else [(kind, body)]

    return hook


class Holding:
    """A hook that holds frames of one type back."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.held: list[bytes] = []

    def __call__(self, kind: int, body: bytes) -> Frames:
        if kind == self.kind:
            self.held.append(body)
            return []
        return [(kind, body)]


@pytest.mark.parametrize("position", [-1, 4 + 16, 4 + 33], ids=["mac", "sequence", "result"])
async def test_changed_receipt(host: Host, kv: KV, position: int) -> None:
    host.to_client = on(RECEIPT, lambda body: flip(body, position))
    with pytest.raises(ReceiptError) as caught:
        await kv.put(b"k", b"v")
    assert caught.value.evidence["request"] == host.requests[0]
    assert len(caught.value.evidence["receipt"]) == 33 + 1 + 16
    assert await failed(kv, ReceiptError) is caught.value


async def test_pending_answers_fail_too(host: Host, kv: KV) -> None:
    written = await kv.put(b"k", b"v")
    host.to_client = on(RECEIPT, lambda body: flip(body, -1))
    others = [asyncio.create_task(kv.get(b"%d" % i)) for i in range(10)]
    results = await asyncio.gather(*others, return_exceptions=True)
    assert all(isinstance(result, ReceiptError) for result in results)
    with pytest.raises(ReceiptError):
        await written.certified()
    host.to_client = honest
    await failed(kv, ReceiptError)


async def test_integrity_errors_are_not_retried(host: Host, kv: KV) -> None:
    host.to_client = on(RECEIPT, lambda body: flip(body, -1))
    with pytest.raises(ReceiptError):
        await kv.put(b"k", b"v")
    await asyncio.sleep(0.3)
    assert (host.connections_count, len(host.requests)) == (1, 1)


async def test_wrong_value(host: Host, kv: KV) -> None:
    await kv.put(b"k", b"v" * 100)
    host.values = dict.fromkeys(host.values, b"w" * 100)
    with pytest.raises(ValueMismatchError) as caught:
        await kv.get(b"k")
    assert set(caught.value.evidence) == {"request", "receipt", "key", "value"}
    assert caught.value.evidence["value"] == b"w" * 100
    assert b"w" * 100 not in str(caught.value).encode()
    await failed(kv, ValueMismatchError)


async def test_nothing_of_a_bad_receipt_is_delivered(host: Host, kv: KV) -> None:
    keys = [b"%d" % i for i in range(20)]
    await kv.put_many((key, key * 40) for key in keys)
    host.values[max(host.values)] = b"other" * 20
    results = await asyncio.gather(*(kv.get(key) for key in keys), return_exceptions=True)
    same_thread = [result for result in results if isinstance(result, ValueMismatchError)]
    assert same_thread
    wrong = same_thread[0].evidence["key"]
    # The bad value's request has its lane's other operations in it: none of those may have an answer.
    thread = ref.blake3(wrong).digest()[0] >> 7
    for key, result in zip(keys, results, strict=True):
        if ref.blake3(key).digest()[0] >> 7 == thread:
            assert isinstance(result, ValueMismatchError)


async def test_shorter_value(host: Host, kv: KV) -> None:
    await kv.put(b"k", b"v" * 100)
    host.to_client = on(RECEIPT, lambda body: body[:-1])
    with pytest.raises(ValueMismatchError):
        await kv.get(b"k")


async def test_longer_payload(host: Host, kv: KV) -> None:
    host.to_client = on(RECEIPT, lambda body: body + b"\0")
    with pytest.raises(ProtocolError):
        await kv.get(b"k")


async def test_get_answered_for_another_key(host: Host, kv: KV) -> None:
    """The host lets the monitor run a get of another key: it cannot, the client's MAC covers the key."""
    kv._link._timeout_seconds = 0.2
    await kv.put(b"other", b"secret")
    rejected: list[bytes] = []

    def other_key(kind: int, body: bytes) -> Frames:
        if kind != REQUEST:
            return [(kind, body)]
        rejected.append(body)
        answer = host.monitor.request(body[4:36] + b"\x01" + ref.blake3(b"other").digest() + body[69:85])
        assert answer == 2, "the monitor would run it"
        return []

    host.to_monitor = other_key
    with pytest.raises(ConnectionLostError):
        await kv.get(b"k")
    assert rejected


async def test_receipts_swapped_between_requests(host: Host, kv: KV) -> None:
    await kv.put(b"a", b"1")
    hold = Holding(RECEIPT)
    host.to_client = hold
    first = asyncio.create_task(kv.get(b"a"))
    await eventually(lambda: len(hold.held) == 1)
    second = asyncio.create_task(kv.get(b"a"))
    await eventually(lambda: len(hold.held) == 2)
    host.to_client = honest
    host.push(RECEIPT, hold.held[1])
    host.push(RECEIPT, hold.held[0])
    for call in (first, second):
        with pytest.raises(ReceiptError, match="reordered"):
            await call


async def test_receipt_under_another_requests_number(host: Host, kv: KV) -> None:
    """The numbers are made to fit; the MAC does not."""
    seen: list[bytes] = []

    def repeat(body: bytes) -> bytes:
        seen.append(body)
        return body if len(seen) == 1 else seen[0][:20] + struct.pack("<Q", 2) + seen[0][28:]

    host.to_client = on(RECEIPT, repeat)
    await kv.put(b"k", b"1")
    with pytest.raises(ReceiptError, match="not the monitor's"):
        await kv.put(b"k", b"2")


@pytest.mark.parametrize("while_waiting", [False, True])
async def test_replayed_receipt(host: Host, kv: KV, while_waiting: bool) -> None:
    seen: list[bytes] = []
    host.to_client = on(RECEIPT, lambda body: seen.append(body) or body)
    await kv.put(b"k", b"1")
    if while_waiting:
        host.to_client = on(RECEIPT, lambda _: seen[0])
        with pytest.raises(ReceiptError):
            await kv.put(b"k", b"2")
    else:
        host.push(RECEIPT, seen[0])
        await failed(kv, ReceiptError)


async def test_receipt_of_an_earlier_incarnation(host: Host, kv: KV) -> None:
    seen: list[bytes] = []
    host.to_client = on(RECEIPT, lambda body: seen.append(body) or body)
    await kv.put(b"k", b"1", certified=False)
    host.close_epoch()
    await eventually(lambda: kv.epoch == 1)
    host.restart()
    host.to_client = on(RECEIPT, lambda _: seen[0])
    with pytest.raises(ReceiptError):
        await kv.put(b"k", b"1")


async def test_receipt_of_unknown_thread(host: Host, kv: KV) -> None:
    host.push(RECEIPT, struct.pack("<IQIHHQQB", 49, 1, 1, 9, 0, 1, 1, 0) + bytes(16))
    await failed(kv, ProtocolError)


async def test_receipt_of_another_session(host: Host, kv: KV) -> None:
    """Two clients with the same call: the receipt of one does not do for the other."""
    hold = Holding(RECEIPT)
    host.to_client = hold
    async with client(host) as other:
        calls = [asyncio.create_task(kv.put(b"k", b"v")), asyncio.create_task(other.put(b"k", b"v"))]
        await eventually(lambda: len(hold.held) == 2)
        host.to_client = honest
        for body in hold.held:
            host.push(RECEIPT, body)  # to both clients
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(result, ReceiptError) for result in results)


def chain_of(monitor: Monitor, *, seed_name: str = "", **changes: Any) -> bytes:
    """The next certificate, with fields changed, signed by the monitor or by somebody else."""
    hashes = monitor.hashes
    fields = {
        "instance": monitor.instance,
        "incarnation": monitor.incarnation,
        "epoch": monitor.epoch,
        "previous": hashes[-1] if hashes else bytes(32),
        "root": ref.range_root(hashes),
        **changes,
    }
    return ref.certificate(seed(seed_name) if seed_name else monitor.identity_seed, **fields)


async def test_certificate_signed_by_somebody_else(host: Host, kv: KV) -> None:
    written = await kv.put(b"k", b"v")
    forged = chain_of(host.monitor, seed_name="somebody")
    host.push(CERTIFICATE, forged)
    with pytest.raises(CertificateError) as caught:
        await written.certified()
    assert caught.value.evidence == {"certificate": forged}
    assert not written.is_certified
    await failed(kv, CertificateError)


@pytest.mark.parametrize("changes", [{"instance": bytes(16)}, {"root": bytes(32)}, {"previous": b"\1" * 32}])
async def test_certificate_that_does_not_fit(host: Host, kv: KV, changes: dict[str, bytes]) -> None:
    host.push(CERTIFICATE, chain_of(host.monitor, **changes))
    await failed(kv, CertificateError)


async def test_two_certificates_for_one_epoch(host: Host, kv: KV) -> None:
    other = chain_of(host.monitor, incarnation=b"\1" * 16)
    host.close_epoch()
    await eventually(lambda: kv.epoch == 1)
    host.push(CERTIFICATE, host.monitor.certificates[0])
    host.push(CERTIFICATE, other)
    error = await failed(kv, ForkError)
    assert isinstance(error, ForkError)
    assert error.evidence == {"certificate": host.monitor.certificates[0], "other_certificate": other}


async def test_certificate_of_another_branch(host: Host, kv: KV) -> None:
    host.close_epoch()
    await eventually(lambda: kv.epoch == 1)
    other = chain_of(host.monitor, previous=b"\1" * 32)
    host.push(CERTIFICATE, other)
    error = await failed(kv, ForkError)
    assert isinstance(error, ForkError)
    assert error.evidence == {"certificate": host.monitor.certificates[0], "other_certificate": other}


async def test_gap_in_the_certificates_is_asked_for(host: Host, kv: KV) -> None:
    written = await kv.put(b"k", b"v")
    host.monitor.close_epoch()
    host.monitor.close_epoch()
    host.close_epoch()
    await written.certified()
    assert kv.epoch == 3


async def test_gap_that_is_not_filled_certifies_nothing(host: Host, kv: KV) -> None:
    written = await kv.put(b"k", b"v")
    host.monitor.close_epoch()
    host.to_client = lambda kind, body: (
        [] if kind == CERTIFICATE and body == host.monitor.certificates[0] else [(kind, body)]
    )
    host.close_epoch()
    with pytest.raises(CertificateTimeoutError, match="epoch 1 "):
        await written.certified(timeout=0.1)


async def test_certificates_withheld_while_connecting(host: Host) -> None:
    for _ in range(3):
        host.monitor.close_epoch()
    host.to_client = lambda kind, body: [] if kind == CERTIFICATE else [(kind, body)]
    with pytest.raises(CertificateTimeoutError, match="epoch 3 "):
        async with client(host, timeout=0.2):
            pass


async def test_changed_certificate_among_many(host: Host, kv: KV) -> None:
    """Of a run of certificates only the last signature is looked at; the hashes tell of a change before it."""
    host.to_client = lambda kind, body: [] if kind == CERTIFICATE else [(kind, body)]
    for _ in range(5):
        host.close_epoch()
    changed = bytearray(host.monitor.certificates[2])
    changed[20] ^= 1
    host.to_client = lambda kind, body: (
        [(kind, bytes(changed))] if kind == CERTIFICATE and body == host.monitor.certificates[2] else [(kind, body)]
    )
    host.close_epoch()
    error = await failed(kv, CertificateError)
    assert isinstance(error, CertificateError)
    assert error.evidence == {"certificate": bytes(changed)}
    assert kv.epoch == 0


async def test_many_certificates_of_another_branch(host: Host, kv: KV) -> None:
    """A run that hangs together, and is signed, but does not go on where this client is."""
    host.close_epoch()
    await eventually(lambda: kv.epoch == 1)
    ours = host.monitor.certificates.pop()
    host.monitor.epoch = 1
    host.monitor.incarnation = bytes(16)
    for _ in range(4):
        host.monitor.close_epoch()
    host.close_epoch()
    error = await failed(kv, ForkError)
    assert isinstance(error, ForkError)
    assert error.evidence == {"certificate": ours, "other_certificate": host.monitor.certificates[1]}
    assert kv.epoch == 1


async def test_head_that_is_not_the_certificate(host: Host) -> None:
    """The monitor's signed hello names another certificate than the one that the host shows, also signed."""
    host.monitor.close_epoch()
    other = chain_of(host.monitor, epoch=1, previous=bytes(32), root=ref.range_root([]), incarnation=b"\1" * 16)
    host.to_client = on(CERTIFICATE, lambda _: other)
    with pytest.raises(ForkError) as caught:
        async with client(host):
            pass
    assert set(caught.value.evidence) == {"certificate", "client_hello", "server_hello"}


async def test_violation(host: Host, kv: KV) -> None:
    written = await kv.put(b"k", b"v")
    violation = host.monitor.violation()
    host.push(VIOLATION, violation)
    error = await failed(kv, ViolationError)
    assert isinstance(error, ViolationError)
    assert (error.violation.name, error.violation.thread, error.violation.offset) == ("hash_mismatch", 1, 4096)
    assert error.violation.key_bits == seed("key")
    assert error.evidence == {"violation": violation}
    with pytest.raises(ViolationError):
        await written.certified()


async def test_violation_that_the_monitor_did_not_sign(host: Host, kv: KV) -> None:
    host.push(VIOLATION, flip(host.monitor.violation(), -1))
    assert not isinstance(await failed(kv, ProtocolError), IntegrityError)


async def test_violation_of_the_past(host: Host, kv: KV) -> None:
    violation = host.monitor.violation()
    host.restart()
    await kv.get(b"k")
    host.push(VIOLATION, violation)
    await failed(kv, ProtocolError)


async def test_violation_in_place_of_a_hello(host: Host) -> None:
    host.to_client = lambda kind, body: (
        [(VIOLATION, host.monitor.violation(40))] if kind == HELLO_OK else [(kind, body)]
    )
    with pytest.raises(ViolationError, match="epoch_mismatch"):
        async with client(host):
            pass


async def test_hello_of_another_monitor(host: Host) -> None:
    other = Monitor(name="other")
    hellos: list[bytes] = []
    host.to_monitor = lambda kind, body: hellos.append(body) or [(kind, body)]
    host.to_client = on(HELLO_OK, lambda _: other.hello(hellos[-1])[1])
    with pytest.raises(IdentityError):
        async with client(host):
            pass


async def test_replayed_hello(host: Host) -> None:
    answers: list[bytes] = []
    host.to_client = on(HELLO_OK, lambda body: answers.append(body) or answers[0])
    async with client(host):
        pass
    with pytest.raises(IdentityError):
        async with client(host):
            pass


async def test_rollback_while_running(monitor: Monitor, host: Host, kv: KV) -> None:
    """The store and the monitor's own memory are put back."""
    host.close_epoch()
    host.close_epoch()
    await eventually(lambda: kv.epoch == 2)
    newest = monitor.certificates.pop()
    monitor.epoch = 2
    host.restart()
    error = await failed(kv, RollbackError)
    assert isinstance(error, RollbackError)
    assert error.evidence["certificate"] == newest
    assert error.evidence["server_hello"]


async def test_rollback_between_runs(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    async with client(host, state=tmp_path) as kv:
        host.close_epoch()
        host.close_epoch()
        await eventually(lambda: kv.epoch == 2)
    newest = monitor.certificates.pop()
    monitor.epoch = 2
    with pytest.raises(RollbackError) as caught:
        async with client(host, state=tmp_path):
            pass
    assert caught.value.evidence["certificate"] == newest


async def test_fork_between_runs(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    async with client(host, state=tmp_path) as kv:
        host.close_epoch()
        await eventually(lambda: kv.epoch == 1)
    ours = monitor.certificates.pop()
    monitor.epoch = 1
    monitor.restart()
    monitor.close_epoch()
    with pytest.raises(ForkError) as caught:
        async with client(host, state=tmp_path):
            pass
    assert caught.value.evidence["certificate"] == ours
    monitor.close_epoch()
    with pytest.raises(ForkError) as caught:
        async with client(host, state=tmp_path):
            pass
    assert caught.value.evidence == {"certificate": ours, "other_certificate": monitor.certificates[1]}


async def test_store_exchanged_under_the_same_identity(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    async with client(host, state=tmp_path) as kv:
        host.close_epoch()
        await eventually(lambda: kv.epoch == 1)
    other = Monitor()
    other.instance = bytes(16)
    host.monitor = other
    other.close_epoch()
    with pytest.raises(ForkError, match="another store"):
        async with client(host, state=tmp_path):
            pass


async def test_changed_admin_answer(monitor: Monitor, host: Host) -> None:
    admin = ClientKey(seed("admin"))
    monitor.clients[admin.public_key] = (3, b"admin")
    async with client(host, key=admin) as kv:
        host.to_client = on(ADMIN_ANSWER, lambda body: flip(body, 16))
        with pytest.raises(ReceiptError) as caught:
            await kv.clients.list()
        assert set(caught.value.evidence) == {"admin_request", "admin_answer"}


async def test_checkpoint_in_place_of_a_certificate(host: Host, kv: KV) -> None:
    written = await kv.put(b"k", b"v")
    host.push(CHECKPOINT, struct.pack("<I", 1))
    await failed(kv, ProtocolError)
    assert not written.is_certified


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (0x42, b""),
        (RECEIPT, b""),
        (RECEIPT, b"\xff" * 40),
        (CERTIFICATE, bytes(168)),
        (CERTIFICATE, b""),
        (HELLO_OK, b""),
        (VIOLATION, b""),
        (STATUS_ANSWER, b"{}"),
        (ADMIN_ANSWER, bytes(40)),
        (ERROR, b""),
        (ERROR, struct.pack("<H", 1) + b"malformed \xff"),
        (ERROR, struct.pack("<H", 2) + b"unknown type"),
        (0x80, b""),
        (0x83, b""),
        (0x84, bytes(48)),
    ],
)
async def test_frames_that_nobody_should_send(host: Host, kv: KV, kind: int, body: bytes) -> None:
    host.push(kind, body)
    await failed(kv, ProtocolError)


async def test_frame_that_is_too_long(host: Host, kv: KV) -> None:
    for writer in host._writers:
        writer.write(struct.pack("<IB", 1 << 31, RECEIPT))
    await failed(kv, ProtocolError)


async def test_failure_that_only_the_host_reports(host: Host, kv: KV) -> None:
    host.push(ERROR, struct.pack("<H", 8) + b"the monitor has failed")
    error = await failed(kv, RefusedError)
    assert not isinstance(error, IntegrityError)
