"""Directories, and names in them, that survive a power cut: a file system syncs what is in a file, not its name."""

import contextlib
import os
from pathlib import Path


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make the directory, and those above it, if they are not there. Durable when it returns, whoever has made it."""
    if not path.parent.exists():
        make_directory(path.parent, mode=0o777)
    path.mkdir(mode=mode, exist_ok=True)
    # Also if it was there: who made it may have been killed before the sync. A parent that this user may not open was
    # made by somebody else.
    with contextlib.suppress(PermissionError):
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
