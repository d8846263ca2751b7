"""Small private files: written so that a crash leaves the old or the new content, read only if nobody else could."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore_client._errors import StateError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def write_private(path: Path, text: str) -> None:
    """Replace `path` atomically and durably, mode 0600. Raises StateError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise StateError(f"{path}: cannot be written: {error.strerror}") from error


def read_private(path: Path) -> str:
    """Raises FileNotFoundError, or StateError if others may read or write the file."""
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise StateError(f"{path}: others may read or change it (mode {mode & 0o777:o}); do: chmod 600 {path}")
            return file.read()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"{path}: cannot be read: {error}") from error


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Make the directory, and keep other clients, of this process and others, from a block of the same kind.

    Raises StateError. Without effect where the system has no `flock`.
    """
    descriptor = None
    try:
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if fcntl is not None:
                descriptor = os.open(path, os.O_RDONLY)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise StateError(f"{path}: cannot be locked: {error.strerror}") from error
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _sync_directory(path: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
