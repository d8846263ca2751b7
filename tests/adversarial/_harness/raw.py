"""Clients that do not speak the protocol: bytes on a socket, and what comes back."""

from __future__ import annotations

import asyncio

from support.frames import Address, Frame, open_stream, read_frame


async def answers_to(address: Address, data: bytes, *, frames_max: int = 8, seconds: float = 5.0) -> list[Frame]:
    """Send bytes after the greeting, say no more, and return what the server says until it closes or falls silent."""
    reader, writer = await open_stream(address)
    try:
        greeting = await read_frame(reader)
        assert greeting is not None
        writer.write(data)
        writer.write_eof()
        answers: list[Frame] = []
        async with asyncio.timeout(seconds):
            while len(answers) < frames_max and (frame := await read_frame(reader)) is not None:
                answers.append(frame)
        return answers
    finally:
        writer.close()
        await writer.wait_closed()
