"""What the host asks of a store, and its LMDB implementation.

A store maps opaque keys to opaque rows. Only `StoreWriter.write` changes it, atomically and durably; readers see the
state of one former write until they `refresh`. Everything here is untrusted: what a store garbles, the monitor finds.
A store may be opened once per process (LMDB's rule), and never before a fork.

Store keys begin with one byte: `r` records, `n` Merkle nodes, `h` hot rows (made by the prover, opaque), `m` the meta
row, `s` the sealed state, `c` and an epoch (big-endian) its certificate.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, cast

import lmdb

from kvstore import failpoints

META_KEY: Final = b"m"
SEALED_KEY: Final = b"s"
RECORD_PREFIX: Final = b"r"

_DELETED: Final = 2**32 - 1
_LENGTH_BYTES: Final = 4

# The supervisor's tools may read beside the workers: a little room in LMDB's table of readers.
_SPARE_READERS: Final = 16
_READERS_MAX: Final = 64 + _SPARE_READERS

Row = tuple[bytes, bytes | None]


class StorageError(Exception):
    """The store cannot be opened, read or written. The text says which and why."""


class StoreReader(Protocol):
    """Reads the store as of the last `refresh`."""

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of the keys, in their order; None where there is none."""

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows with first <= key < end, in the order of their keys. Not to be used across a `refresh`."""

    def refresh(self) -> None:
        """From now on read the newest durable state."""

    def close(self) -> None: ...


class StoreWriter(Protocol):
    """The one writer of a store."""

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of the keys as of the last write."""

    def write(self, rows: Sequence[Row]) -> None:
        """Set (or, for None, delete) all the rows in one transaction; durable when it returns. Raises StorageError."""

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


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise StorageError(f"the store {path}: {error}") from error
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
            self._transaction = self._begin()

    def _begin(self) -> lmdb.Transaction:
        try:
            return self._environment.begin()
        except lmdb.MapResizedError:
            # No transaction of this process is live here, which is what LMDB asks for.
            self._environment.set_mapsize(0)
            return self._environment.begin()

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        get = self._transaction.get
        with _storage_errors(self._path):
            return cast(list[bytes | None], [get(key) for key in keys])

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        with _storage_errors(self._path), self._transaction.cursor() as cursor:
            if cursor.set_range(first):
                for key, row in cast(Iterable[tuple[bytes, bytes]], cursor):
                    if key >= end:
                        break
                    yield key, row

    def refresh(self) -> None:
        with _storage_errors(self._path):
            self._transaction.abort()
            self._transaction = self._begin()

    def close(self) -> None:
        self._transaction.abort()
        self._environment.close()


class LmdbWriter:
    """The writing side of an LMDB store: created if absent, its map doubled whenever it is full."""

    def __init__(self, path: Path, map_bytes_start: int) -> None:
        self._path = path
        with _storage_errors(path):
            created = not path.exists()
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._environment = lmdb.open(
                str(path), map_size=0 if not created else map_bytes_start, max_readers=_READERS_MAX
            )
            if self._environment.info()["map_size"] < map_bytes_start:
                self._environment.set_mapsize(map_bytes_start)
            self._environment.reader_check()
            if created:
                # LMDB syncs what is in its files, not the names of the files.
                _sync_directory(path)
                _sync_directory(path.parent)

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with _storage_errors(self._path), self._environment.begin() as transaction:
            return cast(list[bytes | None], [transaction.get(key) for key in keys])

    def write(self, rows: Sequence[Row]) -> None:
        puts = sorted((key, value) for key, value in rows if value is not None)
        deletes = sorted(key for key, value in rows if value is None)
        with _storage_errors(self._path):
            while True:
                try:
                    with self._environment.begin(write=True) as transaction:
                        for key in deletes:
                            transaction.delete(key)
                        with transaction.cursor() as cursor:
                            cursor.putmulti(puts)
                        failpoints.hit("checkpointer.before_commit")
                    failpoints.hit("checkpointer.after_commit")
                    return
                except lmdb.MapFullError:
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def close(self) -> None:
        self._environment.close()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
