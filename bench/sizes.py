"""What a store of many records takes: disk after overwrites, memory, and the time to come back after a crash.

Records are loaded, then overwritten at random; the whole service is killed in the middle of more overwrites, and
started again; then the monitor alone is killed. Every value names its key and its version, so what is read afterwards
is checked: not older than what was certified before the crash, not newer than what was sent.
"""

import asyncio
import contextlib
import os
import random
import statistics
import tempfile
import time
from array import array
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from kvstore_client import KV, KVStoreError, connect
from rich.progress import Progress, TaskID

from bench.processes import MemoryPeak, kill_family, kill_member
from bench.service import Service, server_in, server_options

KEY_BYTES = 16
BATCH = 4096
BATCHES_IN_FLIGHT = 4
CRASH_AFTER_SECONDS = 3.0
CHECKED_RECORDS = 20_000


@dataclass(frozen=True, kw_only=True)
class SizesBenchmark:
    """`overwrites`: how many, at random. `memory`: the server's option, if given. `crashes`: how often it is killed."""

    records: int
    value_bytes: int
    overwrites: int
    crashes: int
    workers: int
    epoch_ms: int
    memory: str | None
    seed: int

    @property
    def raw_bytes(self) -> int:
        return self.records * (KEY_BYTES + self.value_bytes)

    @property
    def options(self) -> list[str]:
        return server_options(self.workers, self.epoch_ms, self.memory)


class Records:
    """What was sent, and what of it is known to be certified: versions by record number, from 1."""

    def __init__(self, benchmark: SizesBenchmark) -> None:
        self._value_bytes = benchmark.value_bytes
        self.sent = array("I", bytes(4 * benchmark.records))
        self.certified = array("I", bytes(4 * benchmark.records))

    def next_put(self, number: int) -> tuple[bytes, bytes]:
        self.sent[number] += 1
        return key_of(number), self.value(number, self.sent[number])

    def value(self, number: int, version: int) -> bytes:
        return blake3(b"%d/%d" % (number, version)).digest(length=self._value_bytes)

    def all_certified(self) -> None:
        self.certified = array("I", self.sent)

    def check(self, number: int, value: bytes | None) -> None:
        """Raises AssertionError if a certified write is not there, or something that was never sent is."""
        versions = range(self.certified[number], self.sent[number] + 1)
        if all(value != self.value(number, version) for version in versions):
            raise AssertionError(f"record {number} has none of its versions {versions.start} to {versions.stop - 1}")
        self.sent[number] = next(version for version in versions if value == self.value(number, version))


def key_of(number: int) -> bytes:
    return b"%0*d" % (KEY_BYTES, number)


def run(benchmark: SizesBenchmark) -> dict[str, float]:
    """All measurements, as what the JSON file holds: bytes and seconds."""
    records, chance, memory = Records(benchmark), random.Random(benchmark.seed), MemoryPeak()
    with tempfile.TemporaryDirectory(prefix="zetakv-bench-") as name, Progress() as progress:
        folder = Path(name)
        with server_in(folder, benchmark.options) as service, memory.watching(service.pid):
            load = progress.add_task("load", total=benchmark.records)
            load_seconds = asyncio.run(_write(service, records, list(range(benchmark.records)), progress, load))
            loaded_bytes = store_bytes(folder)
            overwrite = progress.add_task("overwrite", total=benchmark.overwrites)
            numbers = [chance.randrange(benchmark.records) for _ in range(benchmark.overwrites)]
            overwrite_seconds = asyncio.run(_write(service, records, numbers, progress, overwrite))
        overwritten_bytes = store_bytes(folder)
        starts, monitor_deaths = [], []
        crash = progress.add_task("crash and recover", total=benchmark.crashes)
        for _ in range(benchmark.crashes):
            with server_in(folder, benchmark.options) as service, memory.watching(service.pid):
                asyncio.run(_write_until_killed(service, records, chance))
            started = time.perf_counter()
            with server_in(folder, benchmark.options) as service, memory.watching(service.pid):
                ready_seconds = time.perf_counter() - started
                asyncio.run(_read_one(service, records, chance))
                starts.append((ready_seconds, time.perf_counter() - started))
                asyncio.run(_read_and_check(service, records, chance))
                monitor_deaths.append(asyncio.run(_kill_monitor(service, records, chance)))
            progress.advance(crash)
        final_bytes = store_bytes(folder)
    return {
        "raw_bytes": benchmark.raw_bytes,
        "loaded_bytes": loaded_bytes,
        "overwritten_bytes": overwritten_bytes,
        "final_bytes": final_bytes,
        "loads_per_second": benchmark.records / load_seconds,
        "overwrites_per_second": benchmark.overwrites / overwrite_seconds,
        "ready_seconds": statistics.median(ready for ready, _ in starts),
        "first_certified_seconds": statistics.median(certified for _, certified in starts),
        "first_certified_seconds_max": max(certified for _, certified in starts),
        "monitor_death_seconds": statistics.median(monitor_deaths),
        "monitor_death_seconds_max": max(monitor_deaths),
        "memory_bytes_max": memory.bytes,
    }


def store_bytes(folder: Path) -> int:
    """What the data directory takes on disk."""
    files = (path for path in (folder / "data").rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_blocks * 512 for path in files)


def _connect(service: Service) -> contextlib.AbstractAsyncContextManager[KV]:
    os.environ["ZETAKV_HOME"] = str(service.home)
    return connect(service.address, monitor=service.fingerprint)


async def _write(service: Service, records: Records, numbers: list[int], progress: Progress, task: TaskID) -> float:
    """Write the records, wait until all is certified; returns the seconds that it took."""
    started = time.perf_counter()
    batches = iter(range(0, len(numbers), BATCH))

    async def writer(kv: KV) -> None:
        for start in batches:
            batch = dict.fromkeys(numbers[start : start + BATCH])
            await kv.put_many([records.next_put(number) for number in batch])
            progress.advance(task, len(numbers[start : start + BATCH]))

    async with _connect(service) as kv:
        async with asyncio.TaskGroup() as writers:
            for _ in range(BATCHES_IN_FLIGHT):
                writers.create_task(writer(kv))
        await kv.barrier()
    records.all_certified()
    return time.perf_counter() - started


async def _write_until_killed(service: Service, records: Records, chance: random.Random) -> None:
    """Overwrite for some seconds, then kill everything in the middle of it."""

    async def writer(kv: KV) -> None:
        while True:
            batch = {chance.randrange(len(records.sent)) for _ in range(BATCH)}
            await kv.put_many([records.next_put(number) for number in batch])

    async with _connect(service) as kv:
        writers = [asyncio.create_task(writer(kv)) for _ in range(BATCHES_IN_FLIGHT)]
        await asyncio.sleep(CRASH_AFTER_SECONDS)
        kill_family(service.pid)
        for task in writers:
            task.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        with contextlib.suppress(KVStoreError):
            await kv.close()


async def _read_one(service: Service, records: Records, chance: random.Random) -> None:
    number = chance.randrange(len(records.sent))
    async with _connect(service) as kv:
        records.check(number, (await kv.get(key_of(number), certified=True)).value)


async def _kill_monitor(service: Service, records: Records, chance: random.Random) -> float:
    """The seconds from the monitor's death to the next answer, through the same connection."""
    number = chance.randrange(len(records.sent))
    async with _connect(service) as kv:
        records.check(number, (await kv.get(key_of(number))).value)
        kill_member(service.pid, "zetakv-monitor")
        started = time.perf_counter()
        records.check(number, (await kv.get(key_of(number))).value)
        return time.perf_counter() - started


async def _read_and_check(service: Service, records: Records, chance: random.Random) -> None:
    """Check a sample, certified. What is there now is what later checks begin from."""
    count = len(records.sent)
    numbers = range(count) if count <= CHECKED_RECORDS else chance.sample(range(count), CHECKED_RECORDS)
    async with _connect(service) as kv:
        answers = await kv.get_many([key_of(number) for number in numbers])
        await kv.barrier()
    for number, answer in zip(numbers, answers, strict=True):
        records.check(number, answer.value)
        records.certified[number] = records.sent[number]
