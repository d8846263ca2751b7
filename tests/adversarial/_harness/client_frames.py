"""The frames between client and server that attacks look into (protocol sections 3 and 6), and changes to them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from support.frames import Address, Frame, open_stream, read_frame

HELLO, REQUEST, RESUME, CERTIFICATES, ADMIN, STATUS, KEYS = range(0x01, 0x08)
GREETING, HELLO_OK, RECEIPT, REJECTED, RESUMED, CERTIFICATE, VIOLATION, ADMIN_ANSWER = range(0x80, 0x88)
ERROR = 0x8F

_LENGTH = struct.Struct("<I")
_RECEIPT = struct.Struct("<QIHHQQB")
_REJECTED = struct.Struct("<QHQB")
_MAC_BYTES = 16
_EPOCH_AT_IN_CERTIFICATE = 36


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
        end = _LENGTH.size + _LENGTH.unpack_from(frame.body)[0]
        receipt = frame.body[_LENGTH.size : end]
        head = _RECEIPT.unpack_from(receipt)
        return cls(*head, receipt[_RECEIPT.size : -_MAC_BYTES], receipt[-_MAC_BYTES:], frame.body[end:])

    def frame(self) -> Frame:
        head = _RECEIPT.pack(
            self.session, self.generation, self.thread, self.count, self.sequence, self.ts, self.error
        )
        receipt = head + self.results + self.mac
        return Frame(RECEIPT, _LENGTH.pack(len(receipt)) + receipt + self.values)

    def but(self, **changed: object) -> Self:
        return replace(self, **changed)  # type: ignore[arg-type]


def flipped(data: bytes, at: int) -> bytes:
    """`data` with the lowest bit of one byte flipped. `at` counts from the end if negative."""
    at %= len(data)
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def epoch_of_certificate(frame: Frame) -> int:
    return _LENGTH.unpack_from(frame.body, _EPOCH_AT_IN_CERTIFICATE)[0]


def changing(kind: int, change: Callable[[Frame], Frame]) -> Callable[[object, Frame], list[Frame]]:
    """A hook that changes every frame of one type."""
    return lambda _, frame: [change(frame) if frame.kind == kind else frame]


def dropping(kind: int) -> Callable[[object, Frame], list[Frame]]:
    """A hook that drops every frame of one type."""
    return lambda _, frame: [] if frame.kind == kind else [frame]


async def rejection(address: Address, frame: Frame) -> int:
    """Send a frame on a connection of our own, and return the reason for which it is rejected."""
    reader, writer = await open_stream(address)
    try:
        writer.write(frame.packed())
        while (answer := await read_frame(reader)) is not None:
            if answer.kind != GREETING:
                assert answer.kind == REJECTED, answer
                return _REJECTED.unpack(answer.body)[3]
        raise AssertionError("the server closed the connection without an answer")
    finally:
        writer.close()
        await writer.wait_closed()
