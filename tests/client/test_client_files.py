"""The client's own files: state, keys, records of local servers."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from double import Host, Monitor, eventually, seed
from kvstore_client import ClientKey, ForkError, StateError, connect, find_local
from kvstore_client._certificates import UnverifiedCertificate
from kvstore_client._state import Memory, StateFile


def certificates(monitor: Monitor, count: int) -> list[Memory]:
    for _ in range(count):
        monitor.close_epoch()
    verified = [UnverifiedCertificate(data).verify(monitor.identity) for data in monitor.certificates]
    hashes = {certificate.epoch: certificate.hash for certificate in verified}
    return [Memory(c, None, {e: h for e, h in hashes.items() if e <= c.epoch}) for c in verified]


async def test_state_is_kept_between_runs(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    directory = tmp_path / "state"
    file = directory / f"{monitor.identity.hex()}.json"
    async with connect(host.address, monitor.identity.hex(), state=directory) as kv:
        assert not file.exists()
        for epoch in range(1, 6):
            host.close_epoch()
            await eventually(lambda epoch=epoch: kv.epoch == epoch)
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(directory) == [file.name]
    memory = StateFile(directory, monitor.identity).load()
    assert memory is not None
    assert memory.certificate.data == monitor.certificates[-1]
    assert memory.mountains is not None
    assert memory.mountains.count == 5
    for _ in range(3):
        host.close_epoch()
    # The chain between is asked for, and its range roots are checked from the remembered peaks on.
    async with connect(host.address, monitor.identity.hex(), state=directory) as kv:
        assert kv.epoch == 8
        assert kv._session.chain is not None
        assert kv._session.chain.mountains is not None
        assert kv._session.chain.mountains.count == 8
    memory = StateFile(directory, monitor.identity).load()
    assert memory is not None
    assert memory.certificate.epoch == 8


async def test_state_of_a_client_that_came_late(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    """It has not seen the first certificates, so it cannot check range roots; everything else it does."""
    for _ in range(3):
        host.close_epoch()
    for epoch in (3, 4):
        async with connect(host.address, monitor.identity.hex(), state=tmp_path) as kv:
            assert kv.epoch == epoch
            host.close_epoch()
            await eventually(lambda epoch=epoch, kv=kv: kv.epoch == epoch + 1)
    memory = StateFile(tmp_path, monitor.identity).load()
    assert memory is not None
    assert (memory.certificate.epoch, memory.mountains) == (5, None)


async def test_damaged_state(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    file = StateFile(tmp_path, monitor.identity)
    file.save(certificates(monitor, 1)[0])
    record = json.loads(file.path.read_text())
    changed = record["certificate"][:-2] + ("00" if record["certificate"][-2:] != "00" else "01")
    for text in ("", "{}", "[]", json.dumps(record | {"certificate": changed}), json.dumps(record | {"format": "x"})):
        file.path.write_text(text)
        with pytest.raises(StateError, match="damaged"):
            async with connect(host.address, monitor.identity.hex(), state=tmp_path):
                pass


def test_state_of_two_runs_at_once(monitor: Monitor, tmp_path: Path) -> None:
    """The one that is behind does not take the other's memory away."""
    memories = certificates(monitor, 3)
    file = StateFile(tmp_path, monitor.identity)
    file.save(memories[2])
    file.save(memories[1])
    known = file.load()
    assert known is not None
    assert known.certificate.epoch == 3


def test_state_of_another_chain(monitor: Monitor, tmp_path: Path) -> None:
    file = StateFile(tmp_path, monitor.identity)
    file.save(certificates(monitor, 1)[0])
    ours = monitor.certificates.pop()
    monitor.epoch = 1
    monitor.restart()
    with pytest.raises(ForkError) as caught:
        file.save(certificates(monitor, 1)[0])
    assert caught.value.evidence == {"certificate": ours, "other_certificate": monitor.certificates[0]}


async def test_state_that_cannot_be_written(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    """A client that was asked to remember, and cannot, does not go on as if it did."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be"):
        async with connect(host.address, monitor.identity.hex(), state=tmp_path / "file"):
            pass
    directory = tmp_path / "state"

    async def go_on_without() -> None:
        async with connect(host.address, monitor.identity.hex(), state=directory) as kv:
            directory.write_text("in the way")
            host.close_epoch()
            await eventually(lambda: kv._session.failure is not None)
            with pytest.raises(StateError):
                await kv.get(b"k")

    with pytest.raises(StateError, match="cannot be"):
        await go_on_without()


async def test_state_that_cannot_be_written_at_the_end(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    """A short run hears of it, too: its last save comes after its last call."""
    directory = tmp_path / "state"

    async def short_run() -> None:
        async with connect(host.address, monitor.identity.hex(), state=directory) as kv:
            kv._link._on_progress = lambda: None
            host.close_epoch()
            await eventually(lambda: kv.epoch == 1)
            directory.write_text("in the way")

    with pytest.raises(StateError, match="cannot be"):
        await short_run()


def test_state_of_a_run_on_another_branch(monitor: Monitor, tmp_path: Path) -> None:
    """Another run has remembered a certificate that is not among the former ones of this run."""
    file = StateFile(tmp_path, monitor.identity)
    file.save(certificates(monitor, 2)[1])
    ours = monitor.certificates.pop()
    monitor.epoch = 2
    monitor.restart()
    with pytest.raises(ForkError) as caught:
        file.save(certificates(monitor, 3)[3])
    assert caught.value.evidence == {"certificate": ours, "other_certificate": monitor.certificates[3]}


def test_saves_at_once_keep_the_newest(monitor: Monitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between another run's look at the file and its replacement, nobody else replaces it."""
    memories = certificates(monitor, 3)
    file = StateFile(tmp_path, monitor.identity)
    looked, go_on = threading.Event(), threading.Event()
    load = StateFile.load

    def slow_load(self: StateFile) -> Memory | None:
        known = load(self)
        if threading.current_thread() is slow:
            looked.set()
            go_on.wait(0.3)
        return known

    monkeypatch.setattr(StateFile, "load", slow_load)
    slow = threading.Thread(target=file.save, args=(memories[1],))
    slow.start()
    assert looked.wait(5)
    file.save(memories[2])
    go_on.set()
    slow.join()
    known = load(file)
    assert known is not None
    assert known.certificate.epoch == 3


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602])
async def test_files_that_others_may_read(monitor: Monitor, tmp_path: Path, mode: int) -> None:
    key_file = tmp_path / "key"
    ClientKey(seed("k")).save(key_file)
    key_file.chmod(mode)
    with pytest.raises(StateError, match="chmod 600"):
        ClientKey.load(key_file)
    file = StateFile(tmp_path, monitor.identity)
    file.save(certificates(monitor, 1)[0])
    file.path.chmod(mode)
    with pytest.raises(StateError, match="chmod 600"):
        file.load()


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "me"
    key = ClientKey.generate()
    key.save(path)
    assert path.read_text() == f"zetakv-key-1 {key.seed.hex()}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert ClientKey.load(path).public_key == key.public_key
    assert key.seed.hex() not in repr(key)
    with pytest.raises(StateError, match="never overwritten"):
        key.save(path)
    with pytest.raises(StateError, match="no such key file"):
        ClientKey.load(tmp_path / "none")
    for text in ("", "zetakv-key-1", "zetakv-key-1 00", "zetakv-key-2 " + "00" * 32, "zetakv-key-1 " + "zz" * 32):
        path.write_text(text)
        with pytest.raises(StateError, match="not a key file"):
            ClientKey.load(path)


def write_record(port: int, **changes: Any) -> Path:
    path = Path(os.environ["ZETAKV_HOME"]) / "servers" / f"{port}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"address": f"127.0.0.1:{port}", "fingerprint": None, "key_file": None, "data": "/d", "http": None}
    path.write_text(json.dumps(record | changes))
    path.chmod(0o600)
    return path


async def test_local_server_is_found(monitor: Monitor, host: Host, tmp_path: Path) -> None:
    admin = ClientKey(seed("admin"))
    monitor.clients[admin.public_key] = (3, b"admin")
    admin.save(tmp_path / "admin")
    path = write_record(host.port, fingerprint=monitor.identity.hex(), key_file=str(tmp_path / "admin"))
    assert find_local("127.0.0.1", host.port) == find_local("localhost", host.port)
    assert find_local("192.0.2.1", host.port) is None
    async with connect(host.address) as kv:
        assert kv.role == 3
    async with connect(host.address, monitor.identity.hex().upper()) as kv:
        assert kv.role == 3
    # Another monitor was named: its key is not offered to it.
    write_record(host.port, fingerprint="00" * 32, key_file=str(tmp_path / "admin"))
    async with connect(host.address, monitor.identity.hex()) as kv:
        assert kv.role == 2
    path.chmod(0o644)
    with pytest.raises(StateError, match="chmod 600"):
        async with connect(host.address):
            pass
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(StateError, match="not the record of a server"):
        async with connect(host.address):
            pass


async def test_no_local_server(host: Host) -> None:
    with pytest.raises(StateError, match="monitor=<fingerprint>"):
        async with connect(host.address):
            pass
    write_record(host.port)
    with pytest.raises(StateError, match="without a monitor"):
        async with connect(host.address):
            pass
