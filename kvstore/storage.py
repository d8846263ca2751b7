"""What the host asks of a store, and its LMDB implementation.

A store maps opaque keys to opaque rows. Every write is one transaction, atomic and durable; each call of a reader sees
the newest one. Beside the rows there are two *pending* tables, in which checkpoints are durable before their rows are
written one by one (`kvstore/pending.py`). Everything here is untrusted: what a store garbles, the monitor finds. A
store may be opened once per process (LMDB's rule), and never before a fork.

Store keys begin with one byte: `r` records, `n` Merkle nodes, `h` hot rows (made by the prover, opaque), `m` the meta
row, `s` the sealed state, `c` and an epoch (big-endian) its certificate, `p` the pending tables (LMDB's own rows).
"""

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast

import lmdb

from kvstore import failpoints
from kvstore.directories import make_directory, sync_directory

_DATA_FILE: Final = "data.mdb"

META_KEY: Final = b"m"
SEALED_KEY: Final = b"s"
RECORD_PREFIX: Final = b"r"
PENDING_TABLES: Final = (b"p0", b"p1")

# With less room a disk counts as full: a transaction of a busy store is larger.
_FULL_DISK_BYTES: Final = 1 << 20

_DELETED: Final = 2**32 - 1
_LENGTH_BYTES: Final = 4

# The supervisor's tools may read beside the workers: a little room in LMDB's table of readers.
_SPARE_READERS: Final = 16
_READERS_MAX: Final = 64 + _SPARE_READERS

# Two fill a page of 4,096 bytes, with their keys. Larger ones would need runs of free pages, and so a larger file.
_CHUNK_BYTES: Final = 2_016
_CHUNK_KEY: Final = struct.Struct(">II")  # epoch, number: LMDB appends in this order

Row = tuple[bytes, bytes | None]


class StorageError(Exception):
    """The store cannot be opened, read or written. The text says which and why."""


class StoreReader(Protocol):
    """Reads what was written last, even if that is part of a checkpoint."""

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of the keys, in their order; None where there is none."""

    def read_ranges(
        self, ranges: Sequence[tuple[bytes, bytes]], at_most: int, bytes_max: int
    ) -> list[list[tuple[bytes, bytes]]]:
        """Of each range (first, end) the first rows, with their keys, `at_most` of each; no more ranges are read when
        the rows have `bytes_max` bytes."""

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows with first <= key < end, in order of their keys. No other call before it is used up or dropped."""

    def close(self) -> None: ...


class StoreWriter(Protocol):
    """The one writer of a store. What raises StorageError has changed nothing, and may be tried again."""

    @property
    def pages(self) -> int:
        """Size of the store, in pages."""

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of the keys as of the last write."""

    def write(self, rows: Iterable[Row], emptied: int | None = None) -> None:
        """Set (or, for None, delete) the rows, which are sorted; and empty a pending table, if one is given."""

    def append(self, table: int, epoch: int, packed: bytes, rows: Iterable[Row]) -> None:
        """Append the packed rows of a checkpoint, the newest one, to a pending table, and set the rows."""

    def pending_epoch(self, table: int) -> int:
        """The newest epoch in a pending table; 0 if it is empty."""

    def pending_bytes(self, table: int) -> int:
        """Bytes of packed rows in a pending table, rounded up to whole chunks."""

    def pending_rows(self, table: int) -> bytes:
        """All packed rows in a pending table, oldest first."""

    def close(self) -> None: ...


def certificate_key(epoch: int) -> bytes:
    """Store key of the certificate of an epoch; the order of the keys is the order of the epochs."""
    return b"c" + epoch.to_bytes(4, "big")


def unpack_rows(packed: bytes) -> Iterator[Row]:
    """Rows of a checkpoint: (key length: u32, key, value length: u32 or 2^32-1 for a deletion, value)*."""
    at, end = 0, len(packed)
    while at < end:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(packed[at:start], "little")
        key = packed[start:at]
        start = at + _LENGTH_BYTES
        length = int.from_bytes(packed[at:start], "little")
        if length == _DELETED:
            at = start
            yield key, None
        else:
            at = start + length
            yield key, packed[start:at]
    if at != end:
        raise StorageError("a checkpoint's rows end in the middle of a row")


def pack_rows(rows: Iterable[Row]) -> bytes:
    """The inverse of `unpack_rows`."""
    parts = []
    for key, value in rows:
        parts += [len(key).to_bytes(_LENGTH_BYTES, "little"), key]
        length = _DELETED if value is None else len(value)
        parts += [length.to_bytes(_LENGTH_BYTES, "little"), value or b""]
    return b"".join(parts)


def _cut_short(path: Path, error: lmdb.Error) -> str:
    """LMDB calls it an input/output error, too, when the last bytes of a disk take a part of a write only."""
    if str(error).endswith(os.strerror(errno.EIO)):
        with contextlib.suppress(OSError):
            room = os.statvfs(path.parent)
            if room.f_bavail * room.f_frsize < _FULL_DISK_BYTES:
                return f" ({os.strerror(errno.ENOSPC)})"
    return ""


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise StorageError(f"the store {path}: {error}{_cut_short(path, error)}") from error
    except OSError as error:
        raise StorageError(f"the store {path}: {error.strerror or error}") from error


class LmdbReader:
    """A read-only view of an LMDB store that another process writes and may enlarge."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _storage_errors(path):
            # map_size=0: the size that the writer gave it, whatever it is by now.
            self._environment = lmdb.open(
                str(path), readonly=True, create=False, map_size=0, max_readers=_READERS_MAX, readahead=False
            )
            # Readers that were killed keep old pages from being used again until their entries are cleared.
            self._environment.reader_check()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        # A transaction of its own for every call: one that stays open keeps all pages that are freed meanwhile.
        with _storage_errors(self._path):
            try:
                transaction = self._environment.begin()
            except lmdb.MapResizedError:
                # No transaction of this process is live here, which is what LMDB asks for.
                self._environment.set_mapsize(0)
                transaction = self._environment.begin()
            with transaction:
                yield transaction

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._reading() as transaction:
            get = transaction.get
            return cast(list[bytes | None], [get(key) for key in keys])

    def read_ranges(
        self, ranges: Sequence[tuple[bytes, bytes]], at_most: int, bytes_max: int
    ) -> list[list[tuple[bytes, bytes]]]:
        found = []
        read_bytes = 0
        with self._reading() as transaction, transaction.cursor() as cursor:
            for first, end in ranges:
                rows: list[tuple[bytes, bytes]] = []
                if cursor.set_range(first):
                    for key, row in cast(Iterable[tuple[bytes, bytes]], cursor):
                        if key >= end or len(rows) == at_most:
                            break
                        rows.append((key, row))
                        read_bytes += len(row)
                found.append(rows)
                if read_bytes >= bytes_max:
                    break
        return found

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._reading() as transaction, transaction.cursor() as cursor:
            if cursor.set_range(first):
                for key, row in cast(Iterable[tuple[bytes, bytes]], cursor):
                    if key >= end:
                        break
                    yield key, row

    def close(self) -> None:
        self._environment.close()


class LmdbWriter:
    """The writing side of an LMDB store: created if absent, its map doubled whenever it is full."""

    def __init__(self, path: Path, map_bytes_start: int) -> None:
        self._path = path
        self._map_bytes = map_bytes_start
        self._environment: lmdb.Environment
        self._tables: list[Any]
        self._usable = False
        with _storage_errors(path):
            if not (path / _DATA_FILE).exists():
                _create(path)
            self._open()

    def _open(self) -> None:
        self._environment = lmdb.open(
            str(self._path),
            map_size=self._map_bytes,
            create=False,
            max_readers=_READERS_MAX,
            max_dbs=len(PENDING_TABLES),
        )
        try:
            self._map_bytes = self._environment.info()["map_size"]  # the file may be larger already
            self._environment.reader_check()
            self._tables = [self._environment.open_db(name) for name in PENDING_TABLES]
            # The first thing that a failed disk must do: take what the kernel holds of this file.
            self._environment.sync(True)
        except BaseException:
            self._environment.close()
            raise
        self._usable = True

    @contextlib.contextmanager
    def _opened(self) -> Iterator[lmdb.Environment]:
        """The environment, opened anew after a failed write or sync. Nobody knows then which of the pages are on disk:
        the kernel may have marked them clean and report no error a second time, so syncing again would prove nothing.
        """
        with _storage_errors(self._path):
            if not self._usable:
                self._environment.close()
                self._open()
            yield self._environment

    @contextlib.contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        with self._opened() as environment, environment.begin() as transaction:
            yield transaction

    @property
    def pages(self) -> int:
        with self._opened() as environment:
            return int(environment.info()["last_pgno"]) + 1

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._reading() as transaction:
            return cast(list[bytes | None], [transaction.get(key) for key in keys])

    def write(self, rows: Iterable[Row], emptied: int | None = None) -> None:
        rows = list(rows)

        def step(transaction: lmdb.Transaction) -> None:
            _set(transaction, rows)
            if emptied is not None:
                # This frees the table's pages unread; to delete its rows one by one would copy every page first.
                transaction.drop(self._tables[emptied], delete=False)

        self._commit(step)

    def append(self, table: int, epoch: int, packed: bytes, rows: Iterable[Row]) -> None:
        rows = list(rows)

        def step(transaction: lmdb.Transaction) -> None:
            starts = enumerate(range(0, len(packed), _CHUNK_BYTES))
            chunks = ((_CHUNK_KEY.pack(epoch, number), packed[at : at + _CHUNK_BYTES]) for number, at in starts)
            with transaction.cursor(self._tables[table]) as cursor:
                cursor.putmulti(chunks, append=True)
            _set(transaction, rows)

        self._commit(step)

    def pending_epoch(self, table: int) -> int:
        with self._pending(table) as chunks:
            return _CHUNK_KEY.unpack(chunks.key())[0] if chunks.last() else 0

    def pending_bytes(self, table: int) -> int:
        with self._reading() as transaction:
            return int(transaction.stat(self._tables[table])["entries"]) * _CHUNK_BYTES

    def pending_rows(self, table: int) -> bytes:
        with self._pending(table) as chunks:
            return b"".join(cast(Iterable[bytes], chunks.iternext(keys=False)))

    @contextlib.contextmanager
    def _pending(self, table: int) -> Iterator[lmdb.Cursor]:
        with self._reading() as transaction, transaction.cursor(self._tables[table]) as cursor:
            yield cursor

    def _commit(self, step: Callable[[lmdb.Transaction], None]) -> None:
        """Run the step in a synced transaction of its own; all of it again, if the map was too small."""
        with self._opened() as environment:
            self._usable = False
            # Of readers that were killed, as a backup may be: pages that were freed since would not be used again.
            environment.reader_check()
            while True:
                try:
                    with environment.begin(write=True) as transaction:
                        step(transaction)
                        failpoints.hit("checkpointer.before_commit")
                    failpoints.hit("checkpointer.after_commit")
                    break
                except lmdb.MapFullError:
                    environment.set_mapsize(2 * self._map_bytes)
                    self._map_bytes *= 2
            self._usable = True

    def close(self) -> None:
        self._environment.close()


def _set(transaction: lmdb.Transaction, rows: Iterable[Row]) -> None:
    puts = []
    for key, row in rows:
        if row is None:
            transaction.delete(key)
        else:
            puts.append((key, row))
    with transaction.cursor() as cursor:
        cursor.putmulti(puts)


def _create(path: Path) -> None:
    """An empty store, durable. LMDB cannot open what a power cut leaves of its first, unsynced pages: so it makes them
    under another name. The directory may be there, as where a disk is mounted."""
    make_directory(path)
    unfinished = path / f"{_DATA_FILE}.new"
    unfinished.unlink(missing_ok=True)
    with contextlib.closing(lmdb.open(str(unfinished), subdir=False, lock=False)) as environment:
        environment.sync(True)
    unfinished.rename(path / _DATA_FILE)
    sync_directory(path)
