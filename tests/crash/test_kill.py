"""Crashes: the whole service is killed again and again while clients count, and what they were told must be true.

Each client increments counters of its own, and notes of each increment whether it was *certified*, is *gone* (the SDK
said so, finally), or *open* (neither). At the end every counter must hold all that was certified, and nothing that is
gone:

    certified <= value <= certified + open

A longer run: `ZETAKV_CRASHES=200 pytest tests/crash`. The seed is printed; `ZETAKV_SEED` takes it back.
"""

import asyncio
import os
import random
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path

import pytest
from kvstore_client import KV, IntegrityError, KVStoreError, NotAppliedError, ProvisionalLostError, connect
from support.server import Server

CRASHES = int(os.environ.get("ZETAKV_CRASHES", "3"))
CLIENTS = 4
COUNTERS = 8
EPOCH_MS = 100
SERVED_SECONDS = (0.1, 1.5)
"""How long the service runs between two crashes."""


class Fate(Enum):
    CERTIFIED = "certified"
    GONE = "gone"
    OPEN = "open"


Notes = Counter[tuple[bytes, Fate]]


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zk-") as path:
        yield Path(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def increment(kv: KV, key: bytes, notes: Notes) -> None:
    """One increment, and what became of it."""
    fate = Fate.OPEN
    try:
        answer = await kv.increment(key, 1)
        await answer.certified()
        fate = Fate.CERTIFIED
    except (NotAppliedError, ProvisionalLostError):
        fate = Fate.GONE
    except IntegrityError:
        raise  # nobody lies here
    except KVStoreError:
        pass
    finally:
        notes[key, fate] += 1  # also where the task is cancelled


async def count(connection: KV, client: int, notes: Notes, chance: random.Random) -> None:
    """Increment for ever, several at a time."""
    async with connection as kv, asyncio.TaskGroup() as increments:
        while True:
            key = f"{client}/{chance.randrange(COUNTERS)}".encode()
            increments.create_task(increment(kv, key, notes))
            await asyncio.sleep(chance.uniform(0, 0.02))


async def crash_again_and_again(server: Server, chance: random.Random) -> None:
    for _ in range(CRASHES):
        await asyncio.sleep(chance.uniform(*SERVED_SECONDS))
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    await asyncio.sleep(1)


@pytest.mark.timeout(60 + 10 * CRASHES)
@pytest.mark.parametrize("workers", [1, 2])
async def test_what_clients_were_told_is_true_after_crashes(workers: int, directory: Path, seed: int) -> None:
    options = ["--workers", str(workers), "--epoch-ms", str(EPOCH_MS), "--port", str(free_port())]
    server = await asyncio.to_thread(Server(directory, options).start)
    monitor = (server.data / "monitor/fingerprint").read_text().strip()
    notes: Notes = Counter()
    chance = random.Random(seed)

    def connection() -> KV:
        return connect(server.address, monitor=monitor, key=server.admin_key)

    try:
        chances = [random.Random(chance.randbytes(8)) for _ in range(CLIENTS)]
        clients = [
            asyncio.create_task(count(connection(), client, notes, chances[client])) for client in range(CLIENTS)
        ]
        crashes = asyncio.create_task(crash_again_and_again(server, chance))
        done, _ = await asyncio.wait([crashes, *clients], return_when=asyncio.FIRST_COMPLETED)
        for client in clients:
            client.cancel()
        for task in done:
            await task  # raises what a client, or a start, has failed with
        for client in clients:
            with suppress(asyncio.CancelledError):
                await client

        assert (await asyncio.to_thread(server.status)).json()["state"] == "ok"
        async with connection() as kv:
            for key in sorted({key for key, _ in notes}):
                answer = await kv.get(key, certified=True)
                value = int.from_bytes(answer.value or b"", "little")
                certified, may_be = notes[key, Fate.CERTIFIED], notes[key, Fate.OPEN]
                assert certified <= value <= certified + may_be, (key, value, certified, may_be)
        totals = {fate: sum(notes[key, fate] for key in {key for key, _ in notes}) for fate in Fate}
        print(f"{CRASHES} crashes, {workers} workers:", {fate.value: total for fate, total in totals.items()})
        assert totals[Fate.CERTIFIED] > 0
    finally:
        await asyncio.to_thread(server.close)
