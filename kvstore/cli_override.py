"""`zetakv override`: to go on from a store that was put back, by an admin's signed decision.

The operator's program decides and signs, offline (`zetakv-monitor-operator override`); this exchanges the sealed state
in the store for the one that it gives. Nothing happens before the next start: until then a copy of the store undoes it.
A write-ahead log belongs to the instance that is given up, so it is moved aside.
"""

import contextlib
import json
import subprocess
from pathlib import Path

from kvstore.children import ServiceError, find_operator
from kvstore.cli_connect import say
from kvstore.config import ServeConfig
from kvstore.data_directory import locked_data_directory, move_aside
from kvstore.storage import SEALED_KEY, LmdbWriter


def override_rollback(config: ServeConfig, *, reason: str, admin_key: Path | None, register_lost: bool) -> None:
    """Exchange the sealed state, and say what the next start continues from. `admin_key`: None: the monitor's own.

    Raises ServiceError, StorageError.
    """
    if not config.store_path.exists():
        raise ServiceError(f"there is no store in {config.data}")
    with (
        locked_data_directory(config.data),
        contextlib.closing(LmdbWriter(config.store_path, config.map_bytes_start)) as store,
    ):
        (sealed,) = store.read([SEALED_KEY])
        if sealed is None:
            raise ServiceError(f"the store in {config.data} holds no sealed state: there is nothing to go on from")
        arguments = ["--admin-key", str(admin_key or config.admin_key_path), "--reason", reason]
        if register_lost:
            arguments.append("--register-lost")
        overriding = _ask_operator(config, "override", sealed, *arguments)
        if config.log_path.exists():
            move_aside(config.log_path)
        store.write([(SEALED_KEY, overriding)])
        state = json.loads(_ask_operator(config, "inspect", overriding))
    say(f"the next start continues from epoch {state['epoch']}, as instance {state['instance']}")


def _ask_operator(config: ServeConfig, command: str, sealed: bytes, *arguments: str) -> bytes:
    register = [] if config.register is None else ["--register", config.register]
    done = subprocess.run(
        [find_operator(), command, "--state", str(config.monitor_state_path), *register, *arguments],
        input=sealed,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise ServiceError(f"zetakv-monitor-operator {command} refused; its own message is above")
    return done.stdout
