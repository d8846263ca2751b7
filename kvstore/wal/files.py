"""The files of DATA/wal: which there are, and what of them counts.

A *stream* is what one writer appends to: that of a worker, or that of the tickets. It consists of *segments*, one for
each epoch of an incarnation. A segment is one file; more where the disk failed in between and another file went on.
File names order them: `STREAM-SERIAL.log`. Nothing here is trusted, and nothing of it is needed once its epoch is
certified. That epoch is not always the one that a segment was begun in: what was replayed runs again in the epoch of
the incarnation that replayed it, and that may be the one before.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kvstore.directories import sync_directory
from kvstore.wal.format import HEADER_BYTES, DamagedLogError, Header, LogReader, TornHeaderError

TICKETS: Final = "tickets"

_SUFFIX: Final = ".log"
_WAY_OUT: Final = (
    "no crash leaves a log like this: the disk is failing, or somebody changed the file. Put the data directory back "
    "from where it is whole, or move the file away: then all answers that were not certified are lost, and clients are "
    "told so"
)


def worker_stream(index: int) -> str:
    return f"worker-{index:02d}"


@dataclass
class LogFile:
    path: Path
    header: Header
    size: int
    """Bytes that count; all of the file, until it is read or another file goes on with it."""


@dataclass
class Segment:
    """What one incarnation wrote in one epoch."""

    epoch: int
    """With its certificate the segment is not needed any more."""
    threads: int
    files: list[LogFile] = field(default_factory=list)

    def records(self) -> Iterator[bytes]:
        """Every record, in order. Cuts a torn tail off, and makes durable what was read. Raises DamagedLogError."""
        if self.files[0].header.former_bytes:
            raise DamagedLogError(f"{self.files[0].path}: the file before it is missing; {_WAY_OUT}")
        for position, file in enumerate(self.files):
            is_last = position == len(self.files) - 1
            counted = None if is_last else self.files[position + 1].header.former_bytes
            yield from _read(file, counted)


def segments(directory: Path, stream: str) -> list[Segment]:
    """The segments of a stream, in their order. Files that were not yet durable are removed. Raises DamagedLogError."""
    found: list[Segment] = []
    paths = sorted(directory.glob(f"{stream}-*{_SUFFIX}"))
    for path in paths:
        with path.open("rb") as file:
            first = file.read(HEADER_BYTES)
        try:
            header = Header.decode(first)
        except TornHeaderError:
            if path != paths[-1]:
                raise DamagedLogError(f"{path}: its header is damaged; {_WAY_OUT}") from None
            path.unlink()
            break
        except DamagedLogError as error:
            raise DamagedLogError(f"{path}: {error}") from None
        log_file = LogFile(path, header, path.stat().st_size)
        goes_on = found and found[-1].files[-1].header.serial + 1 == header.serial
        if header.former_bytes == 0 or not goes_on:
            found.append(Segment(header.epoch, header.threads))
        found[-1].files.append(log_file)
    for segment, following in zip(reversed(found[:-1]), reversed(found[1:]), strict=True):
        segment.epoch = min(segment.epoch, following.epoch)
    return found


def log_path(directory: Path, stream: str, serial: int) -> Path:
    return directory / f"{stream}-{serial:010d}{_SUFFIX}"


def streams(directory: Path) -> list[str]:
    """All streams that have files."""
    return sorted({path.stem.rpartition("-")[0] for path in directory.glob(f"*{_SUFFIX}")})


def left_over_threads(directory: Path) -> int | None:
    """The number of workers of the requests that are in the log; None if there are none. Raises DamagedLogError."""
    for stream in streams(directory):
        for segment in segments(directory, stream) if stream != TICKETS else ():
            return segment.threads
    return None


def remove(directory: Path, unneeded: list[Segment]) -> None:
    """Delete segments, durably one after the other: the epoch of a segment is told by those after it."""
    for segment in unneeded:
        for file in segment.files:
            file.path.unlink(missing_ok=True)
        sync_directory(directory)


def _read(file: LogFile, counted: int | None) -> Iterator[bytes]:
    with file.path.open("r+b", buffering=0) as opened:
        descriptor = opened.fileno()
        reader = LogReader(
            lambda at, length: os.pread(descriptor, length, at), file.size, file.header.salt, counted_bytes=counted
        )
        try:
            yield from reader.records()
        except DamagedLogError as error:
            raise DamagedLogError(f"{file.path}: {error}; {_WAY_OUT}") from None
        if counted is None:
            # What is replayed must not be lost after it, and what was torn must not come back.
            os.ftruncate(descriptor, reader.good_bytes)
            os.fsync(descriptor)
        file.size = reader.good_bytes
