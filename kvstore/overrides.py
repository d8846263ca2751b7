"""The operator's overrides of a rollback, as the monitor tells the host of them: for the status, which proves nothing.

Clients do not get them from here: they are in the monitor's signed hello.
"""

import struct
from datetime import UTC, datetime
from typing import Final

from kvstore_client import Override

from kvstore.messages import Json

_COUNT: Final = struct.Struct("<B")
_LENGTH: Final = struct.Struct("<H")


def split_overrides(data: bytes) -> tuple[tuple[Override, ...], bytes]:
    """The overrides that `data` begins with, and the rest. Raises struct.error, ProtocolError."""
    (count,) = _COUNT.unpack_from(data)
    at = _COUNT.size
    overrides = []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        overrides.append(Override.read(data[at : at + length]))
        at += length
    return tuple(overrides), data[at:]


def override_json(override: Override) -> Json:
    return {
        "time": datetime.fromtimestamp(override.time, UTC).isoformat(),
        "epoch": override.epoch,
        "old_instance": override.old_instance.hex(),
        "new_instance": override.new_instance.hex(),
        "admin_key": override.admin_key.hex(),
        "reason": override.reason,
    }
