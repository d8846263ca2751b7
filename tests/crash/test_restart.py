"""A process of the service dies, and the service lives: restarts, what clients see of them, and what never restarts.

Each test kills several processes of one server, one after the other. The seed is printed; `ZETAKV_SEED` takes it back.
"""

import asyncio
import os
import random
import signal
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from kvstore_client import KV, IntegrityError, KVStoreError, NotAppliedError, ProvisionalLostError, connect
from support.server import ZETAKV, MonitorProcess, Process, Server, environment_of
from support.waiting import is_alive, until

from kvstore.cli_connect import EXIT_CRASH_LOOP, EXIT_ERROR
from kvstore.limits import RESTARTS_MAX, SILENCE_SECONDS

EPOCH_MS = 50
RESTART_SECONDS = 10.0
"""Far more than a restart takes, on a busy machine."""
ORPHAN_SECONDS = 5.0
CLIENTS = 4


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("ZETAKV_SEED") or random.randrange(1 << 32))
    print(f"ZETAKV_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zk-") as path:
        yield Path(path)


class HttpServer(Server):
    """With a gateway."""

    def spawn(self) -> Process:
        arguments = [ZETAKV, "serve", "--data", str(self.data), "--port", "0", "--http-port", "0", *self.options]
        self.process = Process(arguments, environment_of(self.home))
        return self.process


@asynccontextmanager
async def serving(
    directory: Path, *options: str, workers: int = 1, kind: type[Server] = Server
) -> AsyncIterator[Server]:
    server = kind(directory, ["--workers", str(workers), "--epoch-ms", str(EPOCH_MS), *options])
    try:
        yield await asyncio.to_thread(server.start)
    finally:
        await asyncio.to_thread(server.close)


def connected(server: Server) -> Any:
    return connect(server.address, monitor=server.fingerprint, key=server.admin_key)


def processes_of(directory: Path) -> set[int]:
    """Every living process whose arguments name the directory, whoever is its parent by now."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            if entry.name.isdecimal() and str(directory).encode() in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return found


def kill(server: Server, name: str, chance: random.Random) -> None:
    end = time.monotonic() + RESTART_SECONDS
    while not (victims := [process_id for process_id, child in server.children().items() if child == name]):
        assert time.monotonic() < end, f"no {name} is started"  # the last one went with a victim of a moment ago
    with suppress(ProcessLookupError):  # it went with a victim of a moment ago
        os.kill(chance.choice(victims), signal.SIGKILL)


async def count(kv: KV, key: bytes, fates: Counter[str]) -> None:
    """Increment for ever, and note what became of each increment."""
    while True:
        fate = "open"
        try:
            answer = await kv.increment(key, 1)
            await answer.certified()
            fate = "certified"
        except (NotAppliedError, ProvisionalLostError):
            fate = "gone"
        except IntegrityError:
            raise  # nobody lies here
        except KVStoreError:
            await asyncio.sleep(0.01)
        finally:
            fates[fate] += 1


@asynccontextmanager
async def counting(kv: KV, notes: dict[bytes, Counter[str]]) -> AsyncIterator[None]:
    """Count under each key meanwhile. Raises what a client failed with."""
    clients = [asyncio.create_task(count(kv, key, fates)) for key, fates in notes.items()]
    try:
        yield
    finally:
        for client in clients:
            client.cancel()
        for client in clients:
            with suppress(asyncio.CancelledError):
                await client


def total(notes: dict[bytes, Counter[str]]) -> int:
    return sum(fates["certified"] for fates in notes.values())


@pytest.mark.parametrize("workers", [1, 2])
async def test_any_process_may_die_under_load(directory: Path, workers: int, chance: random.Random) -> None:
    async with serving(directory, workers=workers) as server, connected(server) as observer:
        notes = {b"counter %d" % client: Counter[str]() for client in range(CLIENTS)}
        victims = ["worker", "checkpointer", "monitor"]
        chance.shuffle(victims)
        async with counting(observer, notes):
            for restarts, victim in enumerate(victims):
                before = total(notes)
                await asyncio.sleep(chance.uniform(0.1, 0.5))
                kill(server, victim, chance)
                await until(lambda n=restarts: server.status().json()["restarts"] > n, f"{victim}: a restart")
                status = await observer.status()
                assert status["state"] == "ok"
                assert status["restarts"] == restarts + 1
                assert victim in status["last_restart"]
                await until(lambda low=before: total(notes) > low, "epochs are certified again")
        for key, fates in notes.items():
            value = int.from_bytes((await observer.get(key, certified=True)).value or b"", "little")
            assert fates["certified"] <= value <= fates["certified"] + fates["open"], (key, value, fates)
        await asyncio.to_thread(server.stop)


async def test_a_gateway_that_dies_is_started_again_alone(directory: Path, chance: random.Random) -> None:
    async with serving(directory, kind=HttpServer) as server:
        assert server.process is not None
        url = "http://" + server.process.wait_for(r"\(http ([0-9.:]+),")[1] + "/v1/status"

        def status() -> str:
            with urllib.request.urlopen(url, timeout=RESTART_SECONDS) as answer:
                return str(answer.read().decode())

        others = {process_id for process_id, name in server.children().items() if name != "gateway"}
        kill(server, "gateway", chance)
        assert '"gateway_restarts": 1' in await asyncio.to_thread(status)
        assert others < server.children().keys()
        # And it outlives a restart of the others.
        (gateway,) = server.children().keys() - others
        kill(server, "worker", chance)
        await until(lambda: '"restarts": 1' in status(), "the restart is told over HTTP")
        assert gateway in server.children()


async def test_a_crash_loop_ends_the_service_with_the_reason(directory: Path, chance: random.Random) -> None:
    async with serving(directory) as server:
        process = server.process
        assert process is not None
        for restart in range(RESTARTS_MAX):
            kill(server, "worker", chance)
            await asyncio.to_thread(process.wait_for, f"serving again, after restart {restart + 1}$")
        survivors = set(server.children())
        kill(server, "monitor", chance)
        assert await asyncio.to_thread(process.wait) == EXIT_CRASH_LOOP
        assert f"monitor ended unexpectedly (signal 9); given up after {RESTARTS_MAX} restarts" in process.output
        assert "Traceback" not in process.output
        assert not any(map(is_alive, survivors))
        server.process = None


async def test_nothing_outlives_a_supervisor_whenever_it_is_killed(directory: Path, chance: random.Random) -> None:
    """Also during start and restart; and what it leaves neither stops nor slows the next start."""
    server = HttpServer(directory, ["--workers", "2", "--epoch-ms", str(EPOCH_MS)])
    for moment in ("start", "start", "restart", "restart"):
        process = await asyncio.to_thread(server.spawn)
        try:
            if moment == "restart":
                await asyncio.to_thread(server.wait_until_ready)
                kill(server, chance.choice(["worker", "monitor", "checkpointer"]), chance)
                await asyncio.sleep(chance.uniform(0, 0.6))
            else:
                await asyncio.sleep(chance.uniform(0.1, 0.8))
            assert process.pid in processes_of(directory)
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait)
            await until(lambda: not processes_of(directory), "its children end, too", ORPHAN_SECONDS)
        finally:
            await asyncio.to_thread(server.close)
    started = time.monotonic()
    await asyncio.to_thread(server.start)
    assert time.monotonic() - started < RESTART_SECONDS
    await asyncio.to_thread(server.stop)
    assert not (server.data / "runtime").is_symlink()


async def test_nobody_starts_while_an_orphaned_checkpointer_may_still_write(directory: Path) -> None:
    async with serving(directory) as server, connected(server) as kv:
        process = server.process
        assert process is not None
        await kv.put(b"key", b"value", certified=True)
        (checkpointer,) = (process_id for process_id, name in server.children().items() if name == "checkpointer")
        os.kill(checkpointer, signal.SIGSTOP)  # as if it waited for a slow disk
        try:
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda: processes_of(directory) == {checkpointer}, "all others end", ORPHAN_SECONDS)
            refused = await asyncio.to_thread(Server(directory).start_refused)
            assert refused.code == EXIT_ERROR
            assert f"on the data directory {server.data} was killed and still writes its checkpoint" in refused.stderr
            assert is_alive(checkpointer)
        finally:
            os.kill(checkpointer, signal.SIGCONT)
        await asyncio.to_thread(process.wait)
        # As soon as it has ended, the next one goes on with what was certified.
        await asyncio.to_thread(server.start)
        assert not is_alive(checkpointer)
        async with connected(server) as again:
            assert (await again.get(b"key", certified=True)).value == b"value"


async def test_a_restart_keeps_the_data_directory_and_a_signal_ends_it(directory: Path, chance: random.Random) -> None:
    async with serving(directory) as server:
        process = server.process
        assert process is not None
        second = Server(directory, ["--epoch-ms", str(EPOCH_MS)])
        refused = asyncio.create_task(asyncio.to_thread(second.start_refused))
        while not refused.done():
            if await asyncio.to_thread(lambda: server.status().json()["restarts"]) < RESTARTS_MAX - 1:
                kill(server, "worker", chance)
            await asyncio.sleep(0.2)
        assert (
            f"another server is running on the data directory {server.data} (process {process.pid})"
            in (await refused).stderr
        )

        kill(server, "worker", chance)
        await asyncio.sleep(chance.uniform(0, 0.2))
        last = set(server.children())
        process.terminate()
        assert await asyncio.to_thread(process.wait) == 0
        assert not any(map(is_alive, last))
        assert "Traceback" not in process.output
        server.process = None


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
async def test_a_monitor_that_runs_apart_is_waited_for(directory: Path, tcp: bool) -> None:
    monitor = await asyncio.to_thread(MonitorProcess(directory, tcp=tcp).start)
    try:
        async with serving(directory, "--monitor", monitor.address) as server:
            server.admin_key = monitor.admin_key
            async with connected(server) as kv:
                await kv.put(b"key", b"value", certified=True)
                monitor.close()
                late = asyncio.create_task(kv.get(b"key"))
                await asyncio.sleep(SILENCE_SECONDS)
                await until(lambda: server.status().json()["state"] == "restarting", "the status says so")
                status = server.status().json()
                assert f"no monitor can be reached at {monitor.address}" in status["waits_for"]
                assert status["restarts"] == 1
                assert not late.done()
                await asyncio.to_thread(monitor.start)
                assert (await late).value == b"value"
                status = await kv.status()
                assert (status["state"], status["restarts"]) == ("ok", 1)
            await asyncio.to_thread(server.stop)
    finally:
        monitor.close()


async def test_a_monitor_serves_one_server_and_the_second_is_told(directory: Path) -> None:
    monitor = await asyncio.to_thread(MonitorProcess(directory).start)
    try:
        async with serving(directory, "--monitor", monitor.address) as server:
            server.admin_key = monitor.admin_key
            (directory / "second").mkdir()
            second = Server(directory / "second", ["--monitor", monitor.address])
            refused = await asyncio.to_thread(second.start_refused)
            assert refused.code == EXIT_ERROR, refused
            assert "the monitor serves another server" in refused.stderr
            assert server.status().json()["restarts"] == 0
            async with connected(server) as kv:
                await kv.put(b"key", b"value", certified=True)
    finally:
        monitor.close()
