"""Frames between client and server (protocol section 6): cutting the byte stream, and the small unauthenticated ones.

Nothing that is read here is trusted: it comes from the host. What must be true is checked elsewhere.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from kvstore_client._codec import U16, U32, Reader
from kvstore_client._errors import ProtocolError
from kvstore_client._messages import VERSION, is_thread_count

FRAME_BYTES_MAX = (16 << 20) + (64 << 10)
"""The largest value fits with its request."""

VALUE_BYTES_MAX = 16 << 20
KEY_BYTES_MAX = 65535


class FrameType(IntEnum):
    HELLO = 0x01
    REQUEST = 0x02
    RESUME = 0x03
    CERTIFICATES = 0x04
    ADMIN = 0x05
    STATUS = 0x06
    KEYS = 0x07
    GREETING = 0x80
    HELLO_OK = 0x81
    RECEIPT = 0x82
    REJECTED = 0x83
    RESUMED = 0x84
    CERTIFICATE = 0x85
    VIOLATION = 0x86
    ADMIN_ANSWER = 0x87
    STATUS_ANSWER = 0x88
    KEYS_ANSWER = 0x89
    CHECKPOINT = 0x8A
    ERROR = 0x8F


_HEADER = struct.Struct("<IB")


def encode_frame(kind: FrameType, body: bytes = b"") -> bytes:
    return _HEADER.pack(1 + len(body), kind) + body


def encode_request_frame(request: bytes, payload: list[bytes]) -> bytes:
    body = U32.pack(len(request)) + request + b"".join(payload)
    return encode_frame(FrameType.REQUEST, body)


class FrameParser:
    """Bytes in, whole frames out. Holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(type, body) of every frame that is complete now. Raises ProtocolError on a frame that is too long."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[:4], "little"):
                self._check_length(self._buffer)
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        frames: list[tuple[int, bytes]] = []
        position, end = 0, len(data)
        while end - position >= 5:
            length, kind = _HEADER.unpack_from(data, position)
            if not 1 <= length <= FRAME_BYTES_MAX:
                raise ProtocolError(f"the server sent a frame of {length} bytes")
            if end - position < 4 + length:
                break
            frames.append((kind, data[position + 5 : position + 4 + length]))
            position += 4 + length
        self._buffer += data[position:]
        return frames

    @staticmethod
    def _check_length(buffer: bytearray) -> None:
        length = int.from_bytes(buffer[:4], "little")
        if len(buffer) >= 4 and not 1 <= length <= FRAME_BYTES_MAX:
            raise ProtocolError(f"the server sent a frame of {length} bytes")


@dataclass(frozen=True, slots=True)
class Greeting:
    """How a server introduces itself, and its limits in bytes."""

    unverified: bool
    open: bool
    write_ahead_log: bool
    workers: int
    key_bytes_max: int
    value_bytes_max: int
    frame_bytes_max: int

    @classmethod
    def decode(cls, body: bytes) -> Greeting:
        reader = Reader(body, "greeting")
        version = reader.u16()
        if version != VERSION:
            raise ProtocolError(f"the server speaks version {version} of the protocol, this client version {VERSION}")
        flags, _worker, workers = reader.u16(), reader.u16(), reader.u16()
        key_max, value_max, frame_max = reader.u32(), reader.u32(), reader.u32()
        reader.end()
        if flags > 7 or not is_thread_count(workers):
            raise ProtocolError("greeting: a field out of range")
        if key_max > KEY_BYTES_MAX or value_max > VALUE_BYTES_MAX or frame_max > FRAME_BYTES_MAX:
            raise ProtocolError("greeting: limits beyond those of the protocol")
        return cls(bool(flags & 1), bool(flags & 2), bool(flags & 4), workers, key_max, value_max, frame_max)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A request or resume that the monitor did not take. Only the host says so."""

    session: int
    thread: int
    sequence: int
    reason: int

    @classmethod
    def decode(cls, body: bytes) -> Rejected:
        reader = Reader(body, "rejected")
        rejected = cls(reader.u64(), reader.u16(), reader.u64(), reader.u8())
        reader.end()
        return rejected


def decode_error(body: bytes) -> tuple[int, str]:
    reader = Reader(body, "error")
    return reader.u16(), reader.text()


def encode_certificates(from_epoch: int, at_most: int) -> bytes:
    return encode_frame(FrameType.CERTIFICATES, U32.pack(from_epoch) + U16.pack(at_most))


def encode_keys(after: bytes, at_most: int) -> bytes:
    return encode_frame(FrameType.KEYS, after + U32.pack(at_most))


def decode_keys(body: bytes) -> list[bytes]:
    reader = Reader(body, "keys")
    keys = [reader.take(reader.u16()) for _ in range(reader.u32())]
    reader.end()
    return keys


def decode_checkpoint(body: bytes) -> int:
    reader = Reader(body, "checkpoint")
    epoch = reader.u32()
    reader.end()
    return epoch
