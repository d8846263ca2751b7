"""The host's hand on the store: rows are edited, and whole stores are copied and put back.

A store may be edited while its server runs, since this is another process. An edit comes after what is pending.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb

from kvstore._prover import decode_record, encode_record, store_key_of
from kvstore.storage import PENDING_TABLES

_APPLIED_SECONDS = 5.0


class Disk:
    """The LMDB store at `path` (a directory)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, key: bytes) -> bytes | None:
        """The value on disk of an application key. Raises KeyError if it has no row."""
        row = self.row(store_key_of(key))
        if row is None:
            raise KeyError(key)
        stored_key, value = decode_record(row)
        assert stored_key == key
        return value

    def write(self, key: bytes, value: bytes | None) -> None:
        """Exchange the value of an application key in its row."""
        self.set_row(store_key_of(key), encode_record(key, value))

    def flip(self, key: bytes) -> None:
        """Change the value of an application key as with a hex editor: the row's checksum stays as it was."""
        row = self.row(store_key_of(key))
        assert row is not None
        self.set_row(store_key_of(key), row[:-1] + bytes((row[-1] ^ 1,)))

    def row(self, store_key: bytes) -> bytes | None:
        with self._transaction(write=False) as transaction:
            row = transaction.get(store_key)
            return None if row is None else bytes(row)

    def set_row(self, store_key: bytes, row: bytes | None) -> None:
        """None deletes the row."""
        with self._transaction(write=True) as transaction:
            if row is None:
                assert transaction.delete(store_key)
            else:
                transaction.put(store_key, row)

    def rows(self, prefix: bytes) -> dict[bytes, bytes]:
        with self._transaction(write=False) as transaction, transaction.cursor() as cursor:
            found: dict[bytes, bytes] = {}
            if cursor.set_range(prefix):
                for store_key, row in cursor:
                    if not bytes(store_key).startswith(prefix):
                        break
                    found[bytes(store_key)] = bytes(row)
            return found

    def copy_to(self, target: Path) -> None:
        shutil.copytree(self.path, target)

    def put_back(self, source: Path) -> None:
        """Replace the store of a stopped server by an older copy."""
        shutil.rmtree(self.path)
        shutil.copytree(source, self.path)

    @contextlib.contextmanager
    def _transaction(self, *, write: bool) -> Iterator[lmdb.Transaction]:
        environment = lmdb.open(
            str(self.path), map_size=0, readonly=not write, create=False, max_readers=128, max_dbs=len(PENDING_TABLES)
        )
        try:
            tables = [environment.open_db(name, create=False) for name in PENDING_TABLES]
            end = time.monotonic() + _APPLIED_SECONDS
            while True:
                with environment.begin(write=write) as transaction:
                    if not any(transaction.stat(table)["entries"] for table in tables):
                        yield transaction
                        return
                assert time.monotonic() < end, "checkpoints are pending, and nobody applies them"
                time.sleep(0.01)
        finally:
            environment.close()
