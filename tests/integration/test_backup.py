"""Backup while the server runs, restore, the operator's override, compaction: with the real processes."""

import asyncio
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kvstore_client import RollbackError, connect
from service import Service
from support.server import ZETAKV, environment_of


def zetakv(home: Path, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [ZETAKV, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, env=environment_of(home), timeout=60, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


async def _put(service: Service, state: Path, count: int, value: bytes) -> None:
    items = {b"key %d" % number: value for number in range(count)}
    async with connect(service.address, service.fingerprint, key=service.admin_key, state=state) as kv:
        await kv.put_many(items, certified=True)


async def test_backup_restore_override(tmp_path: Path) -> None:
    state, fresh, copy = tmp_path / "state", tmp_path / "fresh", tmp_path / "backup"
    service = Service(tmp_path)
    async with service:
        await _put(service, state, 300, b"old")
        made = await asyncio.to_thread(zetakv, service.home, "backup", copy, "--data", service.data)
        assert made.returncode == 0, made.stderr.decode()
        manifest = json.loads((copy / "manifest.json").read_text())
        assert manifest["verified"]
        again = await asyncio.to_thread(zetakv, service.home, "backup", copy, "--data", service.data)
        assert again.returncode == 1
        assert b"exists already" in again.stderr
        await _put(service, state, 10, b"lost")
        running = await asyncio.to_thread(zetakv, service.home, "restore", copy, "--data", service.data, "--replace")
        assert running.returncode == 1
        assert b"another server is running" in running.stderr
    assert sorted(os.listdir(copy)) == ["manifest.json", "store"]
    secret = (service.data / "monitor" / "root.key").read_bytes()
    assert all(secret not in path.read_bytes() for path in copy.rglob("*") if path.is_file())

    plain = zetakv(service.home, "restore", copy, "--data", service.data)
    assert plain.returncode == 1
    assert b"--replace" in plain.stderr
    assert zetakv(service.home, "restore", copy, "--data", service.data, "--replace").returncode == 0
    with pytest.raises(Exception, match="rollback"):
        await asyncio.to_thread(service.start)
    service.close()

    overridden = zetakv(
        service.home, "restore", copy, "--data", service.data, "--replace", "--override", "the disk is lost"
    )
    assert overridden.returncode == 0, overridden.stderr.decode()
    assert len([name for name in os.listdir(service.data) if name.startswith("store.replaced-")]) >= 1
    async with service:
        with pytest.raises(RollbackError, match="the disk is lost") as caught:
            async with connect(service.address, service.fingerprint, key=service.admin_key, state=state):
                pass
        assert {"certificate", "override", "server_hello"} <= caught.value.evidence.keys()
        async with connect(service.address, service.fingerprint, key=service.admin_key, state=fresh) as kv:
            (override,) = kv.overrides
            assert override.reason == "the disk is lost"
            shown = {
                "time": datetime.fromtimestamp(override.time, UTC).isoformat(),
                "epoch": override.epoch,
                "old_instance": override.old_instance.hex(),
                "new_instance": override.new_instance.hex(),
                "admin_key": override.admin_key.hex(),
                "reason": "the disk is lost",
            }
            assert (await kv.status())["overrides"] == [shown]
            status = await asyncio.to_thread(service.zetakv, "status")
            assert b'"reason":"thediskislost"' in b"".join(status.stdout.split()), "lines are folded anywhere"
            assert (await kv.get(b"key 5", certified=True)).value == b"old"
        instance = override.new_instance.hex()
        async with connect(
            service.address, service.fingerprint, key=service.admin_key, state=state, accept_override=instance
        ) as kv:
            await kv.put(b"key 5", b"new", certified=True)
        await _put(service, state, 10, b"newer")


async def test_compact_keeps_every_record(tmp_path: Path) -> None:
    service = Service(tmp_path)
    async with service:
        await _put(service, tmp_path / "state", 2_000, b"v" * 100)
        busy = await asyncio.to_thread(zetakv, service.home, "compact", "--data", service.data)
        assert busy.returncode == 1
    before = (service.data / "store" / "data.mdb").stat().st_size
    done = zetakv(service.home, "compact", "--data", service.data)
    assert done.returncode == 0, done.stderr.decode()
    assert (service.data / "store" / "data.mdb").stat().st_size < before
    assert not (service.data / "store" / "unfinished").exists()
    async with service, service.connected() as kv:
        found = await kv.get_many([b"key %d" % number for number in range(2_000)], certified=True)
        assert all(answer.value == b"v" * 100 for answer in found)


async def test_a_log_fits_a_compacted_store_and_no_older_one(tmp_path: Path) -> None:
    copy = tmp_path / "backup"
    service = Service(tmp_path, "--durability", "wal")
    async with service, service.connected() as kv:
        await kv.put(b"key", b"certified", certified=True)
        made = await asyncio.to_thread(zetakv, service.home, "backup", copy, "--data", service.data)
        assert b"write-ahead log is not in it" in made.stderr + made.stdout
        await kv.put(b"key", b"certified later", certified=True)
    service.options += ["--epoch-ms", "60000"]
    await asyncio.to_thread(service.start)
    async with service.connected() as kv:
        await kv.put(b"key", b"in the log")
    service.kill()
    assert zetakv(service.home, "compact", "--data", service.data).returncode == 0
    await asyncio.to_thread(service.start)
    async with service.connected() as kv:
        assert (await kv.get(b"key")).value == b"in the log"
    service.kill()

    log = {path.name: path.read_bytes() for path in (service.data / "wal").iterdir()}
    assert zetakv(service.home, "restore", copy, "--data", service.data, "--replace").returncode == 0
    (aside,) = service.data.glob("wal.replaced-*")
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == log
    aside.rename(service.data / "wal")  # as of somebody who copies the store by hand
    overridden = zetakv(service.home, "override", "--data", service.data, "--reason", "a test")
    assert overridden.returncode == 0, overridden.stderr.decode()
    assert len(list(service.data.glob("wal.replaced-*"))) == 1
    async with service, service.connected() as kv:
        assert (await kv.get(b"key")).value == b"certified"


def test_what_is_no_backup_or_store(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in (
        ("backup", tmp_path / "b", "--data", tmp_path),
        ("restore", tmp_path / "empty", "--data", tmp_path),
    ):
        refused = zetakv(tmp_path, *arguments)
        assert refused.returncode == 1, refused.stderr.decode()
        assert refused.stderr.startswith(b"error: ")
    assert zetakv(tmp_path, "compact", "--data", tmp_path / "nothing").returncode == 1
