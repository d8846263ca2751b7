"""The data directory of a service, and its sockets: what must be had for oneself alone before anything is started.

DATA/lock         held by the running supervisor and its children; names the supervisor's process
DATA/runtime      link to the directory of the running server's sockets
DATA/store/       the LMDB environment; not finished: store/data.mdb.new, store/unfinished, store.partial; former ones:
                  store.replaced-*
DATA/wal/         the write-ahead log, if there is one; wal.replaced-*: former ones
DATA/monitor/     state and keys of an embedded monitor
DATA/http.token   bearer token of the HTTP gateway
"""

import fcntl
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvstore.children import ServiceError
from kvstore.directories import make_directory, sync_directory

_TOKEN_BYTES: Final = 32
_TOKEN_LENGTH_MIN: Final = 32
"""Characters of a token that nobody guesses; one that is made here has 43."""
_LOCK_SECONDS: Final = 3.0
"""How long the end of a former server's processes is waited for."""
_LOCK_RETRY_SECONDS: Final = 0.05
_PID_BYTES_MAX: Final = 16
_RUNTIME_PREFIX: Final = "zetakv-"


@contextmanager
def locked_data_directory(path: Path) -> Iterator[int]:
    """Create the directory if absent and hold its lock, for as long as any process has the descriptor that is given.

    So its children get it, too: killed or not, a supervisor has no successor while a checkpoint may still be written,
    or a port is still taken. Raises ServiceError if another service has the lock.
    """
    try:
        make_directory(path)
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServiceError(f"the data directory {path} cannot be used: {error.strerror}") from error
    try:
        _lock(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise ServiceError(_who_holds(descriptor, path)) from None
        time.sleep(_LOCK_RETRY_SECONDS)


def _who_holds(descriptor: int, path: Path) -> str:
    holder = os.pread(descriptor, _PID_BYTES_MAX, 0).decode(errors="replace").strip()
    if holder.isdecimal() and not _is_alive(holder):
        return f"the server that ran on the data directory {path} was killed and still writes its checkpoint: wait"
    return f"another server is running on the data directory {path} (process {holder or 'unknown'})"


def _is_alive(process_id: str) -> bool:
    """One that has ended, and that its parent has not waited for, has no command line any more."""
    try:
        return bool(Path("/proc", process_id, "cmdline").read_bytes())
    except OSError:
        return False


@contextmanager
def runtime_directory(data: Path) -> Iterator[Path]:
    """A private directory for Unix sockets: their paths must be short, so it cannot be the data directory.

    DATA/runtime leads to it, so that the next server can remove what a killed one left behind. `data` must be locked.
    """
    link = data / "runtime"
    if link.is_symlink():
        _remove_runtime(link)
    path = Path(tempfile.mkdtemp(prefix=_RUNTIME_PREFIX))
    link.symlink_to(path)
    try:
        yield path
    finally:
        _remove_runtime(link)


def _remove_runtime(link: Path) -> None:
    path = link.readlink()
    if path.parent == Path(tempfile.gettempdir()) and path.name.startswith(_RUNTIME_PREFIX):
        shutil.rmtree(path, ignore_errors=True)
    link.unlink()


def restore_marker(data: Path) -> Path:
    """A file that is there from before a restore changes anything until it is through: between its steps, store and
    write-ahead log are not those of one another."""
    return data / "restore.unfinished"


def refuse_unfinished_restore(data: Path) -> None:
    """Raises ServiceError if a restore of the data directory was interrupted."""
    if restore_marker(data).exists():
        raise ServiceError(
            f"a restore into {data} was interrupted: run the same `zetakv restore … --replace` again. Nothing is lost: "
            "what was there is in the newest *.replaced-* beside it"
        )


def move_aside(path: Path) -> Path:
    """Give way to another store, durably. The data directory must be locked. Returns the new name."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.replaced-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.replaced-{stamp}-{number}")
    path.rename(aside)
    sync_directory(path.parent)
    return aside


def http_token(path: Path) -> str:
    """The gateway's bearer token, made at the first start; readable by the owner only. Raises ServiceError.

    It is whole, or not there: an empty one would let everybody in who gives none.
    """
    if not path.exists():
        unfinished = path.with_name(path.name + ".new")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
            file.flush()
            os.fsync(descriptor)
        unfinished.rename(path)
        sync_directory(path.parent)
    token = path.read_text().strip()
    if len(token) < _TOKEN_LENGTH_MIN:
        raise ServiceError(
            f"{path}: too short for a token, so anybody could guess it: delete it, and a new one is made"
        )
    return token


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


def address_text(bound: socket.socket) -> str:
    """`host:port` of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
