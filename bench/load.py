"""A client process that loads a server through the SDK, and reports what it saw.

Closed loop: each process keeps a fixed number of calls of `get_many` and `put_many` in flight. Keys are drawn
uniformly. Throughput counts answered operations (receipts checked); certification latency is the time from an answer
to its certificate.
"""

import asyncio
import os
import random
import time
from dataclasses import dataclass, field

from kvstore_client import KV, connect

from bench.service import Service

CALLS_IN_FLIGHT = 4
LOAD_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one client process does. Sizes in bytes; `batch` operations per call; `reads`: the share of gets, 0 to 1."""

    records: int
    value_bytes: int
    batch: int
    reads: float
    seconds: float
    seed: int


@dataclass
class Observed:
    """Operations answered per second, and samples of the time to certification in seconds."""

    operations_per_second: float = 0.0
    certification_seconds: list[float] = field(default_factory=list)


def key_of(number: int) -> bytes:
    return number.to_bytes(8, "big")


def load_records(service: Service, workload: Workload) -> None:
    """Put every record once, and wait until all are certified."""
    asyncio.run(_load_records(service, workload))


def run_client(service: Service, workload: Workload) -> Observed:
    """One client process's share of a measurement."""
    return asyncio.run(_run_client(service, workload))


def _connect(service: Service) -> KV:
    os.environ["ZETAKV_HOME"] = str(service.home)
    return connect(service.address, monitor=service.fingerprint, unverified=service.fingerprint is None)


async def _load_records(service: Service, workload: Workload) -> None:
    async with _connect(service) as kv:
        for start in range(0, workload.records, LOAD_BATCH):
            numbers = range(start, min(start + LOAD_BATCH, workload.records))
            await kv.put_many([(key_of(number), os.urandom(workload.value_bytes)) for number in numbers])
        await kv.barrier()


async def _run_client(service: Service, workload: Workload) -> Observed:
    generator = random.Random(workload.seed)
    observed = Observed()
    answered = 0
    value = generator.randbytes(workload.value_bytes)

    async with _connect(service) as kv:
        started = time.perf_counter()
        end = started + workload.seconds
        sampling: set[asyncio.Task[None]] = set()

        async def sample_certification() -> None:
            receipt = await kv.put(key_of(generator.randrange(workload.records)), value)
            answered_at = time.perf_counter()
            await receipt.certified()
            observed.certification_seconds.append(time.perf_counter() - answered_at)

        async def caller() -> None:
            nonlocal answered
            while time.perf_counter() < end:
                keys = [key_of(generator.randrange(workload.records)) for _ in range(workload.batch)]
                if generator.random() < workload.reads:
                    await kv.get_many(keys)
                else:
                    await kv.put_many([(key, value) for key in keys])
                answered += workload.batch

        async def sampler() -> None:
            while time.perf_counter() < end:
                sampling.add(asyncio.create_task(sample_certification()))
                await asyncio.sleep(0.05)

        await asyncio.gather(sampler(), *(caller() for _ in range(CALLS_IN_FLIGHT)))
        observed.operations_per_second = answered / (time.perf_counter() - started)
        await asyncio.gather(*sampling)
    return observed
