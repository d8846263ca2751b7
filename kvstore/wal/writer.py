"""Appends to one stream of the write-ahead log, in a thread of its own: the event loop never waits for the disk.

Records that come while a sync is on its way go together into the next one. Where the disk fails (full, I/O error), a
file is not written to again: its unsynced end may hold anything. What was not durable is kept in memory and written
again, to another file, until the disk takes it or its epoch is certified. When nothing is left to be written, the disk
is probed: else the trouble would never end, since nobody is let in who would bring another record.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvstore import failpoints
from kvstore.directories import sync_directory
from kvstore.wal.files import LogFile, Segment, log_path, remove
from kvstore.wal.format import HEADER_BYTES, SALT_BYTES, Header, encode_group

logger = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 0.5
"""Between attempts on a disk that fails: it is not hammered, and back in use soon after somebody made room."""
_PROBE_BYTES: Final = 64 << 10
"""So much must fit before requests are let in again: one more page would be full at once."""


@dataclass(frozen=True)
class _Record:
    number: int
    epoch: int
    data: bytes


class LogWriter:
    """Records are numbered from 1 on. Callbacks come in the event loop of the creator.

    `on_durable(number)`: all records up to that one are durable, or not needed any more.
    `on_trouble(text)`: the disk does not take records, and why; None: it does again.
    """

    def __init__(
        self,
        directory: Path,
        stream: str,
        *,
        thread: int,
        threads: int,
        on_durable: Callable[[int], None],
        on_trouble: Callable[[str | None], None],
        segments: Iterable[Segment] = (),
    ) -> None:
        """`segments`: those that are there already, to be deleted when they are certified."""
        self._directory = directory
        self._stream = stream
        self._thread = thread
        self._threads = threads
        self._on_durable = on_durable
        self._on_trouble = on_trouble
        self._loop = asyncio.get_running_loop()
        # Shared with the thread, under the condition.
        self._condition = threading.Condition()
        self._pending: deque[_Record] = deque()
        self._certified = 0
        self._closing = False
        # Of the thread.
        self._segments = list(segments)
        self._current: Segment | None = None
        self._descriptor = -1
        self._damaged = False
        self._troubled = False
        self._serial = max((file.header.serial for segment in self._segments for file in segment.files), default=0)
        self._numbers = 0
        self._runner = threading.Thread(target=self._run, name=f"log of {stream}", daemon=True)
        self._runner.start()

    def append(self, epoch: int, record: bytes) -> int:
        """Queue a record; returns its number. Epochs never go down."""
        self._numbers += 1
        with self._condition:
            self._pending.append(_Record(self._numbers, epoch, record))
            self._condition.notify()
        return self._numbers

    def certified(self, epoch: int) -> None:
        """Records up to this epoch are not needed any more: their files are deleted."""
        with self._condition:
            self._certified = epoch
            self._condition.notify()

    def close(self) -> None:
        """Write what is queued, if the disk takes it, and end the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._runner.join()

    # --- the thread ---

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._pending or self._closing or self._troubled or self._outdated()):
                    self._condition.wait()
                self._drop_certified()
                batch, closing = list(self._pending), self._closing
            try:
                self._delete_certified()
                self._write(batch)
                if self._troubled and not batch:
                    self._probe()
            except OSError as error:
                if closing:
                    break
                self._fail(error)
            else:
                self._succeed()
                if closing:
                    break
        self._close_file()

    def _write(self, batch: list[_Record]) -> None:
        """One group for each epoch in the batch. What is durable is taken off `_pending` at once."""
        at = 0
        while at < len(batch):
            epoch = batch[at].epoch
            records = [record.data for record in batch[at:] if record.epoch == epoch]
            self._write_group(epoch, records)
            at += len(records)
            with self._condition:
                for _ in records:
                    self._pending.popleft()
            self._tell(self._on_durable, batch[at - 1].number)

    def _write_group(self, epoch: int, records: list[bytes]) -> None:
        file = self._file_of(epoch)
        self._damaged = True  # until the sync has returned
        group = memoryview(encode_group(file.header.salt, file.size, records))
        written = 0
        failpoints.hit("wal.before_write")
        while written < len(group):
            written += os.pwrite(self._descriptor, group[written:], file.size + written)
        failpoints.hit("wal.before_sync")
        os.fdatasync(self._descriptor)
        failpoints.hit("wal.after_sync")
        self._damaged = False
        file.size += len(group)

    def _file_of(self, epoch: int) -> LogFile:
        """The open file of the epoch, made if need be."""
        segment = self._current
        if segment is None or segment.epoch != epoch:
            self._close_file()
            return self._create(Segment(epoch, self._threads))
        if self._damaged:
            self._close_file()
            return self._create(segment)
        return segment.files[-1]

    def _create(self, segment: Segment) -> LogFile:
        """A file that begins the segment, or goes on with it. The header is durable with the first group."""
        path = log_path(self._directory, self._stream, self._serial + 1)
        path.unlink(missing_ok=True)  # of an attempt that failed
        header = Header(
            epoch=segment.epoch,
            thread=self._thread,
            threads=segment.threads,
            serial=self._serial + 1,
            former_bytes=segment.files[-1].size if segment.files else 0,
            salt=secrets.token_bytes(SALT_BYTES),
        )
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(self._descriptor, header.encode())
            os.fsync(self._descriptor)
            sync_directory(self._directory)
        except OSError:
            self._close_file()
            raise
        self._serial += 1
        file = LogFile(path, header, HEADER_BYTES)
        segment.files.append(file)
        if segment is not self._current:
            self._current = segment
            self._segments.append(segment)
        self._damaged = False
        return file

    def _fail(self, error: OSError) -> None:
        text = f"the write-ahead log in {self._directory} cannot be written: {error.strerror or error}"
        if not self._troubled:
            self._troubled = True
            logger.error("%s: requests are refused until it can", text)
            self._tell(self._on_trouble, text)
        with self._condition:
            self._condition.wait_for(lambda: self._closing, _RETRY_SECONDS)

    def _probe(self) -> None:
        path = self._directory / f"{self._stream}.probe"
        try:
            with path.open("wb", buffering=0) as file:
                file.write(bytes(_PROBE_BYTES))
                os.fsync(file.fileno())
        finally:
            path.unlink(missing_ok=True)

    def _succeed(self) -> None:
        if self._troubled:
            self._troubled = False
            logger.warning("the write-ahead log can be written again")
            self._tell(self._on_trouble, None)

    def _outdated(self) -> bool:
        return bool(self._segments) and self._segments[0].epoch <= self._certified

    def _drop_certified(self) -> None:
        """Under the condition: records that the disk did not take in time are durable in the checkpoint by now."""
        dropped = 0
        while self._pending and self._pending[0].epoch <= self._certified:
            dropped = self._pending.popleft().number
        if dropped:
            self._tell(self._on_durable, dropped)

    def _delete_certified(self) -> None:
        outdated = [segment for segment in self._segments if segment.epoch <= self._certified]
        if outdated:
            if outdated[-1] is self._current:
                self._current = None
                self._close_file()
            self._segments = self._segments[len(outdated) :]
            remove(self._directory, outdated)

    def _close_file(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def _tell(self, callback: Callable[..., None], argument: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(callback, argument)
