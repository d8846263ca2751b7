"""One recorded history: a real service, client processes with keys in common, and disasters between.

The plan (workers, durability, disasters, what clients ask for) follows from the seed; how processes and messages
interleave does not, so a seed finds a bug again often, not always. The history of a run that failed is kept, and can be
judged again.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from crash.history import History
from crash.load import KEYS
from histories.recorded import judge, read, write
from kvstore_client import KV, ProvisionalLostError, connect
from support.linearizability import Fate, Kind, Operation
from support.ports import free_port
from support.server import Server, environment_of

EPOCH_MS = 60
PROCESSES = 2
CLIENTS = 2
"""Of each process, each with a connection."""
ENDING_ALL = ("kill all", "stop cleanly")
DISASTERS = (*ENDING_ALL, "kill monitor", "kill worker", "kill checkpointer")
STEP_SECONDS_MAX = 300.0
"""Of a start, a stop, a recovery. The usual is 1 to 2; a machine that does much else needs more."""
READER = PROCESSES * CLIENTS
"""Number of the client that reads all keys at the end."""


@dataclass(frozen=True)
class Plan:
    seed: int
    durability: str
    workers: tuple[int, ...]
    """At the first start, and at each one after a disaster that ends the supervisor."""
    disasters: tuple[tuple[float, str], ...]
    """Each after some seconds."""

    @classmethod
    def of(cls, seed: int) -> "Plan":
        chance = random.Random(seed)
        disasters = tuple((chance.uniform(0.2, 1.5), chance.choice(DISASTERS)) for _ in range(chance.randint(1, 3)))
        starts = 1 + sum(name in ENDING_ALL for _, name in disasters)
        workers = tuple(chance.choice((1, 2, 4)) for _ in range(starts))
        return cls(seed, chance.choice(("epoch", "wal")), workers, disasters)

    def __str__(self) -> str:
        what = ", ".join(f"{name} after {seconds:.1f} s" for seconds, name in self.disasters)
        return f"seed {self.seed}: {self.durability}, workers {self.workers}, {what}"


async def record(directory: Path, plan: Plan) -> list[Operation]:
    """What clients did and were told; all processes have ended. Raises what an honest run must not."""
    workers = iter(plan.workers)
    options = ["--epoch-ms", str(EPOCH_MS), "--slots", "512", "--hot-records", "4", "--port", str(free_port())]
    options += ["--durability", plan.durability]
    server = Server(directory)

    async def start() -> None:
        server.options = [*options, "--workers", str(next(workers))]
        server.spawn()
        await asyncio.to_thread(server.wait_until_ready, STEP_SECONDS_MAX)

    try:
        await start()
        async with _clients(directory, server, plan.seed) as clients:
            for seconds, disaster in plan.disasters:
                await asyncio.sleep(seconds)
                if disaster == "kill all":
                    await asyncio.to_thread(server.kill)
                    await start()
                elif disaster == "stop cleanly":
                    await asyncio.to_thread(server.stop, STEP_SECONDS_MAX)
                    await start()
                else:
                    await _kill_one(server, disaster.removeprefix("kill "), random.Random(plan.seed))
                async with asyncio.timeout(STEP_SECONDS_MAX), _connected(server) as kv:
                    await _values(kv)
            operations = await clients.finish()
        async with _connected(server) as kv:
            reader = History(dict.fromkeys(KEYS), order=iter(time.monotonic_ns, None))
            gets = [reader.call(key, Kind.GET, client=READER, fate=Fate.CERTIFIED) for key in KEYS]
            for get, answer in zip(gets, await kv.get_many(KEYS, certified=True), strict=True):
                reader.answer(get, answer)
        await asyncio.to_thread(server.stop, STEP_SECONDS_MAX)
    except Exception as error:
        if server.process is not None:
            error.add_note(f"the server wrote:\n{server.process.output}")
        raise
    finally:
        await asyncio.to_thread(server.close)
    return operations + gets


async def recorded_and_judged(directory: Path, plan: Plan) -> list[Operation]:
    """Raises AssertionError, and then keeps the history."""
    operations = await record(directory, plan)
    try:
        judge(operations, plan.durability)
    except AssertionError as error:
        kept = Path(f"history-{plan.seed}.txt")
        write(kept, operations)
        error.add_note(f"{plan}; its history is in {kept}")
        raise
    return operations


class _Clients:
    """The processes of `histories/client.py`."""

    def __init__(self, processes: list[asyncio.subprocess.Process], files: list[Path]) -> None:
        self._processes = processes
        self._files = files

    async def finish(self) -> list[Operation]:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        async with asyncio.timeout(STEP_SECONDS_MAX):
            for process in self._processes:
                _, errors = await process.communicate()
                assert process.returncode == 0, f"a client failed:\n{errors.decode()}"
        return [operation for path in self._files for operation in read(path)]


@contextlib.asynccontextmanager
async def _clients(directory: Path, server: Server, seed: int) -> AsyncIterator[_Clients]:
    processes, files = [], []
    try:
        for number in range(PROCESSES):
            files.append(directory / f"client-{number}")
            command = [sys.executable, "-P", "-m", "histories.client", "--server", server.address]
            command += ["--monitor", server.fingerprint, "--key", str(server.admin_key), "--out", str(files[-1])]
            command += ["--seed", str(seed + number), "--first", str(number * CLIENTS), "--clients", str(CLIENTS)]
            process = await asyncio.create_subprocess_exec(
                *command,
                env=environment_of(server.home) | {"PYTHONPATH": str(Path(__file__).parents[1])},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n", (await process.communicate())[1].decode()
        yield _Clients(processes, files)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _kill_one(server: Server, name: str, chance: random.Random) -> None:
    async with asyncio.timeout(STEP_SECONDS_MAX):
        while not (victims := [pid for pid, child in server.children().items() if child == name]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # the last one went with a victim of a moment ago
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(victims), signal.SIGKILL)


async def _values(kv: KV) -> None:
    """Returns when what is read is certified: the service answers again."""
    while True:
        with contextlib.suppress(ProvisionalLostError):
            await kv.get_many(KEYS, certified=True)
            return


def _connected(server: Server) -> contextlib.AbstractAsyncContextManager[KV]:
    return connect(server.address, monitor=server.fingerprint, key=server.admin_key)
