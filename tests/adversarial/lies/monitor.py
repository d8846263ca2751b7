"""The real monitor as a process, and blocking streams to it: one message out, one message back, nothing in between."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self

from support.frames import Frame
from support.server import ZETAKV_MONITOR

_HEADER: Final = struct.Struct("<IB")
_MEMORY: Final = Path("/dev/shm")


def directory_in_memory() -> tempfile.TemporaryDirectory[str]:
    """For the monitor's state, whose writes are synced: where there is such a place, no disk is waited for."""
    return tempfile.TemporaryDirectory(prefix="zk-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None)


class StreamEndedError(Exception):
    """The monitor has ended the connection, or says nothing any more."""


class Stream:
    """A connection to the monitor. `receive` waits as long as its caller has patience."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._buffer = b""

    def send(self, frame: Frame) -> None:
        with contextlib.suppress(ConnectionError):  # what it has said before that is still to be read
            self._socket.sendall(frame.packed())

    def receive(self, patience_seconds: float) -> Frame:
        """Raises StreamEndedError."""
        self._socket.settimeout(patience_seconds)
        length, kind = _HEADER.unpack(self._take(_HEADER.size))
        return Frame(kind, self._take(length - 1))

    def close(self) -> None:
        self._socket.close()

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                data = self._socket.recv(1 << 16)
            except (TimeoutError, ConnectionError) as error:
                raise StreamEndedError(repr(error)) from error
            if not data:
                raise StreamEndedError("end of stream")
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


class MonitorProcess:
    """`zetakv-monitor --open` on a state directory that outlives it."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self._socket = directory / "monitor.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.identity = b""

    def start(self) -> Self:
        """A new process; a former one is killed."""
        self.kill()
        command = [ZETAKV_MONITOR, "--state", str(self.state), "--socket", str(self._socket), "--open"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        self.identity = bytes.fromhex(json.loads(self._process.stdout.readline())["fingerprint"])
        return self

    def connect(self) -> Stream:
        return Stream(self._socket)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
