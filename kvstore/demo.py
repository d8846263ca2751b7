"""`zetakv demo tamper`: a server of its own, a record edited on disk behind its back, and how the lie is caught.

Everything happens in a temporary directory, on ports that nobody uses. The edit is the strongest that a thief of the
disk could make without the monitor's keys: a well-formed record with another value.
"""

import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvstore_client import IntegrityError, ViolationError, connect
from rich.console import Console

from kvstore._prover import encode_record, store_key_of
from kvstore.config import ServeConfig
from kvstore.storage import LmdbWriter

RECORDS: Final = {b"alice": b"100 coins", b"bob": b"20 coins", b"carol": b"3 coins"}
VICTIM: Final = b"bob"
FORGED: Final = b"9999999 coins"
_EXPECTED: Final = "hash_mismatch"
_STOP_SECONDS: Final = 60.0


def demonstrate_tampering() -> bool:
    """Returns whether the lie was caught as expected. Raises RuntimeError if a server does not start."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="zetakv-demo-") as directory:
        data = Path(directory) / "data"
        console.print("1. A server, with three records, certified by its monitor:")
        with _server(data) as (address, fingerprint):
            asyncio.run(_store(address, fingerprint, data))
            for key, value in RECORDS.items():
                console.print(f"     {key.decode()} = {value.decode()}")
        console.print("2. The server is stopped. Somebody with access to the disk edits one record:")
        _tamper(data)
        console.print(f"     {VICTIM.decode()} = {FORGED.decode()}   (a well-formed row, written by LMDB itself)")
        console.print("3. The server is started again, and a client asks:")
        with _server(data) as (address, fingerprint):
            error = asyncio.run(_read(address, fingerprint, data))
    match error:
        case ViolationError(violation=violation) if violation.name == _EXPECTED:
            console.print(f"     [bold green]caught[/]: {violation.name} (violation {violation.code})")
            console.print(f"     {error}")
            return True
        case None:
            console.print("     [bold red]NOT caught[/]: the forged value was accepted")
        case _:
            console.print(f"     [bold red]not caught as expected[/]: {type(error).__name__}: {error}")
    return False


async def _store(address: str, fingerprint: str, data: Path) -> None:
    async with connect(address, monitor=fingerprint, key=_key(data)) as kv:
        await kv.put_many(RECORDS, certified=True)


async def _read(address: str, fingerprint: str, data: Path) -> IntegrityError | None:
    try:
        async with connect(address, monitor=fingerprint, key=_key(data)) as kv:
            await kv.get(VICTIM, certified=True)
    except IntegrityError as error:
        return error
    return None


def _tamper(data: Path) -> None:
    config = ServeConfig(data=data)
    store = LmdbWriter(config.store_path, config.map_bytes_start)
    store.write([(store_key_of(VICTIM), encode_record(VICTIM, FORGED))])
    store.close()


def _key(data: Path) -> Path:
    return ServeConfig(data=data).admin_key_path


@contextmanager
def _server(data: Path) -> Iterator[tuple[str, str]]:
    """A server process; gives its address and its monitor's fingerprint."""
    command = [sys.executable, "-P", "-m", "kvstore.cli", "serve", "--data", str(data), "--port", "0", "--no-http"]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen([*command, "--epoch-ms", "200"], stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        words = process.stdout.readline().split()
        if words[:1] != ["ready:"]:
            process.wait()
            log.seek(0)
            raise RuntimeError(f"the server did not start:\n{log.read()}")
        try:
            yield words[1], words[3]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_SECONDS)
