"""Frames as every stream of the protocol has them (`length: u32, type: u8, body`), and a man in the middle for them.

`FrameProxy` passes every frame of every connection through one hook for each direction. A hook gets a frame and returns
the frames to send in its place: the same one, none (it was dropped, or the hook kept it), changed ones, or more.
What a hook raises ends the proxy's connection and is raised again by `close`, so that a test cannot miss it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

Address = Path | tuple[str, int]


class Frame(NamedTuple):
    kind: int
    body: bytes

    def packed(self) -> bytes:
        return (1 + len(self.body)).to_bytes(4, "little") + bytes((self.kind,)) + self.body


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame, or None at the end of the stream."""
    try:
        length = int.from_bytes(await reader.readexactly(4), "little")
        content = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return Frame(content[0], content[1:])


async def open_stream(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(address, Path):
        return await asyncio.open_unix_connection(str(address))
    return await asyncio.open_connection(*address)


class Link:
    """One proxied connection: *down* is who connected to the proxy, *up* is whom the proxy connected to."""

    def __init__(self, down: asyncio.StreamWriter, up: asyncio.StreamWriter) -> None:
        self._down = down
        self._up = up

    def send_up(self, *frames: Frame) -> None:
        self._send(self._up, frames)

    def send_down(self, *frames: Frame) -> None:
        self._send(self._down, frames)

    def cut(self) -> None:
        """End both connections without another word."""
        for writer in (self._down, self._up):
            writer.transport.abort()

    @staticmethod
    def _send(writer: asyncio.StreamWriter, frames: Sequence[Frame]) -> None:
        if not writer.is_closing():
            writer.writelines([frame.packed() for frame in frames])


Hook = Callable[[Link, Frame], Sequence[Frame]]


def passed_on(_: Link, frame: Frame) -> Sequence[Frame]:
    """The hook that changes nothing."""
    return (frame,)


class FrameProxy:
    """Connects each connection on to `upstream`, with `to_up` and `to_down` between; all may be exchanged at any time.

    `keeps_down`: when upstream ends a connection, the one below is held open, as if nothing had happened.
    """

    def __init__(self, upstream: Address) -> None:
        self.to_up: Hook = passed_on
        self.to_down: Hook = passed_on
        self.links: list[Link] = []
        self.port = 0
        self.keeps_down = False
        self.upstream = upstream
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []

    async def listen(self, path: Path | None = None) -> None:
        """Listen on a Unix socket, or on a free `port` of the loopback address."""
        if path is not None:
            self._server = await asyncio.start_unix_server(self._accept, str(path))
            return
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End everything; raises what a hook raised."""
        if self._server is not None:
            self._server.close()
        for link in self.links:
            link.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._errors:
            raise self._errors[0]

    async def _accept(self, down_reader: asyncio.StreamReader, down: asyncio.StreamWriter) -> None:
        try:
            up_reader, up = await open_stream(self.upstream)
        except OSError:
            down.transport.abort()
            return
        link = Link(down, up)
        self.links.append(link)
        for pump in (self._pump(link, down_reader, up, upward=True), self._pump(link, up_reader, down, upward=False)):
            task = asyncio.ensure_future(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool
    ) -> None:
        try:
            while (frame := await read_frame(reader)) is not None:
                for sent in (self.to_up if upward else self.to_down)(link, frame):
                    if not writer.is_closing():
                        writer.write(sent.packed())
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
        except Exception as error:
            self._errors.append(error)
            link.cut()
        finally:
            if upward or not self.keeps_down:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
