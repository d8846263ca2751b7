"""`--durability wal`, with real processes: what was answered survives a crash though nothing of it was certified.

Epochs last a minute here, so no certificate comes by itself; a clean stop makes one.
"""

import asyncio
import struct
from pathlib import Path

import pytest
from crash.plans import FailpointDirectory, Plan
from kvstore_client import KV, ProvisionalLostError, connect
from log_files import LogFiles
from service import Service
from support.ports import free_port
from support.server import ProcessEndedError

LONG_MS = 60_000
EXIT_VIOLATION = 3


def service_at(
    directory: Path, port: int, *more: str, durability: str = "wal", workers: int = 1, epoch_ms: int = LONG_MS
) -> Service:
    options = ("--durability", durability, "--port", str(port), *more)
    return Service(directory, *options, workers=workers, epoch_ms=epoch_ms)


async def started(service: Service) -> Service:
    return await asyncio.to_thread(service.start)


def client_of(service: Service) -> KV:
    return connect(service.address, monitor=service.fingerprint, key=service.admin_key, timeout=20)


async def count(kv: KV, key: bytes, times: int) -> list[int]:
    answers = await asyncio.gather(*(kv.increment(key) for _ in range(times)))
    return sorted(answer.value for answer in answers)


async def value(kv: KV, key: bytes) -> int:
    return int(struct.unpack("<q", (await kv.get(key)).value or bytes(8))[0])


@pytest.mark.parametrize("workers", [1, 2])
async def test_answers_survive_crash_after_crash(tmp_path: Path, workers: int) -> None:
    port = free_port()
    service = await started(service_at(tmp_path, port, workers=workers))
    try:
        async with client_of(service) as kv:
            keys = [b"%d" % key for key in range(16)]
            answers = [await kv.increment(key) for key in keys]
            assert (await kv.status())["durability"] == "wal"
            for crash in (2, 3):
                service.kill()
                await started(service)
                answers += [await kv.increment(key) for key in keys]
                assert [await value(kv, key) for key in keys] == [crash] * len(keys)
            assert not any(answer.is_certified for answer in answers)
            assert (await kv.status())["certified_epoch"] == 0
            service.kill()
            service = await started(service_at(tmp_path, port, workers=workers, epoch_ms=50))
            await asyncio.gather(*(answer.certified(10) for answer in answers))
            assert [await value(kv, key) for key in keys] == [3] * len(keys)
        await asyncio.to_thread(service.stop)
        assert not list((service.data / "wal").glob("worker-*")), "certified segments are deleted"
    finally:
        service.close()


@pytest.mark.parametrize(("durability", "workers"), [("wal", 2), ("epoch", 1), ("epoch", 4)])
async def test_other_options_after_a_crash(tmp_path: Path, durability: str, workers: int) -> None:
    port = free_port()
    service = await started(service_at(tmp_path, port))
    try:
        async with client_of(service) as staying:
            answers = [await staying.increment(b"n") for _ in range(20)]
            service.kill()
            service = await started(service_at(tmp_path, port, durability=durability, workers=workers))
            async with client_of(service) as kv:
                assert await value(kv, b"n") == 20
                assert (await kv.status())["certified_epoch"] == 1, "certified before clients are let in"
                assert await count(kv, b"n", 2) == [21, 22]
            assert await value(staying, b"n") == 22
            for answer in answers:
                await answer.certified(10)
    finally:
        service.close()


@pytest.mark.parametrize(("durability", "workers"), [("wal", 2), ("epoch", 1)])
async def test_stop_while_a_log_of_other_options_is_replayed_keeps_it(
    tmp_path: Path, durability: str, workers: int
) -> None:
    port = free_port()
    service = await started(service_at(tmp_path, port))
    try:
        async with client_of(service) as kv:
            await count(kv, b"n", 20)
        service.kill()
        service = service_at(tmp_path, port, durability=durability, workers=workers)
        process = service.spawn()
        await asyncio.to_thread(process.wait_for, "was left behind")
        code, output = await service.ends(terminate=True)
        assert code == 0
        assert "it is kept" in output
        assert "ready:" not in output
        await started(service)
        async with client_of(service) as kv:
            assert await value(kv, b"n") == 20
    finally:
        service.close()


async def test_crashes_during_the_start(tmp_path: Path) -> None:
    service = await started(service_at(tmp_path, 0))
    async with client_of(service) as kv:
        await count(kv, b"n", 50)
    service.kill()
    for milliseconds in (200, 400, 600, 800):
        process = service.spawn()
        await asyncio.sleep(milliseconds / 1000)
        process.kill()
    await started(service)
    try:
        async with client_of(service) as kv:
            assert await count(kv, b"n", 1) == [51]
    finally:
        service.close()


@pytest.mark.parametrize(
    ("point", "hit"),
    [("worker.in_replay", 20), ("supervisor.before_live", 1), ("wal.before_sync", 1), ("wal.after_sync", 1)],
)
async def test_crash_at_a_step_of_the_replay(tmp_path: Path, point: str, hit: int) -> None:
    failpoints = FailpointDirectory(tmp_path / "failpoints")
    service = await started(service_at(tmp_path, 0))
    async with client_of(service) as kv:
        for _ in range(30):
            await kv.increment(b"n")
    service.kill()
    service.environment = {"ZETAKV_FAILPOINTS": str(failpoints.path)}
    failpoints.arm(Plan(point, hit, "kill-all"))
    with pytest.raises(ProcessEndedError):
        await started(service)
    service.kill()
    assert failpoints.fired
    await started(service)
    try:
        async with client_of(service) as kv:
            assert await count(kv, b"n", 1) == [31]
    finally:
        service.close()


@pytest.mark.parametrize(
    "limits", [(), ("--key-bytes", "5", "--value-bytes", "100")], ids=["same_limits", "lower_limits"]
)
async def test_large_values_and_refusals_are_replayed(tmp_path: Path, limits: tuple[str, ...]) -> None:
    """Also what is longer than what may be asked for by now."""
    service = await started(service_at(tmp_path, 0))
    large = bytes(range(256)) * 300
    async with client_of(service) as kv:
        await kv.put(b"large", large)
        await kv.put(b"a key of some length", b"1")
        assert not (await kv.insert(b"large", b"x")).applied
        await kv.delete(b"gone")
    service.kill()
    service = await started(service_at(tmp_path, 0, *limits))
    try:
        async with client_of(service) as kv:
            assert (await kv.get(b"large")).value == large
            assert not (await kv.insert(b"large", b"x")).applied
    finally:
        service.close()


async def test_more_is_replayed_than_memory_allows_between_two_cuts(tmp_path: Path) -> None:
    """The cut that it asks for waits for the end of the replay: in the middle, an honest host would be accused."""
    service = await started(service_at(tmp_path, 0))
    async with client_of(service) as kv:
        await kv.put_many([(b"%d" % number, bytes(100_000)) for number in range(64)])
    service.kill()
    service = await started(service_at(tmp_path, 0, "--memory", "304MiB"))
    try:
        async with client_of(service) as kv:
            for _ in range(100):  # not after a minute
                status = await kv.status()
                if status["certified_epoch"] > 0:
                    break
                await asyncio.sleep(0.1)
            assert (status["state"], status["restarts"], status["certified_epoch"]) == ("ok", 0, 1)
    finally:
        service.close()


async def test_tickets_of_sessions_in_which_nothing_ran_are_certified_at_the_next_start(tmp_path: Path) -> None:
    """Else they would pile up from start to start, until no session could be opened any more."""
    port = free_port()
    service = await started(service_at(tmp_path, port))
    try:
        async with client_of(service):
            pass
        service.kill()
        tickets = service.data / "wal"
        assert any(segment.stat().st_size > 0 for segment in tickets.glob("tickets-*"))
        service = await started(service_at(tmp_path, port, epoch_ms=50))
        async with asyncio.timeout(20):
            while list(tickets.glob("tickets-*")):  # noqa: ASYNC110 - another process deletes them
                await asyncio.sleep(0.05)
    finally:
        service.close()


async def test_end_of_the_log_that_was_lost_is_reported(tmp_path: Path) -> None:
    port = free_port()
    service = await started(service_at(tmp_path, port))
    log = LogFiles(service.data)
    try:
        async with client_of(service) as kv:
            answers = [await kv.increment(b"n") for _ in range(6)]
            service.kill()
            records = log.records()
            log.rewrite(records[:-2])
            service = await started(service_at(tmp_path, port, epoch_ms=50))
            assert await value(kv, b"n") == 4
            for answer in answers[:4]:
                await answer.certified(10)
            for answer in answers[4:]:
                with pytest.raises(ProvisionalLostError):
                    await answer.certified(10)
    finally:
        service.close()


async def _refused(service: Service, name: str) -> None:
    result = await asyncio.to_thread(service.start_refused)
    assert result.code == EXIT_VIOLATION, result
    assert name in result.stderr


async def test_changed_request_is_found(tmp_path: Path) -> None:
    service = await started(service_at(tmp_path, 0))
    async with client_of(service) as kv:
        await kv.put(b"key", b"old value")
        await kv.put(b"other", b"v")
    service.kill()
    log = LogFiles(service.data)
    records = log.records()
    assert sum(b"old value" in record for record in records) == 1
    log.rewrite([record.replace(b"old value", b"new value") for record in records])
    await _refused(service, "log_changed")


async def test_request_that_was_left_out_is_found(tmp_path: Path) -> None:
    service = await started(service_at(tmp_path, 0))
    async with client_of(service) as kv:
        for _ in range(3):
            await kv.increment(b"n")
    service.kill()
    log = LogFiles(service.data)
    records = log.records()
    log.rewrite(records[:-2] + records[-1:])
    await _refused(service, "log_changed")


async def test_longer_log_of_before_a_newer_incarnation_is_found(tmp_path: Path) -> None:
    """The host cuts the log, a new incarnation tells clients what is lost, and then the host brings it back."""
    service = await started(service_at(tmp_path, 0))
    async with client_of(service) as kv:
        for _ in range(6):
            await kv.increment(b"n")
    service.kill()
    log = LogFiles(service.data)
    log.copy_to(tmp_path / "longer")
    log.rewrite(log.records()[:-3])
    await started(service)
    async with client_of(service) as kv:
        assert await value(kv, b"n") == 3
    service.kill()
    log.put_back(tmp_path / "longer")
    await _refused(service, "log_changed")


async def test_log_of_another_store_is_found(tmp_path: Path) -> None:
    services = [service_at(tmp_path / name, 0) for name in ("a", "b")]
    for service in services:
        service.home.parent.mkdir()
        await started(service)
        async with client_of(service) as kv:
            await kv.increment(b"n")
        service.kill()
    LogFiles(services[0].data).put_back(services[1].data / "wal")
    await _refused(services[0], "log_changed")


async def test_damage_that_is_no_torn_tail_names_the_file_and_the_way_out(tmp_path: Path) -> None:
    service = await started(service_at(tmp_path, 0))
    async with client_of(service) as kv:
        for _ in range(3):
            await kv.increment(b"n")
    service.kill()
    path = next(iter(sorted((service.data / "wal").glob("worker-*"))))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    result = await asyncio.to_thread(service.start_refused)
    assert result.code == 1
    assert path.name in result.stderr
    assert "move the file away" in result.stderr
