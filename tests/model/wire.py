"""Reading entries, keys and values from bytes that somebody untrusted wrote (docs/protocol.md, sections 2 and 7)."""

from __future__ import annotations

from . import entries
from .book import Book
from .epochs import Moment
from .keys import Key
from .macs import MAC_BYTES
from .values import Child, Commitment, Digest, Inline, Node, Null, Value

LEAF_DEPTH_MAX = 256
INLINE_BYTES_MAX = 32
KEYS_PER_OPERATION_MAX = 8
RESUME_BYTES = 48
INCARNATION_BYTES = 16
ROLE_MAX = 3


class Malformed(Exception):  # noqa: N818  a host's fault, not the model's error
    """The bytes are not what the protocol allows at this place."""


def allowed(condition: bool) -> None:
    if not condition:
        raise Malformed


class Reader:
    def __init__(self, data: bytes, book: Book) -> None:
        self.data = data
        self.book = book
        self.at = 0

    @property
    def rest(self) -> bytes:
        return self.data[self.at :]

    @property
    def is_at_end(self) -> bool:
        return self.at == len(self.data)

    def take(self, count: int) -> bytes:
        allowed(self.at + count <= len(self.data))
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def signed(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little", signed=True)

    def moment(self) -> Moment:
        number = self.number(8)
        return Moment(number >> 32, number & 0xFFFFFFFF)

    def key(self) -> Key:
        depth = self.number(2)
        path = bin(int.from_bytes(b"\1" + self.take(32), "big"))[3:]
        allowed(depth <= LEAF_DEPTH_MAX and "1" not in path[depth:])
        return path[:depth]

    def commitment(self) -> Commitment:
        return self._commitment_after(self.number(1))

    def _commitment_after(self, tag: int) -> Commitment:
        if tag == 0:
            return Null()
        if tag == 1:
            length = self.number(1)
            allowed(length <= INLINE_BYTES_MAX)
            return Inline(self.take(length))
        allowed(tag == 2)
        length = self.number(4)
        allowed(length > INLINE_BYTES_MAX)
        return Digest(length, self.take(32))

    def _side(self) -> Child | None:
        tag = self.number(1)
        if tag == 0:
            return None
        allowed(tag in (1, 2))
        key = self.key()
        return Child(key, self.book.hash_named(self.take(32)) if tag == 1 else None)

    def value(self) -> Value:
        tag = self.number(1)
        return Node((self._side(), self._side())) if tag == 3 else self._commitment_after(tag)

    def entry(self) -> entries.Entry:
        number = self.number
        match number(1):
            case 1:
                return entries.AddMerkle(number(4), number(4), self.key(), self.value())
            case 2:
                return entries.EvictMerkle(number(4), number(4))
            case 3:
                return entries.AddBlum(number(4), self.moment(), number(2), self.key(), self.value())
            case 4:
                return entries.EvictBlum(number(4), self.moment())
            case 5:
                return entries.EvictBlumMerkle(number(4), number(4), self.moment())
            case 6:
                return entries.NextEpoch()
            case 7:
                return entries.VerifyEpoch()
            case 8:
                return entries.Tick()
            case 9:
                return entries.Request(self.take(number(4)))
            case 10:
                count = number(1)
                allowed(1 <= count <= KEYS_PER_OPERATION_MAX)
                return entries.Run(tuple(number(4) for _ in range(count)))
            case 11:
                return entries.RunAbsent(number(4))
            case 12:
                return entries.Resume(self.take(RESUME_BYTES))
            case 13:
                return entries.ReplayMark(self.take(INCARNATION_BYTES))
            case 14:
                role = number(1)
                allowed(role <= ROLE_MAX)
                return entries.Replay(role, self.take(number(4)))
            case 15:
                return entries.EndReplay(self.take(MAC_BYTES))
            case 16:
                return entries.CarryOver(self.moment(), number(2), self.key(), self.value())
            case _:
                raise Malformed
