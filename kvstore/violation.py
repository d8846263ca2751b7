"""Violations as the host passes them on: the monitor's signed ones, and what the host itself finds in its store.

Only the client can check the signature; here a violation is parsed in order to report it to the operator.
"""

import struct
from dataclasses import asdict, dataclass
from typing import Any, Final

from kvstore_client import VIOLATION_NAMES

MISSING_ROW: Final = "missing_row"
"""The store lacks, or garbles, a row that a proof needs. Found by the host, so it has no code and no signature."""
ENGINE_STOPPED: Final = "engine_stopped"
"""A worker's engine can prove no more, for another reason. Also the host's own finding."""

# magic, instance, incarnation, code, thread, epoch, offset, key depth, key bits, signature
_VIOLATION: Final = struct.Struct("<4s16s16sHHIQH32s64s")
_MAGIC: Final = b"ZKV1"
_NO_THREAD: Final = 65_535
_LEAF_DEPTH: Final = 256


class IntegrityViolationError(Exception):
    """The service cannot start from what its store holds. `name` is the violation's."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        super().__init__(f"{name}: {text}")


def violation_name(code: int) -> str:
    return VIOLATION_NAMES.get(code, f"violation_{code}")


@dataclass(frozen=True)
class Violation:
    """What was violated and where; `signed` holds the monitor's own bytes (hex), or nothing if the host found it."""

    code: int
    name: str
    text: str
    thread: int | None = None
    epoch: int | None = None
    offset: int | None = None
    """Bytes into the thread's verifier log."""
    key: str | None = None
    """Hex: of the monitor, `bits/depth` of the base key; of the host, the store key."""
    key_hash: str | None = None
    """Hex of the application key's hash, where the record is a leaf."""
    signed: str = ""
    host_finding: str = ""
    """What the host adds from its store (`findings.py`). Nobody has signed it: a hint where to look, no evidence."""

    @classmethod
    def from_monitor(cls, body: bytes) -> "Violation":
        """Parse a violation message. Raises ValueError if it is none."""
        if len(body) != _VIOLATION.size or not body.startswith(_MAGIC):
            raise ValueError("not a violation")
        _, _, _, code, thread, epoch, offset, depth, bits, _ = _VIOLATION.unpack(body)
        name = violation_name(code)
        return cls(
            code=code,
            name=name,
            text=f"the monitor has found {name} and certifies nothing any more",
            thread=None if thread == _NO_THREAD else thread,
            epoch=epoch,
            offset=offset,
            key=f"{bits[: (depth + 7) // 8].hex()}/{depth}" if depth else None,
            key_hash=bits.hex() if depth == _LEAF_DEPTH else None,
            signed=body.hex(),
        )

    @classmethod
    def found_by_host(cls, thread: int, text: str, store_key: bytes | None) -> "Violation":
        """Why a worker's engine could not go on. `store_key`: the row that it lacks, if that is why."""
        name = ENGINE_STOPPED if store_key is None else MISSING_ROW
        return cls(code=0, name=name, text=text, thread=thread, key=None if store_key is None else store_key.hex())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> str:
        """One line for people."""
        return f"{self.name}: {self.details()}"

    def details(self) -> str:
        """What and where, without the name."""
        where = [
            f"{label} {value}"
            for label, value in (
                ("thread", self.thread),
                ("epoch", self.epoch),
                ("offset", self.offset),
                ("key", self.key),
            )
            if value is not None
        ]
        added = f"; the host adds, unproved: {self.host_finding}" if self.host_finding else ""
        return self.text + (f" ({', '.join(where)})" if where else "") + added
