"""The frames between client and server that attacks look into (protocol sections 3 and 6), and changes to them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from support.frames import Address, Frame, Hook, Link, open_stream, read_frame

HELLO, REQUEST, RESUME, CERTIFICATES, ADMIN, STATUS, KEYS = range(0x01, 0x08)
GREETING, HELLO_OK, RECEIPT, REJECTED, RESUMED, CERTIFICATE, VIOLATION, ADMIN_ANSWER = range(0x80, 0x88)
ERROR = 0x8F

_RECEIPT = struct.Struct("<QIHHQQB")
_REJECTED = struct.Struct("<QHQB")
_MAC_BYTES = 16


@dataclass(frozen=True)
class Receipt:
    """A receipt frame, taken apart. `values`: the payload."""

    session: int
    generation: int
    thread: int
    count: int
    sequence: int
    ts: int
    error: int
    results: bytes
    mac: bytes
    values: bytes

    @classmethod
    def of(cls, frame: Frame) -> Self:
        assert frame.kind == RECEIPT
        end = 4 + int.from_bytes(frame.body[:4], "little")
        receipt = frame.body[4:end]
        session, generation, thread, count, sequence, ts, error = _RECEIPT.unpack_from(receipt)
        return cls(
            session=session,
            generation=generation,
            thread=thread,
            count=count,
            sequence=sequence,
            ts=ts,
            error=error,
            results=receipt[_RECEIPT.size : -_MAC_BYTES],
            mac=receipt[-_MAC_BYTES:],
            values=frame.body[end:],
        )

    def frame(self) -> Frame:
        head = _RECEIPT.pack(self.session, self.generation, self.thread, self.count, self.sequence, self.ts, self.error)
        receipt = head + self.results + self.mac
        return Frame(RECEIPT, len(receipt).to_bytes(4, "little") + receipt + self.values)


def flipped(data: bytes, at: int) -> bytes:
    """`data` with the lowest bit of one byte flipped. `at` counts from the end if negative."""
    at %= len(data)
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def changing(kind: int, change: Callable[[Frame], Frame]) -> Hook:
    """A hook that changes every frame of one type."""
    return lambda _, frame: [change(frame) if frame.kind == kind else frame]


def dropping(kind: int) -> Hook:
    """A hook that drops every frame of one type."""
    return lambda _, frame: [] if frame.kind == kind else [frame]


def recording(kind: int, into: list[Frame]) -> Hook:
    """A hook that passes everything on, and keeps every frame of one type."""

    def record(_: Link, frame: Frame) -> Sequence[Frame]:
        if frame.kind == kind:
            into.append(frame)
        return (frame,)

    return record


def untouched(_: Link, frame: Frame) -> Sequence[Frame]:
    """The hook of an honest host."""
    return (frame,)


async def rejection(address: Address, frame: Frame) -> int:
    """Send a frame on a connection of our own, and return the reason for which it is rejected."""
    reader, writer = await open_stream(address)
    try:
        writer.write(frame.packed())
        while (answer := await read_frame(reader)) is not None:
            if answer.kind != GREETING:
                assert answer.kind == REJECTED, answer
                _session, _thread, _sequence, reason = _REJECTED.unpack(answer.body)
                return int(reason)
        raise AssertionError("the server closed the connection without an answer")
    finally:
        writer.close()
        await writer.wait_closed()
