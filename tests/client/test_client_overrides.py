"""Overrides of a rollback: a client that lost nothing goes on and is told; one that did refuses until it accepts."""

from __future__ import annotations

import asyncio
import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import reference as ref
from double import HELLO_OK, Host, Monitor, eventually, seed
from kvstore_client import (
    ClientKey,
    ForkError,
    Head,
    IdentityError,
    OutcomeUnknownError,
    ProtocolError,
    ProvisionalLostError,
    Relation,
    RollbackError,
    connect,
    connect_sync,
)
from kvstore_client import _certificates as certificates_module
from kvstore_client import _heads as heads_module
from kvstore_client._certificates import UnverifiedCertificate
from kvstore_client._overrides import Override
from kvstore_client._state import Memory, StateFile


def client(host: Host, **options: Any) -> Any:
    return connect(host.address, host.monitor.identity.hex(), timeout=2, **options)


async def grow(host: Host, kv: Any, count: int) -> None:
    for _ in range(count):
        host.close_epoch()
    await eventually(lambda: kv.epoch == host.monitor.epoch - 1)


def told_by_client(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of all that was logged: on a busy machine the event loop has its say, too."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("kvstore_client")]


async def seen(host: Host, state: Path, epochs: int) -> None:
    """A run of a client that remembers `epochs` more."""
    async with client(host, state=state) as kv:
        await grow(host, kv, epochs)


def head_of(monitor: Monitor, certificate: bytes) -> Head:
    return Head.of(UnverifiedCertificate(certificate).verify(monitor.identity))


@pytest.mark.parametrize("remembered", [2, 3, 4])
async def test_client_that_lost_nothing_goes_on(
    monitor: Monitor, host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture, remembered: int
) -> None:
    """It has the certificate of the override's epoch, or the one before, or an older one; nobody serves the former."""
    await seen(host, tmp_path, remembered)
    while monitor.epoch < 7:
        monitor.close_epoch()
    old = monitor.instance
    statement = monitor.override(4)
    with caplog.at_level(logging.WARNING, "kvstore_client"):
        async with client(host, state=tmp_path) as kv:
            assert kv.epoch == 4
            (override,) = kv.overrides
            assert (override.old_instance, override.new_instance) == (old, monitor.instance)
            assert (override.epoch, override.statement, override.reason) == (4, statement, "the disk is lost")
            assert override.admin_key == ClientKey(seed("operator")).public_key
            (warning,) = told_by_client(caplog)
            for told in ("2027-01-15", "the disk is lost", override.admin_key.hex(), "after epoch 4"):
                assert told in warning
            written = await kv.put(b"k", b"v")
            host.close_epoch()
            await written.certified()
            await grow(host, kv, 1)
            head = kv.head()
            assert head is not None
            assert head.instance == monitor.instance
    caplog.clear()
    async with client(host, state=tmp_path) as kv:
        assert kv.epoch == 6
        assert kv.overrides == (override,)
    assert not told_by_client(caplog)


async def test_client_that_knows_nothing(monitor: Monitor, host: Host) -> None:
    for _ in range(4):
        monitor.close_epoch()
    monitor.override(3)
    async with client(host) as kv:
        assert kv.epoch == 3
        assert kv.head() is None
        await grow(host, kv, 2)
    async with client(host) as kv:
        assert (kv.epoch, len(kv.overrides)) == (5, 1)


async def test_override_of_the_first_epoch_and_again(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    """Several overrides, also of one epoch, and of neighbours; the range root is checked over all of them."""
    await seen(host, tmp_path, 1)
    monitor.override(1)
    monitor.override(1, reason="once more")
    monitor.close_epoch()
    monitor.override(2)
    async with client(host, state=tmp_path) as kv:
        assert (kv.epoch, len(kv.overrides)) == (2, 3)
        await grow(host, kv, 2)
        assert kv._session.chain is not None
        assert kv._session.chain.mountains is not None
        assert kv._session.chain.mountains.count == 4


async def test_override_that_hides_certified_operations(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    await seen(host, tmp_path, 5)
    lost = monitor.certificates[-1]
    statement = monitor.override(3)
    for _ in range(2):
        with pytest.raises(RollbackError, match="what was certified after epoch 3") as caught:
            async with client(host, state=tmp_path):
                pass
        assert monitor.instance.hex() in str(caught.value)
        assert caught.value.evidence["certificate"] == lost
        assert caught.value.evidence["override"] == statement
        assert {"client_hello", "server_hello"} <= caught.value.evidence.keys()
        # Also when the new chain has grown past what was lost.
        for _ in range(5):
            monitor.close_epoch()
    with pytest.raises(RollbackError):
        async with client(host, state=tmp_path, accept_override="00" * 16):
            pass
    with pytest.raises(ValueError, match="32 hex digits"):
        async with client(host, accept_override="00"):
            pass


async def test_accepted_override(
    monitor: Monitor, host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The state file goes over, even if the new chain has no certificate yet."""
    await seen(host, tmp_path, 5)
    monitor.override(3)
    async with client(host, state=tmp_path, accept_override=monitor.instance.hex()) as kv:
        assert kv.epoch == 3
        assert "after epoch 3" in caplog.text
    async with client(host, state=tmp_path) as kv:
        await grow(host, kv, 1)
    memory = StateFile(tmp_path, monitor.identity).load()
    assert memory is not None
    assert memory.certificate.data == monitor.certificates[-1]
    assert len(memory.overrides) == 1
    assert StateFile(tmp_path, monitor.identity).accepted() is None
    async with client(host, state=tmp_path) as kv:
        await grow(host, kv, 1)


async def test_override_of_another_certificate_of_the_epoch(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    """The epoch fits, the head does not: what this client saw certified in that epoch is not in the restored store."""
    await seen(host, tmp_path, 3)
    monitor.override(3, head=b"\5" * 32)
    with pytest.raises(RollbackError):
        async with client(host, state=tmp_path):
            pass


async def test_override_with_a_missing_link(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    await seen(host, tmp_path, 3)
    monitor.override(3)
    monitor.override(3, reason="again")
    del monitor.overrides[0]
    with pytest.raises(ForkError, match="another store") as caught:
        async with client(host, state=tmp_path):
            pass
    assert {"certificate", "client_hello", "server_hello"} <= caught.value.evidence.keys()


async def test_overrides_that_do_not_lead_to_the_instance(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    await seen(host, tmp_path, 3)
    for _ in range(3):
        monitor.override(3)
    for kept in ([0, 2], [1, 0, 2], [0, 1], []):
        other = copy.copy(monitor)
        other.overrides = [monitor.overrides[index] for index in kept]
        host.monitor = other
        with pytest.raises(ProtocolError if kept else ForkError):
            async with client(host, state=tmp_path):
                pass


async def test_statement_that_the_monitor_did_not_sign(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    """The host adds an override to the hello, or changes one: the monitor's signature covers them."""
    await seen(host, tmp_path, 3)
    statement = ref.override_statement(
        seed("host"), monitor.instance, 2, monitor.hashes[1], bytes(32), bytes(16), 1, "trust me"
    )

    def add(kind: int, body: bytes) -> list[tuple[int, bytes]]:
        if kind != HELLO_OK:
            return [(kind, body)]
        added = b"\1" + len(statement).to_bytes(2, "little") + statement
        return [(kind, body[:8] + ref.new_instance(statement) + body[24:-65] + added + body[-64:])]

    host.to_client = add
    with pytest.raises(IdentityError):
        async with client(host, state=tmp_path):
            pass
    monitor.override(3)
    for place in (4, 20, 24, 110, -100):
        host.to_client = lambda kind, body, place=place: (
            [(kind, body.replace(monitor.overrides[0], _flipped(monitor.overrides[0], place)))]
            if kind == HELLO_OK
            else [(kind, body)]
        )
        with pytest.raises(IdentityError):
            async with client(host, state=tmp_path):
                pass


def _flipped(data: bytes, place: int) -> bytes:
    place %= len(data)
    return data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]


def test_statements_are_read_strictly() -> None:
    statement = ref.override_statement(seed("a"), b"\1" * 16, 3, b"\2" * 32, bytes(32), bytes(16), 1_800_000_000, "why")
    assert Override.read(statement).new_instance == ref.new_instance(statement)
    for place in range(len(statement)):
        with pytest.raises(ProtocolError):
            Override.read(_flipped(statement, place))
        with pytest.raises(ProtocolError):
            Override.read(statement[:place])
    with pytest.raises(ProtocolError):
        Override.read(statement + b"\0")


async def test_override_while_running(monitor: Monitor, host: Host) -> None:
    async with client(host) as kv:
        await grow(host, kv, 3)
        lost = await kv.put(b"k", b"v")
        monitor.override(3)
        host.drop_connections()
        with pytest.raises(ProvisionalLostError):
            await lost.certified()
        again = await kv.put(b"k", b"v")
        host.close_epoch()
        await again.certified()
        await grow(host, kv, 2)
        monitor.override(4)
        host.drop_connections()
        with pytest.raises(RollbackError):
            await kv.get(b"k", certified=True)


async def test_answer_of_the_epoch_whose_certificate_nobody_saw(monitor: Monitor, host: Host) -> None:
    """It may be in the store that was put back, or not: the client does not claim to know."""
    async with client(host) as kv:
        await grow(host, kv, 2)
        doubtful = await kv.put(b"k", b"v")
        monitor.close_epoch()
        monitor.override(3)
        host.drop_connections()
        with pytest.raises(OutcomeUnknownError, match="put back to epoch 3"):
            await doubtful.certified()


async def test_two_branches_of_overrides(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    """The same backup is restored twice. Who saw a certificate of the first branch has lost it; others have not."""
    early, late = tmp_path / "early", tmp_path / "late"
    await seen(host, early, 3)
    other = copy.deepcopy(monitor)
    monitor.override(3)
    await seen(host, late, 1)
    other.override(3, reason="the second disk is lost, too")
    other.close_epoch()
    host.monitor = other
    async with client(host, state=early) as kv:
        assert kv.epoch == 4
    with pytest.raises(RollbackError):
        async with client(host, state=late):
            pass
    async with client(host, state=late, accept_override=other.instance.hex()) as kv:
        await grow(host, kv, 1)
    async with client(host, state=late) as kv:
        assert kv.epoch == 5


def test_slow_run_and_fast_run_share_a_state_file(monitor: Monitor, tmp_path: Path) -> None:
    """A run that has not heard of the override yet does not accuse one that has."""

    def memory(epoch: int) -> Memory:
        certificate = UnverifiedCertificate(monitor.certificates[epoch - 1]).verify(monitor.identity)
        overrides = tuple(Override.read(statement) for statement in monitor.overrides)
        return Memory(certificate, None, {certificate.epoch: certificate.hash}, overrides)

    for _ in range(4):
        monitor.close_epoch()
    slow = memory(2)
    lost = memory(4)
    monitor.override(3)
    monitor.close_epoch()
    file = StateFile(tmp_path, monitor.identity)
    file.save(memory(4))
    file.save(slow)
    assert file.load() == memory(4)
    with pytest.raises(ForkError):
        file.save(lost)


async def test_heads_over_an_override(monitor: Monitor, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept heads of before it are in the chain; those that it gave up are told by name."""
    monkeypatch.setattr(certificates_module, "RECENT_MAX", 3)
    monkeypatch.setattr(heads_module, "CERTIFICATES_MAX", 4)
    for _ in range(12):
        monitor.close_epoch()
    old = [head_of(monitor, certificate) for certificate in monitor.certificates]
    statement = monitor.override(9)
    for _ in range(6):
        monitor.close_epoch()
    async with client(host) as kv:
        for epoch in (1, 7, 8, 9, 10, 14, 15):
            theirs = old[epoch - 1] if epoch <= 9 else head_of(monitor, monitor.certificates[epoch - 1])
            relation = await kv.compare(theirs)
            assert relation is (Relation.SAME if epoch == 15 else Relation.OLDER)
    for lost in old[9:]:
        async with client(host) as kv:
            with pytest.raises(RollbackError) as caught:
                await kv.compare(lost)
            assert caught.value.evidence["override"] == statement
            assert lost.certificate in caught.value.evidence.values()


async def test_older_head_where_nothing_was_certified_since_the_override(monitor: Monitor, host: Host) -> None:
    async with client(host) as kv:
        await grow(host, kv, 5)
    older = head_of(monitor, monitor.certificates[1])
    monitor.override(4)
    async with client(host) as kv:
        assert kv.epoch == 4
        assert await kv.compare(older) is Relation.OLDER
        forked = ref.certificate(monitor.identity_seed, older.instance, monitor.incarnation, 2, bytes(32), bytes(32))
        with pytest.raises(ForkError):
            await kv.compare(head_of(monitor, forked))


async def test_override_that_was_accepted_once_does_not_hide_a_later_rollback(
    monitor: Monitor, host: Host, tmp_path: Path
) -> None:
    await seen(host, tmp_path, 4)
    monitor.override(3)
    before = copy.deepcopy(monitor)
    accepted = monitor.instance.hex()
    async with client(host, state=tmp_path, accept_override=accepted) as kv:
        await grow(host, kv, 1)
    monitor.override(4)
    async with client(host, state=tmp_path, accept_override=accepted) as kv:
        await grow(host, kv, 2)
    host.monitor = before  # store and monitor are put back to where that override was the last
    with pytest.raises(ForkError, match="another store"):
        async with client(host, state=tmp_path, accept_override=accepted):
            pass


def _use_blocking(address: str, fingerprint: str, state: Path, instance: str) -> None:
    with connect_sync(address, fingerprint, state=state, accept_override=instance, timeout=2) as kv:
        assert [override.epoch for override in kv.overrides] == [1]


async def test_blocking(monitor: Monitor, host: Host, tmp_path: Path) -> None:

    await seen(host, tmp_path, 2)
    monitor.override(1)
    await asyncio.to_thread(_use_blocking, host.address, monitor.identity.hex(), tmp_path, monitor.instance.hex())
