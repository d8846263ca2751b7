"""The data directory of a service, and its sockets: what must be had for oneself alone before anything is started.

DATA/lock         held by the running supervisor
DATA/store/       the LMDB environment
DATA/monitor/     state and keys of an embedded monitor
DATA/http.token   bearer token of the HTTP gateway
"""

import fcntl
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvstore.children import ServiceError

_TOKEN_BYTES: Final = 32


@contextmanager
def locked_data_directory(path: Path) -> Iterator[None]:
    """Create the directory if absent and hold its lock. Raises ServiceError if another service has it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServiceError(f"the data directory {path} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServiceError(f"another server is running on the data directory {path}") from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def runtime_directory() -> Iterator[Path]:
    """A private directory for Unix sockets: their paths must be short, so it cannot be the data directory."""
    path = Path(tempfile.mkdtemp(prefix="zetakv-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def http_token(path: Path) -> str:
    """The gateway's bearer token, made at the first start; readable by the owner only."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
    return path.read_text().strip()


def bind_ports(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets on the same address, among which the kernel shares out connections. Raises ServiceError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Without SO_REUSEPORT first: with it, a second service could take half of our connections unnoticed.
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        sockets: list[socket.socket] = []
        for _ in range(count):
            bound = socket.socket(family)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind((host, port))
            port = bound.getsockname()[1]
    except OSError as error:
        raise ServiceError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sockets
