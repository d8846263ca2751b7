"""What clients send and are answered, and its bytes (docs/protocol.md, section 3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from .book import Book
from .epochs import Moment
from .macs import MAC_BYTES, Mac
from .values import Unknown
from .wire import Reader, allowed

REQUEST_BYTES_MAX = 65_536
OPERATIONS_MAX = 512

UNKNOWN_SESSION, BAD_MAC, BAD_SEQUENCE, BAD_GENERATION, WRONG_THREAD = range(1, 6)
MALFORMED, AFTER_TS_AHEAD = 1, 2


@dataclass(frozen=True)
class Request:
    session: int
    generation: int
    thread: int
    count: int
    sequence: int
    after_ts: Moment
    operations: bytes
    covered: bytes
    mac: Mac | Unknown

    def after(self, ts: Moment) -> Request:
        return replace(self, after_ts=ts)


def split_request(data: bytes, book: Book) -> Request:
    """The parts of a request; its operations are not read."""
    allowed(len(data) <= REQUEST_BYTES_MAX)
    reader = Reader(data, book)
    number = reader.number
    head = number(8), number(4), number(2), number(2), number(8), reader.moment()
    allowed(len(reader.rest) >= MAC_BYTES)
    operations = reader.take(len(reader.rest) - MAC_BYTES)
    mac = book.mac_named(reader.rest)
    return Request(*head, operations, data[:-MAC_BYTES], mac)


@dataclass(frozen=True)
class Resume:
    session: int
    generation: int
    thread: int
    nonce: bytes
    covered: bytes
    mac: Mac | Unknown


def split_resume(data: bytes, book: Book) -> Resume:
    reader = Reader(data, book)
    session, generation, thread, zero = (reader.number(size) for size in (8, 4, 2, 2))
    allowed(zero == 0)
    nonce = reader.take(16)
    return Resume(session, generation, thread, nonce, data[:-MAC_BYTES], book.mac_named(reader.rest))


def receipt_head(request: Request, thread: int, count: int, ts: Moment, error: int) -> bytes:
    """All of a receipt before its results."""
    numbers = request.session, request.generation, thread, count, request.sequence
    return struct.pack("<QIHHQQB", *numbers, ts.epoch << 32 | ts.counter, error)
