"""A worker's log connection to its verifier thread (protocol section 8): logs out, and back the outputs of each."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kvstore import limits
from kvstore.config import parse_address
from kvstore.framing import FrameProtocol
from kvstore.messages import Monitor

PROTOCOL_VERSION: Final = 2

_LOG_OPEN: Final = struct.Struct("<HH16s")


class MonitorLostError(Exception):
    """The connection to the monitor has ended, or the monitor sent what is no answer."""


async def connect_monitor(address: str, protocol: FrameProtocol) -> None:
    """Connect to a monitor at `unix:PATH` or `tcp:HOST:PORT`. Raises MonitorLostError."""
    loop = asyncio.get_running_loop()
    target = parse_address(address)
    try:
        if isinstance(target, Path):
            await loop.create_unix_connection(lambda: protocol, str(target))
        else:
            transport, _ = await loop.create_connection(lambda: protocol, *target)
            _notice_loss(transport.get_extra_info("socket"))
    except OSError as error:
        raise MonitorLostError(f"no monitor can be reached at {address}: {error.strerror or error}") from error


def _notice_loss(connection: socket.socket) -> None:
    """Let the connection end by itself when the monitor's machine has vanished."""
    bound = limits.KEEPALIVE_IDLE_SECONDS + limits.KEEPALIVE_INTERVAL_SECONDS * limits.KEEPALIVE_PROBES
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.KEEPALIVE_IDLE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limits.KEEPALIVE_INTERVAL_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, limits.KEEPALIVE_PROBES)
    # What was sent and is not acknowledged asks no questions: the same bound on it.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * bound)


class LogLink:
    """Logs go out, and the outputs of each come back, in order."""

    def __init__(self) -> None:
        self.on_news: Callable[[], None] = lambda: None
        """Called when there is something to receive."""
        self._protocol = FrameProtocol(self._received, self._lost, limits.MONITOR_MESSAGE_BYTES_MAX)
        self._outputs: deque[bytes] = deque()
        self._gone: str | None = None
        self.in_flight = 0
        """Logs that are sent, and whose outputs are not received."""

    async def connect(self, address: str, thread: int, incarnation: bytes) -> None:
        await connect_monitor(address, self._protocol)
        self._protocol.send(Monitor.LOG_OPEN, _LOG_OPEN.pack(PROTOCOL_VERSION, thread, incarnation))

    def send(self, log: bytes) -> None:
        """Send whole entries."""
        self.in_flight += 1
        self._protocol.send(Monitor.LOG, log)

    def receive(self) -> bytes | None:
        """The outputs of the oldest log in flight, if they are here. Raises MonitorLostError if none will come."""
        if self._outputs:
            self.in_flight -= 1
            return self._outputs.popleft()
        if self._gone is not None and self.in_flight:
            raise MonitorLostError(self._gone)
        return None

    def _received(self, _: FrameProtocol, kind: int, body: bytes) -> None:
        if kind == Monitor.OUTPUTS and len(self._outputs) < self.in_flight:
            self._outputs.append(body)
            self.on_news()
        else:
            self._lost(_, MonitorLostError(f"message of type {kind:#04x} out of turn"))
            self._protocol.close()

    def _lost(self, _: FrameProtocol, error: Exception | None) -> None:
        if self._gone is None:
            self._gone = "the log connection to the monitor has ended" + ("" if error is None else f": {error}")
        self.on_news()
