"""`zetakv compact` and `zetakv restore` are killed between any two steps: nothing is lost, and the next start works or
says what to do."""

import asyncio
import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest
from crash.plans import FailpointDirectory, Plan
from kvstore_client import connect
from support.server import ZETAKV, Server, environment_of

from kvstore import data_directory
from kvstore.backup import BackupError, restore

RECORDS = {b"key %d" % number: b"1" for number in range(300)}


def carried_out(
    server: Server, failpoints: FailpointDirectory, plan: Plan, *command: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with a failure that is planned."""
    failpoints.arm(plan)
    environment = environment_of(server.home) | {"ZETAKV_FAILPOINTS": str(failpoints.path)}
    return subprocess.run([ZETAKV, *command], env=environment, capture_output=True, timeout=60, check=False)


def killed(server: Server, failpoints: FailpointDirectory, plan: Plan, *command: str) -> None:
    """Run a command that the plan kills."""
    done = carried_out(server, failpoints, plan, *command)
    assert done.returncode == -signal.SIGKILL, done
    assert failpoints.fired


async def put_all(server: Server, *, certified: bool) -> None:
    async with connect(server.address, server.fingerprint, key=server.admin_key) as kv:
        await kv.put_many(RECORDS, certified=certified)


async def has_all(server: Server) -> bool:
    """Whether all records are there, and certified. The server is started and stopped for that."""
    await asyncio.to_thread(server.start)
    async with connect(server.address, server.fingerprint, key=server.admin_key) as kv:
        answers = await kv.get_many(list(RECORDS), certified=True)
    await asyncio.to_thread(server.stop)
    return [answer.value for answer in answers] == list(RECORDS.values())


@pytest.mark.parametrize("point", ["before_sync", "before_rename", "after_rename"])
async def test_compact(tmp_path: Path, point: str) -> None:
    server = Server(tmp_path, ["--epoch-ms", "50"])
    try:
        await asyncio.to_thread(server.start)
        await put_all(server, certified=True)
        server.kill()  # so that something may be pending
        failpoints = FailpointDirectory(tmp_path / "failpoints")
        killed(server, failpoints, Plan(f"compact.{point}", 1, "kill"), "compact", "--data", str(server.data))
        assert await has_all(server)
        assert server.offline_command("compact", "--data", str(server.data)).code == 0
        assert not (server.data / "store" / "unfinished").exists()
        assert await has_all(server)
    finally:
        server.close()


@pytest.mark.parametrize(("point", "hit"), [("after_copy", 1), ("before_move", 2), ("before_rename", 1)])
async def test_restore_that_fails_changes_nothing(tmp_path: Path, point: str, hit: int) -> None:
    """As where a disk is mounted at the store's place, which cannot be moved aside."""
    server = Server(tmp_path, ["--epoch-ms", "60000", "--durability", "wal"])
    copy = tmp_path / "copy"
    try:
        await asyncio.to_thread(server.start)
        async with connect(server.address, server.fingerprint, key=server.admin_key) as kv:
            await kv.put(b"first", b"1")
        await asyncio.to_thread(server.stop)
        assert server.offline_command("backup", str(copy), "--data", str(server.data)).code == 0
        await asyncio.to_thread(server.start)
        await put_all(server, certified=False)
        server.kill()
        failpoints = FailpointDirectory(tmp_path / "failpoints")
        command = ("restore", str(copy), "--data", str(server.data), "--replace")
        done = carried_out(server, failpoints, Plan(f"restore.{point}", hit, "EIO"), *command)
        assert done.returncode == 1
        assert b"Input/output error" in done.stderr
        assert not [path.name for path in server.data.iterdir() if "replaced" in path.name or "partial" in path.name]
        server.options = ["--epoch-ms", "50", "--durability", "wal"]
        assert await has_all(server), "the store is there, with its log"
    finally:
        server.close()


async def test_restore_that_may_have_moved_the_log_stays_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved, but not synced, so not known to be: a start without it would lose what was answered."""
    server = Server(tmp_path, ["--epoch-ms", "60000", "--durability", "wal"])
    copy = tmp_path / "copy"
    try:
        await asyncio.to_thread(server.start)
        await put_all(server, certified=False)
        await asyncio.to_thread(server.stop)
        assert server.offline_command("backup", str(copy), "--data", str(server.data)).code == 0

        def fail(_: Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as failing:
            failing.setattr(data_directory, "sync_directory", fail)
            with pytest.raises(BackupError, match="Input/output error"):
                restore(copy, server.data, replace=True)
        assert not (server.data / "wal").exists()
        refused = await asyncio.to_thread(server.start_refused)
        assert "was interrupted: run the same `zetakv restore" in refused.stderr
        assert server.offline_command("restore", str(copy), "--data", str(server.data), "--replace").code == 0
    finally:
        server.close()


@pytest.mark.parametrize(
    ("point", "hit", "starts"),
    [
        ("after_copy", 1, True),
        ("before_move", 1, False),
        ("before_move", 2, False),
        ("before_rename", 1, False),
        ("after_rename", 1, False),
    ],
)
async def test_restore(tmp_path: Path, point: str, hit: int, starts: bool) -> None:
    """There is a write-ahead log: with another store, or without its own, it would be lost, or taken for changed."""
    server = Server(tmp_path, ["--epoch-ms", "50"])
    copy = tmp_path / "copy"
    try:
        await asyncio.to_thread(server.start)
        async with connect(server.address, server.fingerprint, key=server.admin_key) as kv:
            await kv.put(b"first", b"1", certified=True)
        await asyncio.to_thread(server.stop)
        server.options = ["--epoch-ms", "60000", "--durability", "wal"]
        await asyncio.to_thread(server.start)
        await put_all(server, certified=False)
        server.kill()
        assert list((server.data / "wal").glob("worker-*"))
        assert server.offline_command("backup", str(copy), "--data", str(server.data)).code == 0
        failpoints = FailpointDirectory(tmp_path / "failpoints")
        command = ("restore", str(copy), "--data", str(server.data), "--replace")
        killed(server, failpoints, Plan(f"restore.{point}", hit, "kill"), *command)
        if starts:
            server.options = ["--epoch-ms", "50", "--durability", "wal"]
            assert await has_all(server), "the former store is there, with its log"
            return
        refused = await asyncio.to_thread(server.start_refused)
        assert refused.code == 1
        assert "was interrupted: run the same `zetakv restore" in refused.stderr
        assert server.offline_command("compact", "--data", str(server.data)).code == 1
        assert server.offline_command(*command).code == 0
        kept = [path.name for path in server.data.glob("wal.replaced-*/worker-*")]
        assert kept, "the log is kept with the store that it belongs to"
        server.options = ["--epoch-ms", "50"]
        assert not await has_all(server), "the backup has nothing of what was only in the log"
    finally:
        server.close()
