"""Copies of a store: backup while the server runs, restore, and compaction. All on the host's side, untrusted.

A copy is that of one LMDB transaction, so of one durable checkpoint, with its sealed state; pending checkpoints are
part of it; the write-ahead log, of what came after it, is not. It never holds a secret of the monitor: without
`root.key` nobody can start from it. What a copy garbles, the monitor finds. Every result appears under its name only
when all of it is on disk.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import lmdb

from kvstore import failpoints, limits
from kvstore.checkpointer import check_meta
from kvstore.children import ServiceError
from kvstore.data_directory import locked_data_directory, move_aside, refuse_unfinished_restore, restore_marker
from kvstore.pending import Pending
from kvstore.storage import META_KEY, PENDING_TABLES, SEALED_KEY, LmdbWriter, StorageError

MANIFEST: Final = "manifest.json"
_MANIFEST_FORMAT: Final = "zetakv-backup-1"
_DATA_FILE: Final = "data.mdb"
_ROWS_AT_ONCE: Final = 10_000
_PROGRESS_SECONDS: Final = 0.2

Progress = Callable[[int, int], None]
"""Told of bytes (or rows) done, and of all."""


class BackupError(Exception):
    """A copy cannot be made or used. The text says why, and what to do."""


def backup(data: Path, target: Path, progress: Progress) -> dict[str, Any]:
    """Copy the store of a data directory, whose server may run. Returns the manifest. Raises BackupError."""
    partial = target.with_name(target.name + ".partial")
    if target.exists():
        raise BackupError(f"{target} exists already: name a new directory for each backup")
    with _errors(f"the backup {target}"):
        shutil.rmtree(partial, ignore_errors=True)  # of a backup that was interrupted
        (partial / "store").mkdir(mode=0o700, parents=True)
        with _opened(data / "store") as environment:
            environment.reader_check()
            size = int(environment.info()["last_pgno"] + 1) * int(environment.stat()["psize"])
            with _watched(partial / "store" / _DATA_FILE, size, progress):
                # Without the free pages: about as fast, and smaller.
                environment.copy(str(partial / "store"), compact=True)
        manifest = _describe(partial / "store")
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        for path in (partial / "store" / _DATA_FILE, partial / MANIFEST, partial / "store", partial):
            _sync(path)
        partial.rename(target)
        _sync(target.absolute().parent)
    return manifest


def restore(source: Path, data: Path, *, replace: bool) -> list[Path]:
    """Put a backup's store into a data directory, whose server must not run. Returns what was moved aside, to where.

    Raises BackupError.
    """
    with _errors(f"the restore of {source}"):
        manifest = json.loads((source / MANIFEST).read_text())
        if manifest.get("format") != _MANIFEST_FORMAT:
            raise BackupError(f"{source} is no backup of this release: its {MANIFEST} has another format")
        with locked_data_directory(data):
            store, log, partial = data / "store", data / "wal", data / "store.partial"
            former = [path for path in (log, store) if path.exists()]
            if former and not replace:
                raise BackupError(f"{former[-1]} exists: with --replace it is moved aside, and kept")
            for path in former:
                if path.is_mount():
                    raise BackupError(
                        f"{path} is where a disk is mounted, and cannot be moved aside: restore elsewhere"
                    )
            with _unfinished(partial):
                shutil.copyfile(source / "store" / _DATA_FILE, partial / _DATA_FILE)
                failpoints.hit("restore.after_copy")
                if _describe(partial)["epoch"] != manifest["epoch"]:
                    raise BackupError(f"{source} is damaged: its store is not the one of its {MANIFEST}")
                for path in (partial / _DATA_FILE, partial):
                    _sync(path)
            marker = restore_marker(data)
            marker.touch()
            _sync(data)
            aside: list[Path] = []
            try:
                for path in former:
                    failpoints.hit("restore.before_move")
                    aside.append(move_aside(path))
                failpoints.hit("restore.before_rename")
                partial.rename(store)
            except OSError:
                for path, moved in zip(former, aside, strict=False):
                    moved.rename(path)
                _sync(data)
                if all(path.exists() for path in former):  # else one was moved, but not known to be: the mark stays
                    shutil.rmtree(partial, ignore_errors=True)
                    marker.unlink()
                    _sync(data)
                raise
            _sync(data)
            failpoints.hit("restore.after_rename")
            marker.unlink()
            _sync(data)
    return aside


def compact(data: Path, progress: Progress) -> tuple[int, int]:
    """Write the store anew, in the order of its keys, with full pages. Returns its bytes before and after.

    The server must not run. Until the last step, a rename, the store is as before. Raises BackupError.
    """
    with _errors(f"the compaction of {data}"), locked_data_directory(data):
        store = data / "store"
        partial = store / "unfinished"  # on the same disk, whatever is mounted where
        refuse_unfinished_restore(data)
        if not (store / _DATA_FILE).exists():
            raise BackupError(f"{data} has no store")
        writer = LmdbWriter(store, limits.MIB)
        try:
            pending = Pending(writer)
            while not pending.is_empty:
                failpoints.hit("compact.before_apply")
                pending.apply_some()
        finally:
            writer.close()
        before = (store / _DATA_FILE).stat().st_size
        with _unfinished(partial):
            with _opened(store) as old, lmdb.open(str(partial), map_size=_map_bytes(old), sync=False) as new:
                _copy_rows(old, new, progress)
                failpoints.hit("compact.before_sync")
                new.sync(True)
            _sync(partial / _DATA_FILE)
            failpoints.hit("compact.before_rename")
            (partial / _DATA_FILE).rename(store / _DATA_FILE)
        failpoints.hit("compact.after_rename")
        # It speaks of the old file's readers; the next who opens the store makes it anew.
        (store / "lock.mdb").unlink(missing_ok=True)
        _sync(store)
        shutil.rmtree(partial, ignore_errors=True)
        return before, (store / _DATA_FILE).stat().st_size


@contextmanager
def _unfinished(partial: Path) -> Iterator[None]:
    """An empty directory for a new store. If that is not finished, it takes no room any more."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    try:
        yield
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _describe(store: Path) -> dict[str, Any]:
    """The manifest of a copied store, which nobody else has open."""
    with _opened(store) as environment, environment.begin() as transaction:
        meta, sealed = transaction.get(META_KEY), transaction.get(SEALED_KEY)
        found = check_meta(meta, verified=sealed is not None)
        if found is None:
            raise BackupError("the store is empty: there is no checkpoint yet")
        newest = _newest_certificate(transaction)
        return {
            "format": _MANIFEST_FORMAT,
            "store_format": found["format"],
            "verified": found["verified"],
            "epoch": found["epoch"],
            "instance": newest[4:20].hex() if newest else None,
            "certificate": newest.hex() if newest else None,
            "bytes": (store / _DATA_FILE).stat().st_size,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def _newest_certificate(transaction: lmdb.Transaction) -> bytes | None:
    """Of the epoch before the checkpoint's: the certificate of an epoch is written with the next one."""
    with transaction.cursor() as cursor:
        found = cursor.prev() if cursor.set_range(b"d") else cursor.last()
        return bytes(cursor.value()) if found and cursor.key()[:1] == b"c" else None


def _copy_rows(old: lmdb.Environment, new: lmdb.Environment, progress: Progress) -> None:
    with old.begin() as reading, reading.cursor() as cursor:
        total, done = int(old.stat()["entries"]), 0
        batch: list[tuple[bytes, bytes]] = []

        def write() -> None:
            with new.begin(write=True) as transaction, transaction.cursor() as target:
                target.putmulti(batch, append=True)
            batch.clear()
            progress(done, total)

        for key, row in cursor:
            # The tables of pending checkpoints are empty here, and LMDB's own: the next writer makes them anew.
            if key not in PENDING_TABLES:
                batch.append((key, row))
                done += 1
            if len(batch) == _ROWS_AT_ONCE:
                write()
        write()


def _map_bytes(environment: lmdb.Environment) -> int:
    return int(environment.info()["map_size"])


@contextmanager
def _opened(store: Path) -> Iterator[lmdb.Environment]:
    if not (store / _DATA_FILE).exists():
        raise BackupError(f"{store} is no store")
    with lmdb.open(str(store), readonly=True, create=False, map_size=0, max_dbs=len(PENDING_TABLES)) as environment:
        yield environment


@contextmanager
def _watched(path: Path, total: int, progress: Progress) -> Iterator[None]:
    """Tell of a file's growth meanwhile: LMDB copies in one call."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_PROGRESS_SECONDS):
            if path.exists():
                progress(path.stat().st_size, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except (lmdb.Error, StorageError, ServiceError, ValueError, KeyError) as error:
        raise BackupError(f"{what}: {error}") from error
    except OSError as error:
        raise BackupError(f"{what}: {error.filename or ''} {error.strerror or error}") from error
