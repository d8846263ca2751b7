"""A disk whose next write or sync of the store fails: `failing_disk.c`, compiled and preloaded into a server."""

import errno
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

_SOURCE: Final = Path(__file__).with_name("failing_disk.c")


class FailingDisk:
    """`environment` is the server's. `calls` are those that may fail."""

    calls: Final = ("page", "sync", "meta")

    def __init__(self, directory: Path) -> None:
        """Skips the test where there is no C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler (cc): the disk's calls cannot be made to fail")
        self._directory = directory / "failing-disk"
        self._directory.mkdir()
        library = self._directory / "failing_disk.so"
        command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        self.environment = {"LD_PRELOAD": str(library), "FAILING_DISK": str(self._directory)}

    def plan(self, call: str, error: int) -> Path:
        """Let the next call fail, once. The file that is returned is gone when it has."""
        assert call in self.calls
        assert error in (errno.EIO, errno.ENOSPC)
        path = self._directory / f"{call}-{error}"
        path.touch()
        return path
