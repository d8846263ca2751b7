"""Clients of the honest host: what they send, good and bad. Nothing of it can fail a verifier thread."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from random import Random

from . import macs, operations
from .book import Book
from .epochs import Moment
from .keys import Key
from .values import Commitment, Digest, Inline, Null

COMMITMENTS: list[Commitment] = [
    Null(),
    Inline(b""),
    Inline(b"a"),
    Inline((7).to_bytes(8, "little")),
    Inline((2**63 - 1).to_bytes(8, "little")),
    Inline(b"x" * 32),
    Digest(33, b"\xdd" * 32),
]


def key_hash(path: Key) -> bytes:
    """A key hash whose path begins so."""
    return int(path.ljust(256, "0"), 2).to_bytes(32, "big")


def operation(random: Random, paths: list[Key]) -> bytes:
    codes = [operations.GET, operations.PUT, operations.DELETE, operations.INSERT, operations.COMPARE_AND_SET]
    code = random.choice([*codes, operations.PUT, operations.INCREMENT, operations.EXCHANGE])
    path = random.choice(paths)
    encoded = bytes((code,)) + key_hash(path)
    match code:
        case operations.PUT | operations.INSERT:
            encoded += random.choice(COMMITMENTS[1:]).encode()
        case operations.COMPARE_AND_SET:
            encoded += random.choice(COMMITMENTS).encode() + random.choice(COMMITMENTS).encode()
        case operations.INCREMENT:
            encoded += random.choice([1, -1, 2**62]).to_bytes(8, "little", signed=True)
        case operations.EXCHANGE:
            others = [other for other in paths if other != path]
            if not others:
                return bytes((operations.GET,)) + key_hash(path)
            encoded += key_hash(random.choice(others))
    return encoded


@dataclass
class Client:
    """One session, as its client knows it. Generation and sequence are per thread."""

    session: int
    role: int
    book: Book
    request_key: bytes
    receipt_key: bytes
    generations: dict[int, int] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)

    def generation(self, thread: int) -> int:
        return self.generations.get(thread, 1)

    def request(self, thread: int, content: list[bytes], after_ts: Moment, changes: dict[str, int]) -> bytes:
        """The next request. `changes`: of the header's fields, for what is to be rejected or refused."""
        fields = {
            "session": self.session,
            "generation": self.generation(thread),
            "thread": thread,
            "count": len(content),
            "sequence": self.sequences.get(thread, 0) + 1,
            "after_ts": after_ts.epoch << 32 | after_ts.counter,
        } | changes
        covered = struct.pack("<QIHHQQ", *fields.values()) + b"".join(content)
        return covered + self.book.mac(self.request_key, macs.REQUEST, covered).name

    def resume(self, thread: int, generation: int, nonce: bytes) -> bytes:
        covered = struct.pack("<QIHH", self.session, generation, thread, 0) + nonce
        return covered + self.book.mac(self.request_key, macs.RESUME, covered).name
