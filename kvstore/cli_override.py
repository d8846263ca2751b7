"""`zetakv override`: to go on from a store that was put back, by an admin's signed decision.

The monitor decides and signs, offline (`zetakv-monitor override`); this exchanges the sealed state in the store for the
one that it gives. Nothing happens before the next start: until then a copy of the store undoes it. A write-ahead log
belongs to the instance that is given up, so it is moved aside.
"""

import contextlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstore.children import ServiceError, find_monitor
from kvstore.data_directory import locked_data_directory, move_aside
from kvstore.storage import SEALED_KEY, LmdbWriter


@dataclass(frozen=True, kw_only=True)
class OverrideOrder:
    """What the operator wants. `register`: as of `zetakv serve`; None: the monitor's default."""

    data: Path
    monitor_state: Path
    admin_key: Path
    reason: str
    register: str | None
    register_lost: bool
    map_bytes: int


def override_rollback(order: OverrideOrder) -> dict[str, Any]:
    """Exchange the sealed state; returns what `zetakv-monitor inspect` says of the new one.

    Raises ServiceError, StorageError.
    """
    store_path = order.data / "store"
    if not store_path.exists():
        raise ServiceError(f"there is no store in {order.data}")
    with (
        locked_data_directory(order.data),
        contextlib.closing(LmdbWriter(store_path, order.map_bytes)) as store,
    ):
        (sealed,) = store.read([SEALED_KEY])
        if sealed is None:
            raise ServiceError(f"the store in {order.data} holds no sealed state: there is nothing to go on from")
        arguments = ["--admin-key", str(order.admin_key), "--reason", order.reason]
        if order.register_lost:
            arguments.append("--register-lost")
        overriding = _ask_monitor(order, "override", sealed, *arguments)
        log = order.data / "wal"
        if log.exists():
            move_aside(log)
        store.write([(SEALED_KEY, overriding)])
        answer: dict[str, Any] = json.loads(_ask_monitor(order, "inspect", overriding))
        return answer


def _ask_monitor(order: OverrideOrder, command: str, sealed: bytes, *arguments: str) -> bytes:
    register = [] if order.register is None else ["--register", order.register]
    done = subprocess.run(
        [find_monitor(), command, "--state", str(order.monitor_state), *register, *arguments],
        input=sealed,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise ServiceError(f"zetakv-monitor {command} refused; its own message is above")
    return done.stdout
