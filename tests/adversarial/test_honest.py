"""The opposite of all other files here: an honest host is never accused, whatever its clients do.

Each run ends with every receipt certified and the state `ok`. Seeds are printed, and taken from ZETAKV_TEST_SEED.
"""

import asyncio
import os
import random
import struct
from collections import Counter

import pytest
from _harness import verifier_log
from _harness.client_frames import ERROR, HELLO, REQUEST
from _harness.expect import unharmed
from _harness.raw import answer_to, say_and_leave
from _harness.service import Interpose, Launch, Service
from blake3 import blake3
from kvstore_client import KV, TooLongError
from support.frames import Frame, FrameProxy

_SEED = int(os.environ.get("ZETAKV_TEST_SEED", random.randrange(1 << 32)))
_KEYS = 400


class _Mirror:
    """A client that knows what every answer must be, since nobody else uses its keys."""

    def __init__(self, kv: KV, name: str, seed: int) -> None:
        print(f"seed of {name}: {seed}")
        self._kv = kv
        self._random = random.Random(seed)
        self._keys = [f"{name}/{i}".encode() for i in range(_KEYS)]
        self._values: dict[bytes, bytes | None] = {}

    async def run(self, rounds: int, batch: int = 40) -> None:
        """Random operations in batches; every answer is compared, and certified at the end."""
        for _ in range(rounds):
            keys = self._random.sample(self._keys, batch)
            await asyncio.gather(*(self._one(key) for key in keys))
        await self._kv.barrier()

    async def check(self) -> None:
        keys = list(self._values)
        for key, answer in zip(keys, await self._kv.get_many(keys, certified=True), strict=True):
            assert answer.value == self._values[key], key

    def renewed(self, kv: KV) -> "_Mirror":
        self._kv = kv
        return self

    async def _one(self, key: bytes) -> None:
        kv, current = self._kv, self._values.get(key)
        value = self._random.randbytes(self._random.choice([0, 8, 32, 33, 200]))
        match self._random.randrange(5):
            case 0:
                self._values[key] = value
                await kv.put(key, value)
            case 1:
                self._values[key] = None
                await kv.delete(key)
            case 2:
                if current is None:
                    self._values[key] = value
                assert (await kv.insert(key, value)).applied is (current is None)
            case 3:
                self._values[key] = value
                assert (await kv.compare_and_set(key, current, value)).applied
            case _:
                assert (await kv.get(key)).value == current


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_many_epochs_and_clients(launch: Launch, workers: int) -> None:
    """Epochs of 50 ms under load, with pauses in which nothing happens."""
    service = await launch(workers=workers, epoch_ms=50)
    async with service.client() as one, service.client() as two:
        mirrors = [_Mirror(one, "one", _SEED), _Mirror(two, "two", _SEED + 1)]
        for _ in range(3):
            await asyncio.gather(*(mirror.run(8) for mirror in mirrors))
            await asyncio.sleep(0.15)
        for mirror in mirrors:
            await mirror.check()
    await unharmed(service)
    await service.stop()


@pytest.mark.parametrize(
    "options",
    [("--slots", "1024", "--hot-records", "0"), ("--slots", "1024", "--hot-records", "50"), ("--slots", "1024")],
    ids=["nothing hot", "little hot", "all hot"],
)
async def test_small_cache(launch: Launch, options: tuple[str, ...]) -> None:
    """More records than slots, so that they come and go all the time."""
    service = await launch(*options, workers=2, epoch_ms=50)
    async with service.client() as kv:
        await kv.put_many([(b"filler %d" % i, b"%d" % i) for i in range(4_000)], certified=True)
        mirror = _Mirror(kv, "small", _SEED)
        await mirror.run(10)
        answers = await kv.get_many([b"filler %d" % i for i in range(4_000)], certified=True)
        assert [answer.value for answer in answers] == [b"%d" % i for i in range(4_000)]
        await mirror.check()
    await unharmed(service)
    await service.stop()


async def test_restarts_with_other_numbers_of_workers(launch: Launch, interpose: Interpose) -> None:
    """Clean stops and crashes; what was certified is there, by the same monitor, in one chain of certificates."""
    service = await launch(workers=1, epoch_ms=50)
    proxy = await interpose(service)
    async with service.client(proxy) as kv:
        mirror = _Mirror(kv, "restarts", _SEED)
        for number, workers in enumerate((1, 2, 4, 4, 1, 2)):
            await mirror.run(4)
            if number % 2:
                service.server.kill()
            else:
                await service.stop()
            service.server.options[1] = str(workers)
            await service.start()
            proxy.upstream = service.address
            await mirror.check()
    await unharmed(service)
    await service.stop()


async def test_restarts_with_a_monitor_run_apart(launch: Launch) -> None:
    """The monitor outlives the host, whose next incarnation comes while the former one is still being taken down."""
    service = await launch(workers=2, epoch_ms=50, through_proxy=True)
    for number in range(4):
        async with service.client() as kv:
            assert (await kv.increment(b"counter", 1, certified=True)).value == number + 1
        if number % 2:
            await asyncio.to_thread(service.server.kill)
        else:
            await service.stop()
        await service.start()
    await unharmed(service)


async def test_start_and_stop_with_nothing_to_do(launch: Launch) -> None:
    service = await launch(workers=2, start=False)
    for _ in range(2):
        await service.start()
        await service.stop()
    await service.start()
    await unharmed(service)


async def test_idle_worker_and_idle_epochs(launch: Launch) -> None:
    """All load on one key, so on one of four workers; then nothing, then the others."""
    service = await launch(workers=4, epoch_ms=50)
    async with service.client() as kv:
        for number in range(1, 21):
            assert (await kv.increment(b"counter")).value == number
            await asyncio.sleep(0.02)
        await kv.barrier()
        epoch = kv.epoch
        await asyncio.sleep(0.5)
        assert kv.epoch <= epoch + 1, "an idle service cuts no epochs"
        await _Mirror(kv, "others", _SEED).run(5)
    await unharmed(service)
    await service.stop()


_GARBAGE = [
    (b"\x00\x00\x00\x00", 1),
    (b"\xff\xff\xff\xff\x02", 3),
    (Frame(0x7E, b"").packed(), 2),
    (Frame(REQUEST, b"\x01").packed(), 1),
    (Frame(REQUEST, struct.pack("<I", 1 << 31) + bytes(40)).packed(), 1),
    (Frame(HELLO, b"short").packed(), 4),
]


@pytest.mark.parametrize(("garbage", "code"), _GARBAGE)
async def test_client_that_sends_garbage(shared: Service, garbage: bytes, code: int) -> None:
    answer = await answer_to(shared.address, garbage)
    assert (answer.kind, *struct.unpack_from("<H", answer.body)) == (ERROR, code)
    await unharmed(shared)


async def test_random_bytes_and_half_frames(shared: Service) -> None:
    print(f"seed: {_SEED}")
    generator = random.Random(_SEED)
    for _ in range(60):
        body = generator.randbytes(generator.randrange(200))
        frame = Frame(generator.choice([1, 2, 3, 4, 5, 6, 7, generator.randrange(256)]), body).packed()
        await say_and_leave(shared.address, frame[: generator.choice([len(frame), generator.randrange(len(frame))])])
    await unharmed(shared)


async def test_requests_with_wrong_macs_between_right_ones(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """Requests of strangers reach the same batch as a client's own."""
    get = b"\x01" + blake3(b"k").digest()
    stranger = struct.pack("<QIHHQQ", 7, 1, 0, 1, 1, 0) + get + bytes(16)
    frame = Frame(REQUEST, struct.pack("<I", len(stranger)) + stranger)
    async with shared.client(wire) as kv:
        for number in range(1, 30):
            wire.links[-1].send_up(frame)
            assert (await kv.increment(key)).value == number
        await kv.barrier()
    await unharmed(shared)


async def test_keys_and_values_at_their_limits(shared: Service, key: bytes) -> None:
    async with shared.client() as kv:
        longest_key, longest_value = key.ljust(4_096, b"k"), b"v" * (1 << 20)
        await kv.put(longest_key, longest_value, certified=True)
        assert (await kv.get(longest_key, certified=True)).value == longest_value
        for call in (kv.put(longest_key + b"k", b""), kv.put(key, longest_value + b"v")):
            with pytest.raises(TooLongError):
                await call
        await kv.put(b"", b"", certified=True)
        assert (await kv.get(b"", certified=True)).value == b""
    await unharmed(shared)


async def test_many_sessions_and_broken_connections(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """Clients come and go, some in the middle of an answer; the numbers add up."""

    async def count(number: int) -> None:
        async with shared.client(wire if number % 2 else None) as kv:
            for _ in range(5):
                await kv.increment(key + b"/%d" % number, 1)
                if number % 4 == 1:
                    wire.links[number % len(wire.links)].cut()
            await kv.barrier()

    await asyncio.gather(*(count(number) for number in range(0, 24, 2)))
    async with shared.client() as kv:
        numbers = await kv.get_many([key + b"/%d" % number for number in range(0, 24, 2)], certified=True)
        assert [answer.value for answer in numbers] == [struct.pack("<q", 5)] * 12
    await unharmed(shared)


async def test_all_entries_of_an_honest_log(launch: Launch) -> None:
    """What the man in the middle before the monitor decodes and encodes again is what an honest host writes."""
    service = await launch("--slots", "1024", "--hot-records", "20", epoch_ms=50, workers=2, through_proxy=True)
    service.proxy.record = True
    async with service.client() as kv:
        await _Mirror(kv, "logs", _SEED).run(10)
        assert (await kv.get(b"never written", certified=True)).value is None
    await unharmed(service)
    seen = Counter(type(entry) for log in service.proxy.logs.values() for entry in log)
    expected = {
        verifier_log.AddMerkle,
        verifier_log.EvictMerkle,
        verifier_log.AddBlum,
        verifier_log.EvictBlum,
        verifier_log.NextEpoch,
        verifier_log.CarryOver,
        verifier_log.VerifyEpoch,
        verifier_log.Request,
        verifier_log.Run,
    }
    assert expected <= seen.keys(), seen
