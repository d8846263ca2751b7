"""Operations and value commitments: what a client asks of one key, and how results read (protocol sections 2, 3).

An `Operation` is encoded once, when it is called. It knows the call that it belongs to, and whoever settles it tells
that call: `deliver` or `fail`, exactly one of them takes effect.
"""

from __future__ import annotations

from typing import Protocol

from blake3 import blake3

from kvstore_client._codec import I64
from kvstore_client._errors import KVStoreError
from kvstore_client._receipts import Answer

INLINE_BYTES_MAX = 32
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1

GET, PUT, DELETE, INSERT, COMPARE_AND_SET, INCREMENT = range(1, 7)

OK, VALUE, MISMATCH, EXISTS, FORBIDDEN, NOT_A_NUMBER, OVERFLOW = range(7)

OPERATION_NAMES = {
    GET: "get",
    PUT: "put",
    DELETE: "delete",
    INSERT: "insert",
    COMPARE_AND_SET: "compare_and_set",
    INCREMENT: "increment",
}

STATUSES = {
    GET: frozenset({VALUE, FORBIDDEN}),
    PUT: frozenset({OK, FORBIDDEN}),
    DELETE: frozenset({OK, FORBIDDEN}),
    INSERT: frozenset({OK, EXISTS, FORBIDDEN}),
    COMPARE_AND_SET: frozenset({OK, MISMATCH, FORBIDDEN}),
    INCREMENT: frozenset({VALUE, FORBIDDEN, NOT_A_NUMBER, OVERFLOW}),
}
"""The results that an operation can have."""


class Call(Protocol):
    """Who waits for an operation. `index` is the operation's place in the call."""

    @property
    def settled(self) -> bool: ...
    def deliver(self, index: int, answer: Answer) -> None: ...
    def fail(self, index: int, error: KVStoreError) -> None: ...


class Operation:
    """One operation, encoded: `encoded` goes into the request, `payload` (key, and a long new value) beside it.

    What only reads needs no key there: its hash is in the request.
    """

    __slots__ = ("alone", "call", "code", "encoded", "index", "key", "key_hash", "payload")

    def __init__(
        self, code: int, key: bytes, call: Call, index: int, arguments: bytes = b"", long_value: bytes = b""
    ) -> None:
        self.code = code
        self.key = key
        self.call = call
        self.index = index
        self.key_hash: bytes = blake3(key).digest()
        self.encoded = code.to_bytes(1, "little") + self.key_hash + arguments
        self.payload = b"" if code == GET else len(key).to_bytes(2, "little") + key + long_value
        # Set when its value did not fit beside the others in a receipt: the next request has this operation only.
        self.alone = False


def commitment(value: bytes | None) -> bytes:
    """The canonical commitment of a value: null, inline up to 32 bytes, else length and BLAKE3-256."""
    if value is None:
        return b"\x00"
    length = len(value)
    if length <= INLINE_BYTES_MAX:
        return bytes((1, length)) + value
    return b"\x02" + length.to_bytes(4, "little") + blake3(value).digest()


def get(key: bytes, call: Call, index: int = 0) -> Operation:
    return Operation(GET, key, call, index)


def put(key: bytes, value: bytes, call: Call, index: int = 0) -> Operation:
    return Operation(PUT, key, call, index, commitment(value), _long(value))


def delete(key: bytes, call: Call, index: int = 0) -> Operation:
    return Operation(DELETE, key, call, index)


def insert(key: bytes, value: bytes, call: Call, index: int = 0) -> Operation:
    return Operation(INSERT, key, call, index, commitment(value), _long(value))


def compare_and_set(key: bytes, expected: bytes | None, new: bytes | None, call: Call, index: int = 0) -> Operation:
    long_value = b"" if new is None else _long(new)
    return Operation(COMPARE_AND_SET, key, call, index, commitment(expected) + commitment(new), long_value)


def increment(key: bytes, delta: int, call: Call, index: int = 0) -> Operation:
    return Operation(INCREMENT, key, call, index, I64.pack(delta))


def _long(value: bytes) -> bytes:
    """What of a new value travels in the payload: nothing if the commitment holds it already."""
    return value if len(value) > INLINE_BYTES_MAX else b""
