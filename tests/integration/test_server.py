"""The whole service with real processes: every worker count, restarts, crashes, hostile clients."""

import asyncio
import json
import os
import random
import shutil
import signal
import struct
import tempfile
from pathlib import Path

import pytest
from kvstore_client import KV, NotANumberError, TooLongError, ViolationError
from service import Service
from support.ports import free_port
from support.server import MonitorProcess
from support.waiting import is_alive, until

from kvstore._prover import encode_record, store_key_of
from kvstore.config import ServeConfig
from kvstore.limits import FRAME_BYTES_MAX
from kvstore.storage import LmdbWriter

RECORDS = {b"key %d" % number: b"value %d" % number + b"." * (number % 80) for number in range(300)}


async def fill(service: Service) -> None:
    async with service.connected() as kv:
        await kv.put_many(RECORDS, certified=True)


async def check_filled(kv: KV) -> None:
    values = await kv.get_many(RECORDS, certified=True)
    assert {key: answer.value for key, answer in zip(RECORDS, values, strict=True)} == RECORDS


@pytest.mark.parametrize("verified", [True, False], ids=["verified", "unverified"])
@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_every_operation_on_every_worker_count(tmp_path: Path, workers: int, verified: bool) -> None:
    async with Service(tmp_path, workers=workers, verified=verified) as service:
        await fill(service)
        async with service.connected() as kv:
            await check_filled(kv)
            assert (await kv.get(b"absent", certified=True)).value is None
            assert not (await kv.insert(b"key 1", b"x")).applied
            assert (await kv.insert(b"new", b"1")).applied
            assert (await kv.compare_and_set(b"new", b"1", b"2")).applied
            mismatch = await kv.compare_and_set(b"new", b"1", b"3")
            assert (mismatch.applied, mismatch.value) == (False, b"2")
            assert (await kv.increment(b"number", 5)).value == 5
            assert (await kv.increment(b"number", -7)).value == -2
            with pytest.raises(NotANumberError):
                await kv.increment(b"key 10")
            deleted = await kv.delete(b"key 1", certified=True)
            assert deleted.is_certified
            assert (await kv.get(b"key 1")).value is None
            large = random.Random(workers).randbytes(1 << 20)
            await kv.put(b"large", large)
            assert (await kv.get(b"large", certified=True)).value == large
            with pytest.raises(TooLongError):
                await kv.put(b"large", large + b"x")
            status = await kv.status()
            assert len(status["workers"]) == workers
            assert sum(worker["operations"] for worker in status["workers"]) >= 600
            listing = kv.keys()
            listed = [key async for key in listing]
            assert set(listed) == (RECORDS.keys() | {b"new", b"number", b"large"}) - {b"key 1"}
            assert len(listed) == len(set(listed))


@pytest.mark.parametrize("counts", [(1, 1), (1, 4, 2), (4, 1)])
async def test_a_restart_keeps_everything_on_any_number_of_workers(tmp_path: Path, counts: tuple[int, ...]) -> None:
    for start, workers in enumerate(counts):
        async with Service(tmp_path, workers=workers) as service:
            if start == 0:
                await fill(service)
            async with service.connected() as kv:
                await check_filled(kv)
                await kv.put(b"starts", b"%d" % start)  # provisional: a clean stop certifies it
    async with Service(tmp_path) as service, service.connected() as kv:
        assert (await kv.get(b"starts", certified=True)).value == b"%d" % (len(counts) - 1)
        assert (await kv.status())["certified_epoch"] >= len(counts)


async def test_a_client_lives_on_through_a_restart_on_fewer_workers(tmp_path: Path) -> None:
    port = str(free_port())
    async with Service(tmp_path, "--port", port, workers=4) as service, service.connected() as kv:
        await kv.put_many(RECORDS, certified=True)
        await asyncio.to_thread(service.stop)
        async with Service(tmp_path, "--port", port, workers=1):
            await check_filled(kv)


async def test_what_is_loaded_into_an_unverified_server_is_listed_at_once(tmp_path: Path) -> None:
    source = tmp_path / "records.jsonl"
    source.write_text("".join(f'{{"key": "{number}", "value": "v"}}\n' for number in range(5_000)))
    async with Service(tmp_path, verified=False, epoch_ms=1_000) as service:
        loaded = await asyncio.to_thread(service.zetakv, "load", str(source), "--unverified")
        assert loaded.stderr == b"5000 records loaded and durable, but unverified\n"
        exported = await asyncio.to_thread(service.zetakv, "export", "--unverified")
        assert len(exported.stdout.splitlines()) == 5_000


async def test_an_unverified_store_survives_a_restart(tmp_path: Path) -> None:
    async with Service(tmp_path, verified=False, workers=2) as service:
        await fill(service)
    async with Service(tmp_path, verified=False) as service, service.connected() as kv:
        await check_filled(kv)


async def test_an_idle_service_cuts_no_epochs(tmp_path: Path) -> None:
    async with Service(tmp_path, epoch_ms=20) as service, service.connected() as kv:
        await kv.put(b"key", b"value", certified=True)
        before = await kv.status()
        await asyncio.sleep(0.3)
        assert (await kv.status())["epoch"] == before["epoch"]


async def test_a_client_that_came_late_gets_all_former_certificates(tmp_path: Path) -> None:
    async with Service(tmp_path) as service, service.connected() as kv:
        for number in range(5):
            await kv.put(b"key", b"%d" % number, certified=True)
        epoch = kv.epoch
    async with Service(tmp_path, workers=2) as service:
        reader, writer = await asyncio.open_connection(*service.address.split(":"))
        await _frame(reader)  # greeting
        writer.write(struct.pack("<IBIH", 7, 0x04, 1, 1_000))
        epochs = []
        while len(epochs) < epoch + 1:  # one more from the clean stop
            kind, body = await _frame(reader)
            assert kind == 0x85
            epochs.append(int.from_bytes(body[36:40], "little"))
        assert epochs == list(range(1, epoch + 2))
        writer.close()


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(10):
        length = int.from_bytes(await reader.readexactly(4), "little")
        frame = await reader.readexactly(length)
    return frame[0], frame[1:]


BAD_INPUT = {
    "length zero": bytes(4),
    "too long": struct.pack("<IB", FRAME_BYTES_MAX + 1, 2),
    "unknown type": struct.pack("<IB", 1, 0x7F),
    "short request": struct.pack("<IB", 4, 0x02) + b"abc",
    "garbage request": struct.pack("<IB", 101, 0x02) + bytes([96, 0, 0, 0]) + bytes(96),
    "thread that does not exist": struct.pack("<IB", 101, 0x02) + b"\xff" * 100,
    "short hello": struct.pack("<IB", 3, 0x01) + b"ab",
    "short admin": struct.pack("<IB", 2, 0x05) + b"a",
    "garbage resume": struct.pack("<IB", 49, 0x03) + bytes(48),
    "short keys": struct.pack("<IB", 2, 0x07) + b"a",
    "short certificates": struct.pack("<IB", 2, 0x04) + b"a",
}


@pytest.mark.parametrize("verified", [True, False], ids=["verified", "unverified"])
async def test_bad_frames_of_one_client_do_not_disturb_another(tmp_path: Path, verified: bool) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    randomness = random.Random(seed)
    async with Service(tmp_path, workers=2, verified=verified) as service, service.connected() as kv:
        for name, data in BAD_INPUT.items():
            reader, writer = await asyncio.open_connection(*service.address.split(":"))
            assert (await _frame(reader))[0] == 0x80
            writer.write(data)
            kind, body = await _frame(reader)
            assert kind in (0x83, 0x8F), f"{name}: answered by {kind:#x}"
            if kind == 0x8F and body[0] in (1, 2, 3):
                assert await reader.read() == b"", f"{name}: the connection is not closed"
            writer.close()
            await kv.put(b"key", name.encode())
            assert (await kv.get(b"key", certified=True)).value == name.encode()
        for _ in range(50):
            _, writer = await asyncio.open_connection(*service.address.split(":"))
            writer.write(randomness.randbytes(randomness.randrange(1, 500)))
            writer.close()
        await kv.put(b"key", b"still here", certified=True)
        assert (await kv.status())["state"] == "ok"


@pytest.mark.parametrize("verified", [True, False], ids=["verified", "unverified"])
async def test_keys_are_listed_only_for_those_who_were_let_in(tmp_path: Path, verified: bool) -> None:
    async with Service(tmp_path, verified=verified) as service:
        reader, writer = await asyncio.open_connection(*service.address.split(":"))
        await _frame(reader)  # greeting
        writer.write(struct.pack("<IB32sI", 37, 0x07, bytes(32), 10))
        kind, body = await _frame(reader)
        if verified:
            assert (kind, body[:2]) == (0x8F, struct.pack("<H", 5))
            assert b"say hello first" in body
        else:
            assert (kind, body) == (0x89, bytes(4))
        writer.close()
        async with service.connected() as kv:
            async for key in kv.keys():
                pytest.fail(f"{key!r} was never put")


async def test_a_client_that_does_not_read_stops_no_one_else(tmp_path: Path) -> None:
    async with Service(tmp_path) as service, service.connected() as kv:
        _, writer = await asyncio.open_connection(*service.address.split(":"), limit=1)
        status = struct.pack("<IB", 1, 0x06)
        writer.write(status * 20_000)
        await kv.put(b"key", b"value", certified=True)
        assert (await kv.get(b"key")).value == b"value"
        writer.transport.abort()


async def test_kill_9_leaves_no_process_and_loses_nothing_certified(tmp_path: Path) -> None:
    async with Service(tmp_path, workers=2) as service:
        await fill(service)
        children = service.children()
        assert len(children) == 4  # two workers, checkpointer, monitor
        service.kill()
        await until(lambda: not any(map(is_alive, children)), "the children end with their supervisor")
    async with Service(tmp_path, workers=2) as service, service.connected() as kv:
        await check_filled(kv)


async def test_a_checkpointer_that_outlives_its_supervisor_cannot_write_below_the_next_server(tmp_path: Path) -> None:
    async with Service(tmp_path) as service:
        await fill(service)
        checkpointer = service.children()[0]  # it is started first
        os.kill(checkpointer, signal.SIGSTOP)
        async with service.connected() as kv:
            await kv.put_many(dict.fromkeys(RECORDS, b"later"))
            await until(lambda: service.status().json()["epoch_phase"] == "storing", "a checkpoint waits to be written")
        crashed = service.process
        assert crashed is not None
        os.kill(crashed.pid, signal.SIGKILL)
        process = service.spawn()
        await asyncio.sleep(1)
        assert "ready:" not in process.output
        os.kill(checkpointer, signal.SIGCONT)
        await asyncio.to_thread(crashed.wait)
        await asyncio.to_thread(service.wait_until_ready)
        async with service.connected() as kv:
            values = {answer.value for answer in await kv.get_many(RECORDS, certified=True)}
        assert values in ({b"later"}, set(RECORDS.values()))


async def test_a_monitor_that_cannot_start_is_the_one_thing_reported(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.admin_key.parent.mkdir(parents=True)
    service.admin_key.write_text("open to all")
    service.admin_key.chmod(0o644)
    refused = await asyncio.to_thread(service.start_refused)
    assert refused.code == 1
    assert "others can read it" in refused.stderr
    assert "never retrieved" not in refused.stderr


async def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async with Service(tmp_path):
        refused = await asyncio.to_thread(Service(tmp_path).start_refused)
        assert refused.code == 1
        assert "another server is running on the data directory" in refused.stderr


@pytest.mark.parametrize("verified", [True, False], ids=["verified", "unverified"])
async def test_verified_and_unverified_stores_are_not_mixed_up(tmp_path: Path, verified: bool) -> None:
    async with Service(tmp_path, verified=verified) as service:
        await fill(service)
    refused = await asyncio.to_thread(Service(tmp_path, verified=not verified).start_refused)
    assert refused.code == 1
    assert "--unverified" in refused.stderr
    assert "Traceback" not in refused.stderr


async def test_a_monitor_that_runs_apart_outlives_the_server(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="zk-") as short:  # a Unix socket's path is limited to 107 bytes
        monitor = await asyncio.to_thread(MonitorProcess(Path(short)).start)
        try:
            for workers in (1, 2):
                service = Service(tmp_path, "--monitor", f"unix:{monitor.socket}", workers=workers)
                service.admin_key = monitor.admin_key
                async with service:
                    if workers == 1:
                        await fill(service)
                    async with service.connected() as kv:
                        await check_filled(kv)
        finally:
            monitor.close()
    refused = await asyncio.to_thread(Service(tmp_path, "--monitor", "unix:/does/not/exist").start_refused)
    assert refused.code == 1
    assert "no monitor can be reached at unix:/does/not/exist" in refused.stderr


def edit_store(data: Path, key: bytes, row: bytes | None) -> None:
    config = ServeConfig(data=data)
    store = LmdbWriter(config.store_path, config.map_bytes_start)
    store.write([(store_key_of(key), row)])
    store.close()


_PARTITION_DEPTH = 6


def is_just_above(depth: int, bits: bytes, key: bytes) -> bool:
    """A node below a partition, of whose few records (at most 16) the key's is one: where a lie in a row is found."""
    unlike = int.from_bytes(bits) ^ int.from_bytes(store_key_of(key, whole=True)[1:])
    return _PARTITION_DEPTH < depth < 256 and unlike >> (256 - depth) == 0


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_changed_record_is_located_for_client_operator_and_status(tmp_path: Path, workers: int) -> None:
    async with Service(tmp_path, workers=workers) as service:
        await fill(service)
    edit_store(tmp_path / "data", b"key 7", encode_record(b"key 7", b"forged"))
    async with Service(tmp_path, workers=workers) as service:
        async with service.connected() as watcher:
            async with service.connected() as kv:
                with pytest.raises(ViolationError) as caught:
                    await kv.get(b"key 7", certified=True)
            assert caught.value.violation.name == "hash_mismatch"
            found = caught.value.violation
            assert is_just_above(found.key_depth, found.key_bits, b"key 7")
            with pytest.raises(ViolationError):
                await watcher.get(b"key 8")
        status = await asyncio.to_thread(service.zetakv, "status", "--json")
        assert status.returncode == 3
        bits, depth = json.loads(status.stdout)["violation"]["key"].split("/")
        assert is_just_above(int(depth), bytes.fromhex(bits).ljust(32, b"\0"), b"key 7")
        code, output = await service.ends(terminate=True)
        assert code == 3
        assert "INTEGRITY VIOLATION hash_mismatch" in output


async def test_a_lost_record_is_located(tmp_path: Path) -> None:
    """Its neighbours are read, and do not make what the node above them is known to be."""
    async with Service(tmp_path) as service:
        await fill(service)
    edit_store(tmp_path / "data", b"key 7", None)
    async with Service(tmp_path) as service:
        async with service.connected() as kv:
            with pytest.raises(ViolationError) as caught:
                await kv.get(b"key 7", certified=True)
        found = caught.value.violation
        assert found.name == "hash_mismatch"
        assert is_just_above(found.key_depth, found.key_bits, b"key 7")
        code, output = await service.ends(terminate=True)
        assert code == 3
        assert "INTEGRITY VIOLATION hash_mismatch" in output


async def test_an_older_copy_of_the_store_is_refused_by_name(tmp_path: Path) -> None:
    async with Service(tmp_path) as service:
        await fill(service)
    shutil.copytree(service.store, tmp_path / "copy")
    async with Service(tmp_path) as service, service.connected() as kv:
        await kv.put(b"key 1", b"newer", certified=True)
    shutil.rmtree(service.store)
    shutil.copytree(tmp_path / "copy", service.store)
    refused = await asyncio.to_thread(Service(tmp_path).start_refused)
    assert refused.code == 3
    assert "INTEGRITY VIOLATION rollback" in refused.stderr
    assert "Traceback" not in refused.stderr
