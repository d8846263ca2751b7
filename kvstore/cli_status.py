"""Asking a server for its account of itself (`zetakv status`).

This needs no session and no key, on purpose: a server whose monitor has failed admits no one any more, and that is when
its operator asks. Nothing in the answer is verified.
"""

import asyncio
import json
from typing import Final

from kvstore_client import ConnectionLostError, ProtocolError

from kvstore import limits
from kvstore.framing import BadFrameError, FrameParser, pack_frame
from kvstore.messages import Client, Json, Server

_ANSWER_SECONDS: Final = 10.0
_READ_BYTES: Final = 65_536


async def fetch_status(server: str) -> Json:
    """The status of the server at `host:port`. Raises ConnectionLostError, ProtocolError, ValueError, OSError."""
    host, _, port = server.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{server!r} is not an address: expected host:port, as in 127.0.0.1:7717")
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            try:
                writer.write(pack_frame(Client.STATUS))
                return await _answer(reader, server)
            finally:
                writer.close()
    except TimeoutError as error:
        raise ConnectionLostError(f"{server}: no status within {_ANSWER_SECONDS:g} s") from error


async def _answer(reader: asyncio.StreamReader, server: str) -> Json:
    """What the status frame holds; the greeting, and a violation that is told to everybody, are passed over."""
    parser = FrameParser(limits.FRAME_BYTES_MAX)
    try:
        while data := await reader.read(_READ_BYTES):
            for kind, body in parser.feed(data):
                if kind == Server.STATUS:
                    status = json.loads(body)
                    if not isinstance(status, dict):
                        raise ValueError("not an object")
                    return status
    except (BadFrameError, ValueError) as error:
        raise ProtocolError(f"{server}: not a ZetaKV server, or a garbled status ({error})") from error
    raise ConnectionLostError(f"{server}: the connection was closed before the status came")
