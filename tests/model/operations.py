"""What clients' operations do to records (docs/protocol.md, section 3), and one on two keys, which only tests have."""

from __future__ import annotations

from dataclasses import dataclass

from .values import Commitment, Digest, Inline, Null
from .wire import Reader, allowed

READ, WRITE, ADMIN = 1, 2, 3
I64_MIN, I64_MAX = -(2**63), 2**63 - 1

GET, PUT, DELETE, INSERT, COMPARE_AND_SET, INCREMENT = range(1, 7)
EXCHANGE = 100
"""Exchanges two records: stands for operations on several keys, which the verifier can do, and the protocol not yet."""

OK, VALUE, MISMATCH, EXISTS, FORBIDDEN, NOT_A_NUMBER, OVERFLOW = range(7)


@dataclass(frozen=True)
class Operation:
    code: int
    key_hashes: tuple[bytes, ...]
    commitments: tuple[Commitment, ...] = ()
    delta: int = 0


@dataclass(frozen=True)
class Result:
    status: int
    value: Commitment | None = None

    @property
    def succeeded(self) -> bool:
        return self.status in (OK, VALUE)

    def encode(self) -> bytes:
        return bytes((self.status,)) + (self.value.encode() if self.value is not None else b"")


def decode(reader: Reader) -> Operation:
    code = reader.number(1)
    if code == EXCHANGE:
        return Operation(code, (reader.take(32), reader.take(32)))
    key = (reader.take(32),)
    match code:
        case 1 | 3:
            return Operation(code, key)
        case 2 | 4:
            new = reader.commitment()
            allowed(new != Null())
            return Operation(code, key, (new,))
        case 5:
            return Operation(code, key, (reader.commitment(), reader.commitment()))
        case _:
            allowed(code == INCREMENT)
            return Operation(code, key, delta=reader.signed(8))


def execute(operation: Operation, role: int, values: list[Commitment]) -> tuple[Result, list[Commitment]]:
    """The result, and what the records hold afterwards."""
    if role < (READ if operation.code == GET else WRITE):
        return Result(FORBIDDEN), values
    if operation.code == EXCHANGE:
        return Result(OK), values[::-1]
    [value] = values
    result, new = _execute_on_one(operation, value)
    return result, [new]


def _execute_on_one(operation: Operation, value: Commitment) -> tuple[Result, Commitment]:
    match operation.code, operation.commitments:
        case 1, _:
            return Result(VALUE, value), value
        case 2, (new,):
            return Result(OK), new
        case 3, _:
            return Result(OK), Null()
        case 4, (new,):
            return (Result(OK), new) if value == Null() else (Result(EXISTS), value)
        case 5, (expected, new):
            return (Result(OK), new) if value == expected else (Result(MISMATCH, value), value)
        case _:
            return _increment(value, operation.delta)


def _increment(value: Commitment, delta: int) -> tuple[Result, Commitment]:
    if isinstance(value, Digest) or (isinstance(value, Inline) and len(value.value) != 8):
        return Result(NOT_A_NUMBER), value
    old = int.from_bytes(value.value, "little", signed=True) if isinstance(value, Inline) else 0
    if not I64_MIN <= old + delta <= I64_MAX:
        return Result(OVERFLOW), value
    new = Inline((old + delta).to_bytes(8, "little", signed=True))
    return Result(VALUE, new), new
