"""A store as of its newest durable checkpoint, for reading only: its rows, overlaid by what is still pending.

All is read in one LMDB transaction, so it is one checkpoint, even while a server writes on. Nothing is ever written:
what is pending is laid over the rows in memory, as the checkpointer itself holds it there. Where the store has a lock
file, LMDB notes its reader in it; where it has none, as in a backup, none is made.
"""

import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import lmdb

from kvstore.storage import PENDING_TABLES, StorageError, unpack_rows

_TABLES_MAX: Final = len(PENDING_TABLES)


class Snapshot:
    """Use `opened_snapshot`. What raises lmdb.Error or StorageError cannot be read: the file itself is damaged."""

    def __init__(self, environment: lmdb.Environment, transaction: lmdb.Transaction) -> None:
        self._transaction = transaction
        self.rows_about: int = int(environment.stat()["entries"])
        """About how many rows there are: what is pending may add some."""
        tables = sorted(_pending(environment, transaction))
        self._overlay = {key: row for _, packed in tables for key, row in unpack_rows(packed)}
        self._overlaid = sorted(self._overlay)

    def get(self, key: bytes) -> bytes | None:
        if key in self._overlay:
            return self._overlay[key]
        return cast(bytes | None, self._transaction.get(key))

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows with first <= key < end, in order of their keys."""
        at, overlaid = bisect.bisect_left(self._overlaid, first), self._overlaid
        with self._transaction.cursor() as cursor:
            if cursor.set_range(first):
                for key, row in cast(Iterator[tuple[bytes, bytes]], cursor):
                    if key >= end:
                        break
                    while at < len(overlaid) and overlaid[at] < key:
                        yield from self._pending_row(overlaid[at])
                        at += 1
                    if key not in self._overlay:
                        yield key, row
        while at < len(overlaid) and overlaid[at] < end:
            yield from self._pending_row(overlaid[at])
            at += 1

    def _pending_row(self, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        row = self._overlay[key]
        if row is not None:
            yield key, row


@contextmanager
def opened_snapshot(store: Path) -> Iterator[Snapshot]:
    """Raises StorageError."""
    if not (store / "data.mdb").exists():
        raise StorageError(f"{store} is no store")
    lock = (store / "lock.mdb").exists()
    try:
        with (
            lmdb.open(
                str(store), readonly=True, create=False, map_size=0, max_dbs=_TABLES_MAX, lock=lock, readahead=False
            ) as environment,
            environment.begin() as transaction,
        ):
            yield Snapshot(environment, transaction)
    except lmdb.Error as error:
        raise StorageError(f"the file of the store {store} cannot be read ({error}): restore a backup") from error
    except OSError as error:
        raise StorageError(f"the store {store}: {error.strerror or error}") from error


def _pending(environment: lmdb.Environment, transaction: lmdb.Transaction) -> Iterator[tuple[bytes, bytes]]:
    """Of each pending table that is not empty its last key, which has the epoch first, and its packed rows."""
    for name in PENDING_TABLES:
        try:
            table: Any = environment.open_db(name, txn=transaction, create=False)
        except lmdb.NotFoundError:
            continue
        with transaction.cursor(table) as chunks:
            if chunks.last():
                last = bytes(chunks.key())
                yield last, b"".join(_from_first(chunks))


def _from_first(chunks: lmdb.Cursor) -> Iterator[bytes]:
    chunks.first()
    return cast(Iterator[bytes], chunks.iternext(keys=False))
