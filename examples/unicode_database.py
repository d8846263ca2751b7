"""The Unicode character database in ZetaKV: load it, read it back from several clients, certified; then catch a lie.

    python examples/unicode_database.py [--workers 2] [--records 5000]

Starts a server of its own in a temporary directory. Every assigned code point of Python's `unicodedata` becomes a
record: `U+0041` -> its name, category, bidirectional class and so on, as JSON. The records are loaded with
`zetakv load`, read back by four concurrent clients that check every value and wait for the certificates of all their
receipts. Then one record is edited in the store's file, behind the server's back, and the next read of it is refused.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import lmdb
import typer
from kvstore_client import KV, IntegrityError, connect

from kvstore._prover import decode_record, encode_record, store_key_of

CLIENTS = 4
KEYS_PER_CALL = 4096
UNASSIGNED = {"Cn", "Co", "Cs"}  # unassigned, private use, surrogates: nothing is known of these
VICTIM = b"U+1F511"  # KEY
LIE = b"U+1F513"  # OPEN LOCK


def unicode_records() -> Iterator[tuple[str, str]]:
    """(code point as `U+XXXX`, JSON of what Unicode says about it), in the order of code points."""
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        category = unicodedata.category(character)
        if category in UNASSIGNED:
            continue
        properties = {
            "name": unicodedata.name(character, ""),
            "category": category,
            "bidirectional": unicodedata.bidirectional(character),
            "combining": unicodedata.combining(character),
            "east_asian_width": unicodedata.east_asian_width(character),
            "mirrored": unicodedata.mirrored(character),
            "decomposition": unicodedata.decomposition(character),
            "numeric": unicodedata.numeric(character, None),
        }
        yield f"U+{number:04X}", json.dumps(properties)


def zetakv(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("zetakv")), *arguments]


@contextmanager
def server(data: Path, workers: int) -> Iterator[str]:
    """A server on a free port; yields its address."""
    command = zetakv("serve", "--data", str(data), "--port", "0", "--no-http", "--workers", str(workers))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        print(ready, end="")
        try:
            yield ready.split()[1]
        finally:
            process.terminate()


async def read_back(address: str, records: list[tuple[bytes, bytes]]) -> None:
    """One client: read all records in the order given, check each value, and wait until all reads are certified."""
    async with connect(address) as kv:
        for start in range(0, len(records), KEYS_PER_CALL):
            batch = records[start : start + KEYS_PER_CALL]
            answers = await kv.get_many([key for key, _ in batch])
            for (key, value), answer in zip(batch, answers, strict=True):
                if answer.value != value:
                    raise ValueError(f"{key!r} should be {value!r}, and is {answer.value!r}")
        await kv.barrier()


async def read_back_concurrently(address: str, records: list[tuple[bytes, bytes]]) -> None:
    quarter = len(records) // CLIENTS
    async with asyncio.TaskGroup() as clients:
        for client in range(CLIENTS):  # each starts elsewhere, so that they meet on different records
            rotated = records[client * quarter :] + records[: client * quarter]
            clients.create_task(read_back(address, rotated))


def edit_behind_the_servers_back(data: Path) -> None:
    """Give one record another's value, in the store's file."""
    with lmdb.open(str(data / "store"), map_size=1 << 34) as environment, environment.begin(write=True) as transaction:
        _, lie = decode_record(transaction.get(store_key_of(LIE)))
        transaction.put(store_key_of(VICTIM), encode_record(VICTIM, lie))


async def read_the_edited(address: str) -> str:
    """The error that reading the edited record raises. Raises if it is answered."""

    async def read(kv: KV) -> None:
        answer = await kv.get(VICTIM, certified=True)
        raise AssertionError(f"the lie was certified: {answer.value!r}")

    try:
        async with connect(address) as kv:
            await read(kv)
    except IntegrityError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("unreachable")


def main(workers: int = 1, records: Annotated[int, typer.Option(help="how many records; 0: all")] = 0) -> None:
    everything = list(unicode_records())
    chosen = everything[:records] if records else everything
    chosen += [record for record in everything if record[0].encode() in (VICTIM, LIE) and record not in chosen]
    encoded = [(key.encode(), value.encode()) for key, value in chosen]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZETAKV_HOME"] = str(Path(folder, "home"))
        data, source = Path(folder, "data"), Path(folder, "unicode.jsonl")
        with source.open("w") as lines:
            lines.writelines(json.dumps({"key": key, "value": value}) + "\n" for key, value in chosen)
        with server(data, workers) as address:
            subprocess.run(zetakv("load", str(source), "--server", address), check=True)
            asyncio.run(read_back_concurrently(address, encoded))
            print(f"{CLIENTS} clients read {len(encoded):,} records each; every value right, every receipt certified")
        edit_behind_the_servers_back(data)
        with server(data, workers) as address:
            print("after an edit in the store's file:", asyncio.run(read_the_edited(address)))


if __name__ == "__main__":
    typer.run(main)
