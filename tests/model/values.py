"""Values of records: commitments in leaves, sides in internal nodes.

The hash of a value is the value itself, so nothing collides. In the bytes of a log a hash has a *name*, 32 bytes long.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from blake3 import blake3

from . import keys
from .keys import Key

MERKLE_DOMAIN = b"zetakv/1 merkle".ljust(32, b"\0")


class _Named:
    def encode(self) -> bytes:
        raise NotImplementedError

    @cached_property
    def name(self) -> bytes:
        return blake3(self.encode(), key=MERKLE_DOMAIN).digest()


@dataclass(frozen=True)
class Null(_Named):
    """No value: never written, or deleted."""

    def encode(self) -> bytes:
        return b"\x00"


@dataclass(frozen=True)
class Inline(_Named):
    """A value of at most 32 bytes."""

    value: bytes

    def encode(self) -> bytes:
        return bytes((1, len(self.value))) + self.value


@dataclass(frozen=True)
class Digest(_Named):
    """Length and BLAKE3-256 of a longer value, which the monitor never sees."""

    length: int
    hash: bytes

    def encode(self) -> bytes:
        return b"\x02" + self.length.to_bytes(4, "little") + self.hash


Commitment = Null | Inline | Digest


@dataclass(frozen=True)
class Unknown:
    """A name that the host made up: no value has it as its hash, no MAC is it."""

    name: bytes


@dataclass(frozen=True)
class Child:
    """What an internal node knows of the nearest record below it on one side."""

    key: Key
    hash: Value | Unknown | None
    """Of its value when it was last evicted to Merkle; NO_HASH before; None: it was evicted to Blum."""

    def encode(self) -> bytes:
        if self.hash is None:
            return b"\x02" + keys.encode(self.key)
        return b"\x01" + keys.encode(self.key) + self.hash.name


NO_HASH = Unknown(bytes(32))


@dataclass(frozen=True)
class Node(_Named):
    """The value of an internal node."""

    sides: tuple[Child | None, Child | None] = (None, None)

    def with_side(self, direction: int, child: Child) -> Node:
        return Node((self.sides[0], child) if direction else (child, self.sides[1]))

    def encode(self) -> bytes:
        return b"\x03" + b"".join(side.encode() if side else b"\x00" for side in self.sides)


Value = Commitment | Node


def is_leaf(value: Value) -> bool:
    return not isinstance(value, Node)


def is_initial(value: Value) -> bool:
    """Whether nothing was ever written to it."""
    return value in (Null(), Node())
