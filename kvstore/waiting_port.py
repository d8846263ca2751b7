"""Answers clients itself while there are no workers for long, as when a monitor that runs apart cannot be reached.

Whoever asks for the status gets it; everything else is answered by "not now", and the connection is closed: a client
of the SDK comes back by itself. Nothing is queued, and no session lives here.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence

from kvstore import limits
from kvstore.client_port import ClientPort, Connection, greeting_frame
from kvstore.config import ServeConfig
from kvstore.framing import pack_frame
from kvstore.messages import Client, ErrorCode, GreetingFlag, Json, Server

logger = logging.getLogger(__name__)


class WaitingPort:
    """`open` and `close` in turns, any number of times; `close` also when it is not open."""

    def __init__(self, config: ServeConfig, status: Callable[[], Awaitable[Json]]) -> None:
        flags = (0 if config.verified else GreetingFlag.UNVERIFIED) | (GreetingFlag.OPEN if config.open else 0)
        greeting = greeting_frame(
            flags=flags,
            worker=0,
            workers=config.workers,
            key_bytes_max=config.key_bytes_max,
            value_bytes_max=config.value_bytes_max,
        )
        self._port = ClientPort(self, greeting, limits.WRITE_BUFFER_BYTES_MAX, limits.UNGREETED_FRAME_BYTES_MAX)
        self._status = status
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Take connections from listening sockets, which stay open for the workers to come."""
        logger.warning("there are no workers yet: clients are told to come back")
        self._spawn(self._listen(listeners))

    def close(self) -> None:
        """Leave the sockets to the workers; clients that are here come back to them."""
        for task in self._tasks:
            task.cancel()
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._port.close_connections()

    async def _listen(self, listeners: Sequence[socket.socket]) -> None:
        for listener in listeners:
            server = await asyncio.get_running_loop().create_server(
                self._port.protocol, sock=listener.dup(), backlog=limits.BACKLOG_MAX
            )
            self._servers.append(server)

    # --- ClientHandler ---

    def client_frame(self, connection: Connection, kind: int, body: bytes) -> None:
        if kind == Client.STATUS:
            connection.expect_answer(len(body))
            self._spawn(self._answer_status(connection.number))
        else:
            self._spawn(self._refuse(connection))

    def client_lost(self, connection: Connection) -> None:
        pass

    async def _answer_status(self, number: int) -> None:
        self._port.answer(number, pack_frame(Server.STATUS, json.dumps(await self._status()).encode()))

    async def _refuse(self, connection: Connection) -> None:
        status = await self._status()
        connection.refuse(ErrorCode.NOT_NOW, f"the service is restarting: {status['waits_for'] or 'it is starting'}")
        connection.close()

    def _spawn(self, step: Awaitable[None]) -> None:
        task = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
