"""A recorded service, the moments at which its power is cut, and what must be true of the images.

The server starts on every image; whoever was told its fingerprint finds that monitor again, and nobody is told of a
violation; what was certified before the cut is there (with a write-ahead log, what was answered); what was called
before it may be there; nothing else is.
"""

import asyncio
import contextlib
import random
from pathlib import Path

from crash.load import KEYS, Client
from crash.powercut.images import BLOCK_BYTES, Cut, Disk, Style
from crash.powercut.trace import Change, Event, NotedHistory, Promise, Root, promised, read_trace, recording, root_of
from kvstore_client import KV, ClientKey, connect
from support.linearizability import Fate, explain
from support.server import Server

EPOCH_MS = 60
LINES = 4
SERVED_SECONDS = 1.2
"""Of each of the service's lives: tens of epochs."""
RECOVERY_SECONDS_MAX = 40.0
_AROUND = {Change.SYNC_BEGUN, Change.SYNCED, Change.RENAME, Change.UNLINK, Change.CREATE, Change.TRUNCATE}
_FIRST_START_EVERY = 5
_STYLES = [*Style, Style.MIXED, Style.MIXED, Style.MIXED]


def durability_of(seed: int) -> str:
    return "wal" if seed % 2 else "epoch"


async def record(directory: Path, library: Path, seed: int, durability: str) -> list[Event]:
    """Serve clients in a new directory, with a clean stop and a crash in between; what the disk was told meanwhile."""
    chance = random.Random(seed)
    disk = directory / "disk"
    disk.mkdir()
    root, trace = Root.of(disk), directory / "trace"
    history = NotedHistory(trace, dict.fromkeys(KEYS))
    history.note("root", root.path, root.inode)
    history.note("durability", durability)
    server = Server(disk, environment=recording(library, trace, root) | _sockets(directory))
    ends = [server.stop, server.kill, server.kill]
    chance.shuffle(ends)
    with contextlib.closing(history):
        try:
            for end in ends:
                server.options = ["--epoch-ms", str(EPOCH_MS), "--hot-records", "4", "--durability", durability]
                server.options += ["--workers", str(chance.choice([1, 2]))]
                await asyncio.to_thread(server.start)
                history.note("ready", server.fingerprint, _key(server))
                await _serve(server, history, chance)
                await asyncio.to_thread(end)
        finally:
            await asyncio.to_thread(server.close)
    return read_trace(trace)


async def _serve(server: Server, history: NotedHistory, chance: random.Random) -> None:
    over = asyncio.Event()
    async with _connected(server, server.fingerprint, _key(server)) as kv, asyncio.TaskGroup() as clients:
        for _ in range(LINES):
            clients.create_task(Client(kv, history, random.Random(chance.randbytes(8))).run(over))
        await asyncio.sleep(SERVED_SECONDS)
        over.set()


def plan(events: list[Event], seed: int, number: int) -> Cut:
    """Of this image, by this seed. Most cuts are next to what orders writes: a sync, a change of names, a commit."""
    chance = random.Random(f"{seed} {number}")
    if number % _FIRST_START_EVERY == 1:
        # It happens once only, and has most to do.
        position = chance.randint(1, _place(events, "ready"))
    else:
        # One image at least has something to lose.
        earliest = _place(events, "fate", Fate.CERTIFIED.value) + 1 if number == 0 else 0
        around = [place for place, event in enumerate(events) if event.change in _AROUND or event.durable]
        position = chance.choice([place for place in around if place > earliest]) + chance.randint(-1, 2)
    return Cut(position, chance.choice(_STYLES), chance.choice(BLOCK_BYTES), chance.getrandbits(32))


def _place(events: list[Event], note: str, last: str = "") -> int:
    """Of the first note that begins with one word and, if it matters, ends with another."""
    begin, end = f"('{note}'".encode(), f"{last!r})".encode() if last else b""
    return next(
        place for place, event in enumerate(events) if event.data.startswith(begin) and event.data.endswith(end)
    )


async def check(events: list[Event], cut: Cut, directory: Path, *, ignores_syncs: bool = False) -> Promise:
    """Make the image in this new directory, and start a server on it. Returns what was promised, if it was kept."""
    image = directory / "disk"
    image.mkdir(parents=True)
    disk = Disk(root_of(events), ignores_syncs)
    before = events[: cut.position]
    disk.play(before)
    disk.write_image(cut, image)
    promise = promised(before)
    options = ["--epoch-ms", str(EPOCH_MS), "--workers", str(1 + cut.seed % 2)]
    server = Server(image, options, environment=_sockets(directory))
    try:
        await asyncio.to_thread(server.start)
        fingerprint, key = promise.identity or (server.fingerprint, _key(server))
        async with asyncio.timeout(RECOVERY_SECONDS_MAX), _connected(server, fingerprint, key) as kv:
            values = await _values(kv)
            for name in KEYS:
                explain(
                    name, None, [operation for operation in promise.operations if operation.key == name], values[name]
                )
            await kv.put(KEYS[0], b"after the cut", certified=True)
    except Exception as error:
        error.add_note(f"{cut}, after {before[-1].change.name}")
        if server.process is not None:
            error.add_note(f"the server wrote:\n{server.process.output}")
        raise
    finally:
        await asyncio.to_thread(server.close)
    return promise


async def _values(kv: KV) -> dict[bytes, bytes | None]:
    answers = await kv.get_many(KEYS, certified=True)
    return {key: answer.value for key, answer in zip(KEYS, answers, strict=True)}


def _connected(server: Server, fingerprint: str, key: str) -> contextlib.AbstractAsyncContextManager[KV]:
    return connect(server.address, monitor=fingerprint, key=ClientKey(bytes.fromhex(key)))


def _key(server: Server) -> str:
    return ClientKey.load(server.admin_key).seed.hex()


def _sockets(directory: Path) -> dict[str, str]:
    """Not below the disk: a socket is no file."""
    path = directory / "t"
    path.mkdir(exist_ok=True)
    return {"TMPDIR": str(path)}
