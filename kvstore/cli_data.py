"""`zetakv load` and `zetakv export`: records as JSON lines, through the same verified operations as any client's.

A line is `{"key": text, "value": text or any JSON}`; what is not UTF-8 text is `{"key_base64": …, "value_base64": …}`.
A value that is no text is stored as its JSON. Every record that is exported was read by a verified get.
"""

import base64
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from kvstore_client import TooLongError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from kvstore.cli_connect import Target, say

_BATCH_RECORDS: Final = 2_000
"""Records in flight at once: enough to fill every worker's batches."""


class LineError(ValueError):
    """A line of the file is no record. The text names the line."""


async def load(target: Target, path: Path) -> int:
    """Put every record of a file; returns their number, all certified, or durable if the server is unverified.

    Raises LineError, KVStoreError, OSError.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    count = 0
    try:
        with path.open("rb") as file, _progress(*columns) as progress:
            task = progress.add_task("loading", total=os.fstat(file.fileno()).st_size)
            async with target.connected() as kv:
                for lines, batch, position in _batches(file):
                    try:
                        await kv.put_many(batch)
                    except TooLongError as error:
                        raise LineError(f"lines {lines[0]} to {lines[-1]}: {error}") from error
                    count += len(batch)
                    progress.update(task, completed=position)
                progress.update(task, description="certifying")
                await kv.barrier()  # of an unverified server: its next checkpoint
    except Exception:
        if count:
            say(f"{path} was not loaded to its end: its first {count} records were put, without a certificate so far")
        raise
    return count


async def export(target: Target, path: Path | None) -> int:
    """Write every record to a file or to standard output; returns their number. Raises KVStoreError, OSError."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    count = 0
    with _output(path) as output, _progress(*columns) as progress:
        task = progress.add_task("exporting", total=None)
        async with target.connected() as kv:
            keys: list[bytes] = []

            async def write_batch() -> None:
                nonlocal count
                for key, answer in zip(keys, await kv.get_many(keys), strict=True):
                    # A key that was deleted since the last checkpoint is still listed.
                    if answer.value is not None:
                        output.write(json.dumps(_record(key, answer.value), ensure_ascii=False) + "\n")
                        count += 1
                progress.update(task, completed=count)
                keys.clear()

            async for key in kv.keys():
                keys.append(key)
                if len(keys) == _BATCH_RECORDS:
                    await write_batch()
            await write_batch()
            await kv.barrier()
    return count


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[IO[str]]:
    """Where to write. A file appears, or is replaced, when all of it is written."""
    if path is None:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a text stream of ours
        yield sys.stdout
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def parse_line(line: bytes, number: int) -> tuple[bytes, bytes]:
    """(key, value) of a line. Raises LineError."""
    try:
        record = json.loads(line)
        key, value = _field(record, "key"), _field(record, "value")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise LineError(
            f'line {number} is no record: {{"key": …, "value": …}} or the same with key_base64, value_base64 is needed'
        ) from error
    return key, value


def _field(record: Any, name: str) -> bytes:
    if f"{name}_base64" in record:
        return base64.b64decode(record[f"{name}_base64"], validate=True)
    content = record[name]
    if isinstance(content, str):
        return content.encode()
    if name == "key":
        raise TypeError("a key is text")
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _batches(file: IO[bytes]) -> Iterator[tuple[range, list[tuple[bytes, bytes]], int]]:
    """Batches of records, each with its lines before it and the position in the file after it."""
    batch: list[tuple[bytes, bytes]] = []
    position, first = 0, 1
    number = 0
    for number, line in enumerate(file, start=1):
        position += len(line)
        if line.strip():
            batch.append(parse_line(line, number))
        if len(batch) == _BATCH_RECORDS:
            yield range(first, number + 1), batch, position
            batch, first = [], number + 1
    if batch:
        yield range(first, number + 1), batch, position


def _record(key: bytes, value: bytes) -> dict[str, str]:
    return _text_or_base64("key", key) | _text_or_base64("value", value)


def _text_or_base64(name: str, content: bytes) -> dict[str, str]:
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content).decode()}


def _progress(*columns: Any) -> Progress:
    # On stderr, and only for a person: standard output may be the export itself.
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
