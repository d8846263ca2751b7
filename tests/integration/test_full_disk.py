"""A disk that is full or read-only, as a small tmpfs of root: the service stays, says so, and goes on when it can."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration.service import Service
from kvstore_client import ClientKey, OutcomeUnknownError, Role, UnavailableError

DISK_BYTES = 2 << 20
EARLIER, VALUE = b"earlier", b"certified before the disk was full"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """The store's directory, a file system of its own: what is tested is the store, and not the monitor's register."""
    (tmp_path / "data").mkdir(mode=0o700)
    with mounted(tmp_path / "data" / "store") as path:
        yield path


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The whole data directory, a file system of its own."""
    with mounted(tmp_path / "data") as path:
        yield path


@contextmanager
def mounted(path: Path) -> Iterator[Path]:
    path.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(path)]
    result = subprocess.run(mount, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"this user may not mount a tmpfs: {result.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


async def state_becomes(service: Service, state: str) -> dict[str, object]:
    end = time.monotonic() + 10
    while True:
        status: dict[str, object] = json.loads((await asyncio.to_thread(service.zetakv, "status", "--json")).stdout)
        if status["state"] == state:
            return status
        assert time.monotonic() < end, status


def fill(store: Path) -> Path:
    filler = store / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


async def test_a_full_disk_degrades_the_service_until_there_is_room(tmp_path: Path, store: Path) -> None:
    async with Service(tmp_path) as service:
        async with service.connected() as reader, service.connected() as writer:
            await writer.put(EARLIER, VALUE, certified=True)
            await reader.get(EARLIER, certified=True)
            filler = await asyncio.to_thread(fill, store)
            provisional = await writer.put(b"later", bytes(60_000))
            status = await state_becomes(service, "degraded")
            assert str(store) in str(status["trouble"])
            assert (await reader.get(EARLIER)).value == VALUE, "a get is answered, provisionally"
            for _ in range(3):
                with pytest.raises(UnavailableError, match="No space left on device"):
                    await writer.put(b"refused", b"")
                assert (await writer.get(b"later")).value == bytes(60_000), "the same client's gets go on"
            with pytest.raises(UnavailableError):
                await writer.clients.add("refused", ClientKey(bytes(32)).public_key, Role.READ)
            assert len(await writer.clients.list()) == 1
            command = await asyncio.to_thread(service.zetakv, "put", "refused", "by the command")
            assert command.returncode == 1
            assert b"No space left on device" in command.stderr
            filler.unlink()
            await state_becomes(service, "ok")
            await provisional.certified()
            await writer.put(b"after", b"room", certified=True)
        code, output = await service.ends(terminate=True)
        assert code == 0, output
        assert output.count("DEGRADED") == 1
    async with Service(tmp_path) as service, service.connected() as kv:
        assert (await kv.get(b"later", certified=True)).value == bytes(60_000)
        assert (await kv.get(b"after", certified=True)).value == b"room"


async def test_a_stop_while_the_disk_is_full_ends_soon_and_names_the_loss(tmp_path: Path, store: Path) -> None:
    async with Service(tmp_path) as service:
        async with service.connected() as kv:
            await kv.put(EARLIER, VALUE, certified=True)
            filler = await asyncio.to_thread(fill, store)
            await kv.put(b"later", bytes(60_000))
            await state_becomes(service, "degraded")
        started = time.monotonic()
        code, output = await service.ends(terminate=True)
        assert time.monotonic() - started < 10
        assert code == 1, output
        assert "No space left on device" in output.splitlines()[-1]
        assert "what was not certified is lost" in output.splitlines()[-1]
    filler.unlink()
    async with Service(tmp_path) as service, service.connected() as kv:
        assert (await kv.get(EARLIER, certified=True)).value == VALUE
        assert (await kv.get(b"later", certified=True)).value is None


async def test_a_full_disk_that_holds_everything_degrades_the_service_until_there_is_room(
    tmp_path: Path, data: Path
) -> None:
    async with Service(tmp_path) as service, service.connected() as kv:
        # More than once, since what no longer fits at first, rows or register, differs.
        for number in range(3):
            key = b"%d" % number
            await kv.put(key, VALUE, certified=True)
            filler = await asyncio.to_thread(fill, data)
            provisional = await kv.put(key, bytes(100 * number))
            await state_becomes(service, "degraded")
            with pytest.raises(UnavailableError, match="No space left on device"):
                await kv.put(b"refused", b"")
            filler.unlink()
            status = await state_becomes(service, "ok")
            assert status["restarts"] == 0
            await provisional.certified()
            assert (await kv.get(key, certified=True)).value == bytes(100 * number)


async def test_a_register_that_cannot_be_written_degrades_the_service_until_it_can(tmp_path: Path) -> None:
    async with Service(tmp_path) as service, service.connected() as kv:
        await kv.put(EARLIER, VALUE, certified=True)
        in_the_way = service.data / "monitor" / "register.new"
        in_the_way.mkdir()
        provisional = await kv.put(b"later", b"")
        status = await state_becomes(service, "degraded")
        assert "the monitor's register" in str(status["trouble"])
        with pytest.raises(UnavailableError, match="the monitor's register"):
            await kv.put(b"refused", b"")
        assert (await kv.get(b"later")).value == b""
        await asyncio.sleep(1.5)  # tried again, in vain
        in_the_way.rmdir()
        status = await state_becomes(service, "ok")
        assert status["restarts"] == 0
        await provisional.certified()
        await kv.put(b"after", b"", certified=True)


async def test_a_full_disk_of_the_write_ahead_log_degrades_the_service(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    with mounted(tmp_path / "data" / "wal") as log:
        service = Service(tmp_path, "--durability", "wal", epoch_ms=60_000, workers=2)
        async with service, service.connected() as kv:
            await kv.put(EARLIER, VALUE)
            filler = await asyncio.to_thread(fill, log)
            async with asyncio.timeout(10):  # and not twice the client's timeout
                with pytest.raises(OutcomeUnknownError, match="No space left on device"):
                    await kv.put(b"later", bytes(60_000))
                for _ in range(2):
                    with pytest.raises(UnavailableError, match="No space left on device"):
                        await kv.get(EARLIER)
                    with pytest.raises(UnavailableError, match="No space left on device"):
                        await kv.put(b"refused", b"")
            status = await state_becomes(service, "degraded")
            assert str(log) in str(status["trouble"])
            filler.unlink()
            status = await state_becomes(service, "ok")
            assert status["restarts"] == 0
            assert (await kv.get(b"later")).value == bytes(60_000), "the disk took its record in the end"
            await kv.put(b"after", b"room")
            service.kill()
            await asyncio.to_thread(service.start)
            async with service.connected() as later:
                assert [answer.value for answer in await later.get_many([EARLIER, b"later", b"refused", b"after"])] == [
                    VALUE,
                    bytes(60_000),
                    None,
                    b"room",
                ]


async def test_a_full_disk_of_the_write_ahead_log_costs_no_answer_that_the_store_makes_durable(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    with mounted(tmp_path / "data" / "wal") as log:
        service = Service(tmp_path, "--durability", "wal", epoch_ms=500)
        async with service, service.connected() as kv:
            await kv.put(EARLIER, VALUE, certified=True)
            filler = await asyncio.to_thread(fill, log)
            await kv.put(b"later", bytes(60_000), certified=True)
            filler.unlink()
            await state_becomes(service, "ok")
            await kv.put(b"after", b"room")


async def test_a_start_on_a_read_only_disk_names_it(tmp_path: Path, store: Path) -> None:
    remount = ["mount", "-o", "remount,ro", str(store)]
    await asyncio.to_thread(subprocess.run, remount, check=True)
    refused = await asyncio.to_thread(Service(tmp_path).start_refused)
    assert refused.code == 1
    assert str(store) in refused.stderr
    assert "Read-only file system" in refused.stderr
