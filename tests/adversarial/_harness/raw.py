"""Clients that do not speak the protocol: bytes on a socket, and what comes back."""

from __future__ import annotations

import asyncio

from support.frames import Address, Frame, open_stream, read_frame

_ANSWER_SECONDS = 5.0


async def answer_to(address: Address, data: bytes) -> Frame:
    """Send bytes after the greeting, and return the first frame that the server answers."""
    reader, writer = await open_stream(address)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            assert await read_frame(reader) is not None, "no greeting"
            writer.write(data)
            answer = await read_frame(reader)
        assert answer is not None, "closed without an answer"
        return answer
    finally:
        writer.close()
        await writer.wait_closed()


async def say_and_leave(address: Address, data: bytes) -> None:
    """Send bytes, in the middle of a frame or not, and close the connection without waiting for anything."""
    _, writer = await open_stream(address)
    writer.write(data)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
