"""Entries of the verifier log and their bytes (docs/protocol.md, section 7)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from . import keys
from .epochs import Moment
from .keys import Key
from .values import Value


def _ts(ts: Moment) -> int:
    return ts.epoch << 32 | ts.counter


@dataclass(frozen=True)
class AddMerkle:
    slot: int
    parent: int
    key: Key
    value: Value

    def encode(self) -> bytes:
        return struct.pack("<BII", 1, self.slot, self.parent) + keys.encode(self.key) + self.value.encode()


@dataclass(frozen=True)
class EvictMerkle:
    slot: int
    parent: int

    def encode(self) -> bytes:
        return struct.pack("<BII", 2, self.slot, self.parent)


@dataclass(frozen=True)
class AddBlum:
    slot: int
    ts: Moment
    thread: int
    key: Key
    value: Value

    def encode(self) -> bytes:
        head = struct.pack("<BIQH", 3, self.slot, _ts(self.ts), self.thread)
        return head + keys.encode(self.key) + self.value.encode()


@dataclass(frozen=True)
class EvictBlum:
    slot: int
    ts: Moment

    def encode(self) -> bytes:
        return struct.pack("<BIQ", 4, self.slot, _ts(self.ts))


@dataclass(frozen=True)
class EvictBlumMerkle:
    slot: int
    parent: int
    ts: Moment

    def encode(self) -> bytes:
        return struct.pack("<BIIQ", 5, self.slot, self.parent, _ts(self.ts))


@dataclass(frozen=True)
class NextEpoch:
    def encode(self) -> bytes:
        return b"\x06"


@dataclass(frozen=True)
class CarryOver:
    ts: Moment
    thread: int
    key: Key
    value: Value

    def encode(self) -> bytes:
        return struct.pack("<BQH", 16, _ts(self.ts), self.thread) + keys.encode(self.key) + self.value.encode()


@dataclass(frozen=True)
class VerifyEpoch:
    def encode(self) -> bytes:
        return b"\x07"


@dataclass(frozen=True)
class Tick:
    def encode(self) -> bytes:
        return b"\x08"


@dataclass(frozen=True)
class Request:
    request: bytes

    def encode(self) -> bytes:
        return struct.pack("<BI", 9, len(self.request)) + self.request


@dataclass(frozen=True)
class Run:
    slots: tuple[int, ...]

    def encode(self) -> bytes:
        return struct.pack(f"<BB{len(self.slots)}I", 10, len(self.slots), *self.slots)


@dataclass(frozen=True)
class RunAbsent:
    parent: int

    def encode(self) -> bytes:
        return struct.pack("<BI", 11, self.parent)


@dataclass(frozen=True)
class Resume:
    resume: bytes

    def encode(self) -> bytes:
        return b"\x0c" + self.resume


@dataclass(frozen=True)
class ReplayMark:
    incarnation: bytes

    def encode(self) -> bytes:
        return b"\x0d" + self.incarnation


@dataclass(frozen=True)
class Replay:
    role: int
    """1 to 3: admitted in this role. 0: refused."""
    request: bytes

    def encode(self) -> bytes:
        return struct.pack("<BBI", 14, self.role, len(self.request)) + self.request


@dataclass(frozen=True)
class EndReplay:
    tag: bytes

    def encode(self) -> bytes:
        return b"\x0f" + self.tag


Entry = (
    AddMerkle
    | EvictMerkle
    | AddBlum
    | EvictBlum
    | EvictBlumMerkle
    | NextEpoch
    | CarryOver
    | VerifyEpoch
    | Tick
    | Request
    | Run
    | RunAbsent
    | Resume
    | ReplayMark
    | Replay
    | EndReplay
)
