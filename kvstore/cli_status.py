"""`zetakv status`: the server's account of itself.

Nothing in it is proved, so no session is needed to ask for it: a server whose monitor has failed answers, too.
"""

import asyncio
import json
from typing import Final

from rich.console import Console
from rich.table import Table

from kvstore import limits
from kvstore.framing import BadFrameError, FrameParser, pack_frame
from kvstore.messages import ERROR, Client, Json, Server

_ANSWER_SECONDS: Final = 10.0
_READ_BYTES: Final = 64 * limits.KIB


class NoStatusError(Exception):
    """The server cannot be reached, or does not answer. The text says which server and why."""


async def ask_status(address: str) -> Json:
    """The status of the server at `host:port`. Raises NoStatusError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise NoStatusError(f"{address!r} is not an address: expected host:port, as in 127.0.0.1:7717")
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), port)
            try:
                writer.write(pack_frame(Client.STATUS))
                return await _answer(reader)
            finally:
                writer.close()
    except TimeoutError:
        raise NoStatusError(f"{address}: no answer within {_ANSWER_SECONDS:g} s") from None
    except (OSError, BadFrameError, ValueError) as error:
        raise NoStatusError(f"{address}: {error}") from error


def print_status(status: Json) -> None:
    """For people: one line for each fact, then one for each worker."""
    workers = status["workers"]
    facts = Table(show_header=False, box=None)
    facts.add_column()
    facts.add_column(overflow="fold")  # a fingerprint that is cut off is of no use
    for name, value in status.items():
        if name == "overrides":
            for override in value:
                facts.add_row("override", json.dumps(override))
        elif name != "workers":
            facts.add_row(name, value if isinstance(value, str) else json.dumps(value))
    names = list(dict.fromkeys(name for worker in workers for name in worker))
    counters = Table(*names, box=None)
    for worker in workers:
        counters.add_row(*(str(worker.get(name, "")) for name in names))
    console = Console()
    console.print(facts)
    console.print()
    console.print(counters)


async def _answer(reader: asyncio.StreamReader) -> Json:
    parser = FrameParser(limits.FRAME_BYTES_MAX)
    while data := await reader.read(_READ_BYTES):
        for kind, body in parser.feed(data):
            if kind == Server.STATUS:
                status: Json = json.loads(body)
                return status
            if kind == Server.ERROR:
                raise ValueError(body[ERROR.size :].decode(errors="replace"))
    raise ValueError("the server closed the connection")
