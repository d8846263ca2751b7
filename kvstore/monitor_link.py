"""A worker's log connection to its verifier thread (protocol section 8): one log out, its outputs back."""

import asyncio
import socket
import struct
from pathlib import Path
from typing import Final

from kvstore import limits
from kvstore.config import parse_address
from kvstore.framing import FrameProtocol
from kvstore.messages import Monitor

PROTOCOL_VERSION: Final = 1

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
    """One exchange at a time."""

    def __init__(self) -> None:
        self._protocol = FrameProtocol(self._received, self._lost, limits.MONITOR_MESSAGE_BYTES_MAX)
        self._outputs: asyncio.Future[bytes] | None = None
        self._gone: str | None = None

    async def connect(self, address: str, thread: int, incarnation: bytes) -> None:
        await connect_monitor(address, self._protocol)
        self._protocol.send(Monitor.LOG_OPEN, _LOG_OPEN.pack(PROTOCOL_VERSION, thread, incarnation))

    def exchange(self, log: bytes) -> asyncio.Future[bytes]:
        """Send whole entries; what they come to is their outputs, or MonitorLostError."""
        assert self._outputs is None, "one exchange at a time"
        self._outputs = outputs = asyncio.get_running_loop().create_future()
        if self._gone is None:
            self._protocol.send(Monitor.LOG, log)
        else:
            self._fail(self._gone)
        return outputs

    def _received(self, _: FrameProtocol, kind: int, body: bytes) -> None:
        if kind != Monitor.OUTPUTS or self._outputs is None:
            self._lost(_, MonitorLostError(f"message of type {kind:#04x} out of turn"))
            self._protocol.close()
        else:
            outputs, self._outputs = self._outputs, None
            if not outputs.done():
                outputs.set_result(body)

    def _lost(self, _: FrameProtocol, error: Exception | None) -> None:
        if self._gone is None:
            self._gone = "the log connection to the monitor has ended" + ("" if error is None else f": {error}")
        self._fail(self._gone)

    def _fail(self, reason: str) -> None:
        outputs, self._outputs = self._outputs, None
        if outputs is not None and not outputs.done():
            outputs.set_exception(MonitorLostError(reason))
