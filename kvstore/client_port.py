"""The client side of a worker: connections, their bounds, and the way of every frame (protocol section 6).

What arrives is untrusted and bounded: bytes of a frame, unanswered frames and bytes of a connection, unanswered bytes
of all. Past a bound the connection is not read until answers have gone out; a client that does not read its answers is
dropped. Nothing that one client sends can raise here or reach another. What a frame means is for `ClientHandler`.
"""

import asyncio
import logging
import struct
from collections import deque
from typing import Final, Protocol, cast

from kvstore import limits
from kvstore.framing import HEADER_BYTES, BadFrameError, FrameParser, FrameTooLongError, pack_frame
from kvstore.messages import CLOSING_ERRORS, ERROR, ErrorCode, Server

logger = logging.getLogger(__name__)

_TYPE_AT: Final = HEADER_BYTES - 1
_ERROR: Final = Server.ERROR  # looked up once: before Python 3.12 that takes longer than the comparison
_GREETING: Final = struct.Struct("<HHHHIII")
_REJECTED: Final = struct.Struct("<QHQB")
_PROTOCOL_VERSION: Final = 1

REJECTED_WRONG_THREAD: Final = 5
"""Reason of a rejection (protocol section 3)."""


class ClientHandler(Protocol):
    """What a `ClientPort` passes on."""

    def client_frame(self, connection: "Connection", kind: int, body: bytes) -> None:
        """A frame arrived. Every frame counted by `expect_answer` gets exactly one `answer`."""

    def client_lost(self, connection: "Connection") -> None:
        """The client is gone; answers to it are dropped."""


def error_frame(code: ErrorCode, text: str) -> bytes:
    return pack_frame(Server.ERROR, ERROR.pack(code), text.encode())


def rejected_frame(session: int, thread: int, sequence: int, reason: int) -> bytes:
    """`reason`: protocol section 3."""
    return pack_frame(Server.REJECTED, _REJECTED.pack(session, thread, sequence, reason))


def greeting_frame(*, flags: int, worker: int, workers: int, key_bytes_max: int, value_bytes_max: int) -> bytes:
    return pack_frame(
        Server.GREETING,
        _GREETING.pack(
            _PROTOCOL_VERSION, flags, worker, workers, key_bytes_max, value_bytes_max, limits.FRAME_BYTES_MAX
        ),
    )


class Connection(asyncio.Protocol):
    """One client. `number` is its name within this worker, never used twice."""

    def __init__(self, port: "ClientPort", number: int) -> None:
        self.number = number
        self.greeted = False
        """Whether a session is on it: certificates are pushed to it, and long frames are read."""
        self.sessions: set[int] = set()
        """Sessions that live on this connection."""
        self._port = port
        self._parser = FrameParser(port.ungreeted_frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        # Sizes of the unanswered frames. Answers of different threads overtake each other, so one answer may take off
        # the size of another frame; the sum stays right.
        self._pending: deque[int] = deque()
        self._pending_bytes = 0
        self._paused = False
        self._closing = False
        self._input_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._port.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, body in self._parser.feed(data):
                if self._closing:
                    return
                self._port.handler.client_frame(self, kind, body)
        except FrameTooLongError as error:
            self.refuse(ErrorCode.TOO_LONG, str(error))
        except BadFrameError as error:
            self.refuse(ErrorCode.MALFORMED, str(error))
        self._pause_or_resume()

    def eof_received(self) -> bool:
        """A client that sends no more still gets its answers; then the connection ends."""
        self._input_ended = True
        return bool(self._pending)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closing = True
        self._port.lost(self)

    @property
    def is_open(self) -> bool:
        """Whether there is a client at the other end."""
        return self._transport is not None

    @property
    def is_done(self) -> bool:
        """Whether its client is gone, and nothing that it sent is worked on any more."""
        return self._transport is None and not self._pending

    def greet(self) -> None:
        """A hello or a resume on it was answered."""
        self.greeted = True
        self._parser.frame_bytes_max = limits.FRAME_BYTES_MAX

    def expect_answer(self, size: int) -> None:
        """The frame in hand, of `size` bytes, will be answered later."""
        self._pending.append(size)
        self._pending_bytes += size
        self._port.count(1, size)

    def answer(self, *frames: bytes) -> None:
        """Send the answers to as many frames that were counted by `expect_answer`: at once, if they are good ones."""
        for _ in frames:
            if self._pending:
                size = self._pending.popleft()
                self._pending_bytes -= size
                self._port.count(-1, -size)
        if len(frames) == 1 or any(frame[_TYPE_AT] == _ERROR for frame in frames):
            for frame in frames:
                self.send(frame)
        else:
            self.send(b"".join(frames))
        if self._input_ended and not self._pending:
            self.close()
        elif self._paused:
            self._pause_or_resume()

    def send(self, frame: bytes) -> None:
        """Send a whole frame, or several that are no errors, or none.

        Closes after an error that says so; drops a client that does not read.
        """
        if self._transport is None or self._closing or not frame:
            return
        self._transport.write(frame)
        if frame[_TYPE_AT] == _ERROR and ERROR.unpack_from(frame, HEADER_BYTES)[0] in CLOSING_ERRORS:
            self._closing = True
            self._transport.close()
        elif self._transport.get_write_buffer_size() > limits.WRITE_BUFFER_BYTES_MAX:
            peer = self._transport.get_extra_info("peername")
            logger.warning("the client at %s does not read its answers: dropped", peer)
            self._closing = True
            self._transport.abort()

    def refuse(self, code: ErrorCode, text: str) -> None:
        """Send an error that answers no counted frame."""
        self.send(error_frame(code, text))

    def close(self) -> None:
        """End the connection after what is queued has been sent."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def _pause_or_resume(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        share = 2 if self._paused else 1  # resume only at half, so as not to flap
        wait = (
            self._port.held
            or len(self._pending) > limits.PENDING_FRAMES_MAX // share
            or self._pending_bytes > limits.PENDING_BYTES_MAX // share
        )
        if wait and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        elif self._paused and not wait:
            self._paused = False
            self._transport.resume_reading()

    def released(self) -> None:
        """The port is not held any more."""
        if self._paused:
            self._pause_or_resume()


class ClientPort:
    """All connections of one worker."""

    def __init__(
        self,
        handler: ClientHandler,
        greeting: bytes,
        queued_bytes_max: int,
        ungreeted_frame_bytes_max: int = limits.FRAME_BYTES_MAX,
    ) -> None:
        """`queued_bytes_max`: unanswered bytes of all connections at which those that send more are no longer read.

        `ungreeted_frame_bytes_max`: until a session is on the connection.
        """
        self._queued_bytes_max = queued_bytes_max
        self.handler = handler
        self.ungreeted_frame_bytes_max = ungreeted_frame_bytes_max
        self._greeting = greeting
        self._connections: dict[int, Connection] = {}
        self._numbers = 0
        self._pending_frames = 0
        self._pending_bytes = 0
        self._nothing_pending = asyncio.Event()
        self._held_by_owner = False
        self._held_by_bytes = False

    @property
    def held(self) -> bool:
        """Whether nothing more is read from clients for now."""
        return self._held_by_owner or self._held_by_bytes

    async def quiet(self) -> None:
        """Wait until every frame that arrived is answered."""
        while self._pending_frames:
            self._nothing_pending.clear()
            await self._nothing_pending.wait()

    @property
    def connections(self) -> int:
        return len(self._connections)

    def protocol(self) -> Connection:
        """Protocol factory of the listening socket."""
        self._numbers += 1
        return Connection(self, self._numbers)

    def find(self, number: int) -> Connection | None:
        """The connection of this number, if its client is still there."""
        connection = self._connections.get(number)
        return connection if connection is not None and connection.is_open else None

    def answer(self, number: int, *frames: bytes) -> None:
        """Answer frames that were counted by `expect_answer`; to a client that is gone, only the count goes down."""
        connection = self._connections.get(number)
        if connection is not None:
            connection.answer(*frames)
            self._forget_if_done(connection)

    def broadcast(self, frame: bytes, *, greeted_only: bool) -> None:
        for connection in list(self._connections.values()):
            if connection.greeted or not greeted_only:
                connection.send(frame)

    def hold(self, held: bool) -> None:
        """Stop, or go on, reading from all clients."""
        self._held_by_owner = held
        self._release()

    def close_connections(self) -> None:
        for connection in list(self._connections.values()):
            connection.close()

    def opened(self, connection: Connection) -> None:
        self._connections[connection.number] = connection
        connection.send(self._greeting)
        if len(self._connections) > limits.CONNECTIONS_MAX:
            connection.refuse(ErrorCode.NOT_NOW, f"this worker has {limits.CONNECTIONS_MAX} connections already")
            connection.close()

    def lost(self, connection: Connection) -> None:
        """Its frames count until they are answered: a client cannot pile up work by leaving and coming back."""
        self._forget_if_done(connection)
        self.handler.client_lost(connection)

    def _forget_if_done(self, connection: Connection) -> None:
        if connection.is_done:
            self._connections.pop(connection.number, None)

    def count(self, frames: int, size: int) -> None:
        self._pending_frames += frames
        self._pending_bytes += size
        if not self._pending_frames:
            self._nothing_pending.set()
        if self._held_by_bytes:
            if self._pending_bytes < self._queued_bytes_max // 2:
                self._held_by_bytes = False
                self._release()
        elif self._pending_bytes > self._queued_bytes_max:
            self._held_by_bytes = True

    def _release(self) -> None:
        if not self.held:
            for connection in self._connections.values():
                connection.released()
