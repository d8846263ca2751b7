"""Frames of `length: u32, type: u8, body`: the framing of every byte stream of the host (protocol sections 6 and 8).

`FrameParser` is sans-IO: bytes in, whole frames out, never more memory than one frame of the allowed length and one
chunk of input. `FrameProtocol` is its thin asyncio shell. What a frame means is not known here.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator
from typing import Final, cast

HEADER_BYTES: Final = 5
_LENGTH: Final = struct.Struct("<I")

# Between the processes of one service a frame may be a whole checkpoint: the only bound is that its length is a u32.
INTERNAL_FRAME_BYTES_MAX: Final = 2**32 - 1


class BadFrameError(ValueError):
    """The peer sent bytes that cannot be a frame; nothing after them can be understood."""


class FrameTooLongError(BadFrameError):
    """The peer announced a frame longer than is allowed on this connection."""


def pack_frame(kind: int, *parts: bytes) -> bytes:
    """One frame of type `kind`, whose body is the parts one after the other."""
    length = 1 + sum(map(len, parts))
    return b"".join((_LENGTH.pack(length), bytes((kind,)), *parts))


class FrameParser:
    """Cuts a byte stream into (type, body). After an error it must not be fed again."""

    def __init__(self, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
        """May be changed between two frames."""
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that `data` completes. Frames before a bad one are given before BadFrameError is raised."""
        if not self._rest:
            return self._cut(data)
        self._rest += data
        return self._cut(self._rest)

    def _cut(self, source: bytes | bytearray) -> Iterator[tuple[int, bytes]]:
        at, end = 0, len(source)
        while end - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(source, at)
            if length == 0:
                raise BadFrameError("a frame of length 0 has no type")
            if length > self.frame_bytes_max:
                raise FrameTooLongError(f"a frame of {length} bytes, where at most {self.frame_bytes_max} are allowed")
            stop = at + _LENGTH.size + length
            if stop > end:
                break
            body = bytes(memoryview(source)[at + HEADER_BYTES : stop])  # one copy, also of a bytearray
            yield source[at + _LENGTH.size], body
            at = stop
        if source is self._rest:
            del self._rest[:at]
        else:
            self._rest += source[at:]


class FrameProtocol(asyncio.Protocol):
    """One connection between two processes of the host, or to the monitor.

    `on_frame` gets every frame, in order; `on_lost` is called once, with the reason if there is one. Bytes that are
    not a frame end the connection with the BadFrameError as the reason.
    """

    def __init__(
        self,
        on_frame: Callable[["FrameProtocol", int, bytes], None],
        on_lost: Callable[["FrameProtocol", Exception | None], None],
        frame_bytes_max: int = INTERNAL_FRAME_BYTES_MAX,
    ) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._parser = FrameParser(frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._broken: BadFrameError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._broken is not None:
            return
        try:
            for kind, body in self._parser.feed(data):
                self._on_frame(self, kind, body)
        except BadFrameError as error:
            self._broken = error
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost(self, self._broken or exc)

    def send(self, kind: int, *parts: bytes) -> None:
        """Queue one frame. On a lost connection this does nothing: `on_lost` has told."""
        if self._transport is not None:
            self._transport.write(pack_frame(kind, *parts))

    def hold(self, held: bool) -> None:
        """Stop, or go on, reading; to be called in turns."""
        if self._transport is not None:
            (self._transport.pause_reading if held else self._transport.resume_reading)()

    def close(self) -> None:
        """End the connection after what is queued has been sent."""
        if self._transport is not None:
            self._transport.close()
