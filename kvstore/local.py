"""What this user's tools on this machine know: the record of each running server, and what clients remember.

$ZETAKV_HOME/servers/PORT.json   written by a server when it is ready, removed when it stops; the SDK reads it
$ZETAKV_HOME/state/              the last certificate of each monitor, so that a rollback is noticed by the next run
"""

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore.config import ServeConfig
from kvstore.supervisor import Ready


def home() -> Path:
    """`$ZETAKV_HOME`, by default `~/.zetakv`."""
    return Path(os.environ.get("ZETAKV_HOME") or Path.home() / ".zetakv")


def state_directory() -> Path:
    return home() / "state"


@contextmanager
def server_record(config: ServeConfig, ready: Ready) -> Iterator[None]:
    """Let the tools of this user find the server, for as long as it runs."""
    has_key = config.verified and config.admin_key_path.exists()
    record = {
        "address": ready.address,
        "fingerprint": ready.fingerprint,
        "key_file": str(config.admin_key_path.absolute()) if has_key else None,
        "data": str(config.data.absolute()),
        "http": ready.http_address,
    }
    path = home() / "servers" / f"{ready.address.rpartition(':')[2]}.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(record, file)
    temporary.replace(path)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
