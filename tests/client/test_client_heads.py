"""Heads: mailing them, comparing them with and without a server, and the proof of a fork."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import reference as ref
from double import CERTIFICATE, CERTIFICATES, Host, Monitor, eventually, seed
from kvstore_client import (
    KV,
    CertificateError,
    CertificateTimeoutError,
    ForkError,
    Head,
    IntegrityError,
    RefusedError,
    Relation,
    RollbackError,
    compare_heads,
    connect,
    connect_sync,
)
from kvstore_client import _certificates as certificates_module
from kvstore_client import _heads as heads_module
from kvstore_client._certificates import UnverifiedCertificate


@pytest.fixture
async def kv(host: Host) -> AsyncIterator[KV]:
    async with connect(host.address, host.monitor.identity.hex(), timeout=2) as kv:
        yield kv


def head_of(monitor: Monitor, epoch: int) -> Head:
    return Head.of(UnverifiedCertificate(monitor.certificates[epoch - 1]).verify(monitor.identity))


def other_branch(monitor: Monitor, epoch: int, **changes: Any) -> Head:
    """A second certificate of an epoch, signed by the monitor: of a copy of the store with the same identity."""
    hashes = monitor.hashes[: epoch - 1]
    fields = {
        "instance": monitor.instance,
        "incarnation": b"\1" * 16,
        "epoch": epoch,
        "previous": hashes[-1] if hashes else bytes(32),
        "root": ref.range_root(hashes),
        **changes,
    }
    return Head.of(UnverifiedCertificate(ref.certificate(monitor.identity_seed, **fields)).verify(monitor.identity))


async def grow(host: Host, kv: KV, count: int) -> None:
    for _ in range(count):
        host.close_epoch()
    await eventually(lambda: kv.epoch == host.monitor.epoch - 1)


def keep_only(monkeypatch: pytest.MonkeyPatch, kept: int, page: int) -> None:
    monkeypatch.setattr(certificates_module, "RECENT_MAX", kept)
    monkeypatch.setattr(heads_module, "CERTIFICATES_MAX", page)


async def test_short_form(host: Host, kv: KV) -> None:
    assert kv.head() is None
    await grow(host, kv, 2)
    head = kv.head()
    assert head == head_of(host.monitor, 2)
    assert head is not None
    text = str(head)
    assert len(text) == 238
    fingerprint = host.monitor.identity.hex()
    assert Head.parse(text, fingerprint) == head
    mailed = "\n".join("  " + text[at : at + 60] for at in range(0, len(text), 60)) + "\n"
    assert Head.parse(mailed, fingerprint) == head
    for damaged in ("", "x", text[:-4], text[:-1], text.replace("zetakv-head-1", "zetakv-head-2"), text + "AAAA"):
        with pytest.raises(ValueError, match="not a head"):
            Head.parse(damaged, fingerprint)
    with pytest.raises(CertificateError):
        Head.parse(text, seed("somebody").hex())
    with pytest.raises(CertificateError):
        Head.parse(text[:100] + ("A" if text[100] != "A" else "B") + text[101:], fingerprint)


def test_offline(monitor: Monitor) -> None:
    for _ in range(5):
        monitor.close_epoch()
    fingerprint, heads = monitor.identity.hex(), [head_of(monitor, epoch) for epoch in range(1, 6)]
    assert compare_heads(fingerprint, heads[0], str(heads[0])) is Relation.SAME
    assert compare_heads(fingerprint, heads[1], heads[0]) is Relation.OLDER
    assert compare_heads(fingerprint, heads[0], heads[1]) is Relation.NEWER
    assert compare_heads(fingerprint, heads[0], heads[4]) is Relation.UNDECIDED
    stranger = other_branch(monitor, 3, instance=b"\2" * 16)
    assert compare_heads(fingerprint, heads[2], stranger) is Relation.OTHER_INSTANCE
    assert compare_heads(fingerprint, heads[4], stranger) is Relation.OTHER_INSTANCE
    with pytest.raises(CertificateError):
        compare_heads(seed("somebody").hex(), heads[0], heads[1])


def test_offline_proof_of_fork(monitor: Monitor) -> None:
    """Two certificates of one epoch, or neighbours that do not name each other: both are in the error."""
    for _ in range(3):
        monitor.close_epoch()
    ours = head_of(monitor, 3)
    for theirs in (other_branch(monitor, 3), other_branch(monitor, 2), other_branch(monitor, 4)):
        if theirs.epoch == 4:
            theirs = other_branch(monitor, 4, previous=b"\3" * 32)
        with pytest.raises(ForkError) as caught:
            compare_heads(monitor.identity.hex(), ours, theirs)
        assert caught.value.evidence == {"certificate": ours.certificate, "other_certificate": theirs.certificate}


async def test_same_older_newer(host: Host, kv: KV) -> None:
    await grow(host, kv, 3)
    assert await kv.compare(head_of(host.monitor, 3)) is Relation.SAME
    assert await kv.compare(str(head_of(host.monitor, 1))) is Relation.OLDER
    host.monitor.close_epoch()
    newer = head_of(host.monitor, 4)
    waiting = asyncio.create_task(kv.compare(newer, timeout=5))
    await asyncio.sleep(0)
    host.push(CERTIFICATE, host.monitor.certificates[3])
    assert await waiting is Relation.NEWER
    assert await kv.compare(newer) is Relation.SAME


async def test_head_that_never_comes(host: Host, kv: KV) -> None:
    """The server withholds it; once it shows another certificate in its place, that is a proof."""
    await grow(host, kv, 1)
    ahead = other_branch(host.monitor, 3, previous=b"\3" * 32)
    with pytest.raises(CertificateTimeoutError, match="epoch 3") as caught:
        await kv.compare(ahead, timeout=0.1)
    assert caught.value.epoch == 3
    host.close_epoch()
    host.close_epoch()
    await eventually(lambda: kv._session.failure is not None)
    with pytest.raises(ForkError) as forked:
        await kv.get(b"k")
    expected = {"certificate": host.monitor.certificates[2], "other_certificate": ahead.certificate}
    assert forked.value.evidence in (
        expected,
        {"certificate": ahead.certificate, "other_certificate": expected["certificate"]},
    )


async def test_head_that_the_monitor_has_lost(host: Host, kv: KV) -> None:
    """Another client holds a newer certificate than the monitor, asked afresh, knows of: it was rolled back."""
    await grow(host, kv, 1)
    ahead = other_branch(host.monitor, 2)
    with pytest.raises(CertificateTimeoutError):
        await kv.compare(ahead, timeout=0.05)
    host.restart()
    await eventually(lambda: kv._session.failure is not None)
    with pytest.raises(RollbackError) as caught:
        await kv.get(b"k")
    assert caught.value.evidence["certificate"] == ahead.certificate
    assert {"client_hello", "server_hello"} <= caught.value.evidence.keys()


async def test_fork_that_two_clients_find(host: Host, kv: KV) -> None:
    await grow(host, kv, 3)
    theirs = other_branch(host.monitor, 2)
    with pytest.raises(ForkError) as caught:
        await kv.compare(theirs)
    assert caught.value.evidence == {
        "certificate": host.monitor.certificates[1],
        "other_certificate": theirs.certificate,
    }
    # Anyone with the fingerprint can check it, without the server.
    proof = [
        Head.of(UnverifiedCertificate(data).verify(host.monitor.identity)) for data in caught.value.evidence.values()
    ]
    with pytest.raises(ForkError):
        compare_heads(host.monitor.identity.hex(), *proof)
    with pytest.raises(IntegrityError):
        await kv.get(b"k")


async def test_head_that_is_none_harms_nobody(host: Host, kv: KV) -> None:
    await grow(host, kv, 1)
    for wrong in ("nonsense", str(head_of(host.monitor, 1))[:-8]):
        with pytest.raises(ValueError, match="not a head"):
            await kv.compare(wrong)
    somebody = Monitor(name="somebody")
    somebody.close_epoch()
    with pytest.raises(CertificateError):
        await kv.compare(head_of(somebody, 1))
    assert await kv.compare(head_of(host.monitor, 1)) is Relation.SAME


async def test_very_old_head(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificates between are asked for in pages, from the newest down, over a broken connection, too."""
    keep_only(monkeypatch, kept=4, page=8)
    asked: list[tuple[int, int]] = []

    def note(kind: int, body: bytes) -> list[tuple[int, bytes]]:
        if kind == CERTIFICATES:
            asked.append(struct.unpack("<IH", body))
        return [(kind, body)]

    async with connect(host.address, host.monitor.identity.hex(), timeout=2) as kv:
        await grow(host, kv, 40)
        host.to_monitor = note
        assert await kv.compare(head_of(host.monitor, 12)) is Relation.OLDER
        assert asked == [(29, 8), (21, 8), (13, 8), (12, 1)]
        asked.clear()
        host.to_monitor = lambda kind, body: [] if kind == CERTIFICATES else [(kind, body)]
        waiting = asyncio.create_task(kv.compare(head_of(host.monitor, 30), timeout=5))
        await asyncio.sleep(0.1)
        host.to_monitor = note
        host.drop_connections()
        assert await waiting is Relation.OLDER
        assert (30, 7) in asked
        await grow(host, kv, 1)


async def test_client_that_came_late(host: Host) -> None:
    for _ in range(6):
        host.monitor.close_epoch()
    async with connect(host.address, host.monitor.identity.hex(), timeout=2) as kv:
        assert await kv.compare(head_of(host.monitor, 2)) is Relation.OLDER


async def test_very_old_fork(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_only(monkeypatch, kept=4, page=8)
    async with connect(host.address, host.monitor.identity.hex(), timeout=2) as kv:
        await grow(host, kv, 30)
        theirs = other_branch(host.monitor, 5)
        with pytest.raises(ForkError) as caught:
            await kv.compare(theirs)
        expected = {"certificate": host.monitor.certificates[4], "other_certificate": theirs.certificate}
        assert caught.value.evidence == expected


@pytest.mark.parametrize("signed", [True, False])
async def test_server_that_answers_with_another_branch(
    host: Host, monkeypatch: pytest.MonkeyPatch, signed: bool
) -> None:
    """It serves the fork's certificates, to make an old head of the fork look like ours."""
    keep_only(monkeypatch, kept=4, page=8)
    theirs = other_branch(host.monitor, 5)
    shown = theirs.certificate if signed else theirs.certificate[:-1] + bytes((theirs.certificate[-1] ^ 1,))
    async with connect(host.address, host.monitor.identity.hex(), timeout=2) as kv:
        await grow(host, kv, 12)
        theirs = other_branch(host.monitor, 5)
        shown = theirs.certificate if signed else theirs.certificate[:-1] + bytes((theirs.certificate[-1] ^ 1,))
        host.to_client = lambda kind, body: (
            [(kind, shown)] if kind == CERTIFICATE and body == host.monitor.certificates[4] else [(kind, body)]
        )
        with pytest.raises(ForkError if signed else CertificateError) as caught:
            await kv.compare(theirs)
        assert shown in caught.value.evidence.values()
        if signed:
            assert host.monitor.certificates[5] in caught.value.evidence.values()


async def test_server_that_withholds_old_certificates(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_only(monkeypatch, kept=4, page=8)
    async with connect(host.address, host.monitor.identity.hex(), timeout=2) as kv:
        await grow(host, kv, 12)
        host.to_monitor = lambda kind, body: [] if kind == CERTIFICATES else [(kind, body)]
        with pytest.raises(CertificateTimeoutError):
            await kv.compare(head_of(host.monitor, 2), timeout=0.1)
        host.to_monitor = lambda kind, body: [(kind, body)]
        assert await kv.compare(head_of(host.monitor, 2)) is Relation.OLDER


async def test_unverified_server(monitor: Monitor) -> None:
    async with Host(monitor, unverified=True) as host, connect(host.address, unverified=True) as kv:
        assert kv.head() is None
        monitor.close_epoch()
        with pytest.raises(RefusedError, match="no certificates"):
            await kv.compare(head_of(monitor, 1))


def _use_blocking(address: str, monitor: Monitor) -> None:
    with connect_sync(address, monitor.identity.hex(), timeout=2) as kv:
        assert kv.head() == head_of(monitor, 2)
        assert kv.compare(str(head_of(monitor, 1))) is Relation.OLDER


async def test_blocking(host: Host) -> None:
    host.monitor.close_epoch()
    host.monitor.close_epoch()
    await asyncio.to_thread(_use_blocking, host.address, host.monitor)
