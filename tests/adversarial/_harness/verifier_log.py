"""The verifier log and its outputs, byte by byte (protocol section 7): `decode` and `encode` are each other's inverse.

A host that lies must still speak the language, so attacks work on entries and never on offsets. Record values stay
encoded (`value: bytes`): what a leaf holds is a commitment, made with `kvstore_client`'s own `commitment`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

_KEY = struct.Struct("<H32s")
_LEAF_DEPTH = 256
_RESUME_BYTES = 48
_TAG_BYTES = 16
_VIOLATION_BYTES = 4 + 16 + 16 + 2 + 2 + 4 + 8 + _KEY.size + 64


@dataclass(frozen=True)
class BaseKey:
    depth: int
    bits: bytes

    @property
    def is_leaf(self) -> bool:
        return self.depth == _LEAF_DEPTH


@dataclass(frozen=True)
class AddMerkle:
    slot: int
    parent: int
    key: BaseKey
    value: bytes


@dataclass(frozen=True)
class EvictMerkle:
    slot: int
    parent: int


@dataclass(frozen=True)
class AddBlum:
    slot: int
    ts: int
    thread: int
    key: BaseKey
    value: bytes


@dataclass(frozen=True)
class EvictBlum:
    slot: int
    ts: int


@dataclass(frozen=True)
class EvictBlumMerkle:
    slot: int
    parent: int
    ts: int


@dataclass(frozen=True)
class NextEpoch:
    pass


@dataclass(frozen=True)
class CarryOver:
    ts: int
    thread: int
    key: BaseKey
    value: bytes


@dataclass(frozen=True)
class VerifyEpoch:
    pass


@dataclass(frozen=True)
class Tick:
    pass


@dataclass(frozen=True)
class Request:
    request: bytes


@dataclass(frozen=True)
class Run:
    slots: tuple[int, ...]


@dataclass(frozen=True)
class RunAbsent:
    parent: int


@dataclass(frozen=True)
class Resume:
    resume: bytes


@dataclass(frozen=True)
class ReplayMark:
    incarnation: bytes


@dataclass(frozen=True)
class Replay:
    outcome: int
    request: bytes


@dataclass(frozen=True)
class EndReplay:
    tag: bytes


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


@dataclass(frozen=True)
class Output:
    """`content`: role, reason, receipt, resumed, epoch or violation, as the kind has it, without its length."""

    kind: int
    content: bytes


ADMITTED, REJECTED, NOT_YET, REFUSED, RECEIPT, RESUMED, HANDED_OVER, EPOCH_NOT_YET, FAILED, LOGGED = range(1, 11)
_COUNTED = frozenset({REFUSED, RECEIPT, RESUMED})
_FIXED_BYTES = {ADMITTED: 1, REJECTED: 1, NOT_YET: 0, HANDED_OVER: 4, EPOCH_NOT_YET: 0, LOGGED: _TAG_BYTES}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise ValueError(f"{count} bytes wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def key(self) -> BaseKey:
        depth, bits = _KEY.unpack(self.take(_KEY.size))
        return BaseKey(depth, bits)

    def value(self) -> bytes:
        start = self.at
        match self.number(1):
            case 0:
                pass
            case 1:
                self.take(self.number(1))
            case 2:
                self.take(4 + 32)
            case 3:
                for _ in range(2):
                    match self.number(1):
                        case 1:
                            self.take(_KEY.size + 32)
                        case 2:  # in Blum: no hash
                            self.take(_KEY.size)
            case tag:
                raise ValueError(f"value tag {tag}")
        return self.data[start : self.at]

    @property
    def more(self) -> bool:
        return self.at < len(self.data)


def decode(log: bytes) -> list[Entry]:
    """The entries of a log message. Raises ValueError."""
    reader, entries = _Reader(log), []
    while reader.more:
        entries.append(_decode_entry(reader))
    return entries


def _decode_entry(reader: _Reader) -> Entry:
    number = reader.number
    match number(1):
        case 1:
            return AddMerkle(number(4), number(4), reader.key(), reader.value())
        case 2:
            return EvictMerkle(number(4), number(4))
        case 3:
            return AddBlum(number(4), number(8), number(2), reader.key(), reader.value())
        case 4:
            return EvictBlum(number(4), number(8))
        case 5:
            return EvictBlumMerkle(number(4), number(4), number(8))
        case 6:
            return NextEpoch()
        case 7:
            return VerifyEpoch()
        case 8:
            return Tick()
        case 9:
            return Request(reader.take(number(4)))
        case 10:
            return Run(tuple(number(4) for _ in range(number(1))))
        case 11:
            return RunAbsent(number(4))
        case 12:
            return Resume(reader.take(_RESUME_BYTES))
        case 13:
            return ReplayMark(reader.take(_TAG_BYTES))
        case 14:
            return Replay(number(1), reader.take(number(4)))
        case 15:
            return EndReplay(reader.take(_TAG_BYTES))
        case 16:
            return CarryOver(number(8), number(2), reader.key(), reader.value())
        case kind:
            raise ValueError(f"entry kind {kind}")


def encode(entries: Iterable[Entry]) -> bytes:
    return b"".join(map(_encode_entry, entries))


def _encode_entry(entry: Entry) -> bytes:
    match entry:
        case AddMerkle(slot, parent, key, value):
            return struct.pack("<BII", 1, slot, parent) + _KEY.pack(key.depth, key.bits) + value
        case EvictMerkle(slot, parent):
            return struct.pack("<BII", 2, slot, parent)
        case AddBlum(slot, ts, thread, key, value):
            return struct.pack("<BIQH", 3, slot, ts, thread) + _KEY.pack(key.depth, key.bits) + value
        case EvictBlum(slot, ts):
            return struct.pack("<BIQ", 4, slot, ts)
        case EvictBlumMerkle(slot, parent, ts):
            return struct.pack("<BIIQ", 5, slot, parent, ts)
        case NextEpoch():
            return b"\x06"
        case VerifyEpoch():
            return b"\x07"
        case Tick():
            return b"\x08"
        case Request(request):
            return struct.pack("<BI", 9, len(request)) + request
        case Run(slots):
            return struct.pack(f"<BB{len(slots)}I", 10, len(slots), *slots)
        case RunAbsent(parent):
            return struct.pack("<BI", 11, parent)
        case Resume(resume):
            return b"\x0c" + resume
        case ReplayMark(incarnation):
            return b"\x0d" + incarnation
        case Replay(outcome, request):
            return struct.pack("<BBI", 14, outcome, len(request)) + request
        case EndReplay(tag):
            return b"\x0f" + tag
        case CarryOver(ts, thread, key, value):
            return struct.pack("<BQH", 16, ts, thread) + _KEY.pack(key.depth, key.bits) + value


def decode_outputs(outputs: bytes) -> list[Output]:
    """The outputs of one log message. Raises ValueError."""
    reader, found = _Reader(outputs), []
    while reader.more:
        kind = reader.number(1)
        if kind in _COUNTED:
            content = reader.take(reader.number(4))
        elif kind == FAILED:
            content = reader.take(_VIOLATION_BYTES)
        elif kind in _FIXED_BYTES:
            content = reader.take(_FIXED_BYTES[kind])
        else:
            raise ValueError(f"output kind {kind}")
        found.append(Output(kind, content))
    return found


def encode_outputs(outputs: Iterable[Output]) -> bytes:
    return b"".join(
        bytes((output.kind,))
        + (len(output.content).to_bytes(4, "little") if output.kind in _COUNTED else b"")
        + output.content
        for output in outputs
    )
