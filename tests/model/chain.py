"""The chain over what a thread admits, and its replay after a crash (docs/protocol.md, "Write-ahead log").

A tag is a MAC over the tag before: as a MAC here is what it is computed from, a tag is the whole log.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import macs
from .book import Book
from .check import check, require
from .macs import Mac
from .values import Unknown

START, MARK, REQUEST = b"\0", b"\1", b"\2"


@dataclass(frozen=True)
class LogConfig:
    """What a thread with a write-ahead log starts from."""

    key: bytes
    threads: int
    instance: bytes
    incarnation: bytes
    sealed_by: bytes
    """The incarnation that made the sealed state; zeros if there is none."""
    tag: Mac | None
    """Of this thread in the sealed state, if that has one of as many threads."""
    latest: bytes | None
    """The incarnation whose mark must be in what is replayed; None if `tag` comes after it."""


class Chain:
    def __init__(self, config: LogConfig, thread: int, book: Book) -> None:
        self.config = config
        self.thread = thread
        self.book = book
        self.is_replaying = True
        self.latest = config.latest
        """The incarnation whose mark is still to come."""
        self.current = config.sealed_by
        """The one that admitted what comes now."""
        self.replayed_sessions: dict[int, tuple[bytes, int]] = {}
        """Incarnation and last sequence of each session that was replayed."""
        self.replayed_are_handed_over = False
        self.is_untold = False
        """Whether the tag has moved since it was told."""
        self.tag: Mac = config.tag or self._mac(
            START, config.instance, thread.to_bytes(2, "little") + config.threads.to_bytes(2, "little")
        )

    def _mac(self, kind: bytes, before: bytes | Mac, *fields: bytes) -> Mac:
        return self.book.mac(self.config.key, macs.LOG, *fields, before, kind)

    def _request(self, role: int, request: bytes) -> None:
        self.tag = self._mac(REQUEST, self.tag, request, bytes((role,)))

    def admitted(self, role: int, request: bytes) -> None:
        """`role`: 0 if it was refused."""
        self._request(role, request)
        self.is_untold = True

    def owns(self, key_hash: bytes) -> bool:
        """Whether a key is in the partitions of this thread."""
        return key_hash[0] * self.config.threads // 256 == self.thread

    def mark(self, incarnation: bytes) -> None:
        require(self.is_replaying, "not_replaying")
        self.current = incarnation
        if self.latest == incarnation:
            self.latest = None
        self.tag = self._mac(MARK, self.tag, incarnation)

    def replayed(self, role: int, request: bytes, session: int, sequence: int) -> None:
        require(self.is_replaying, "not_replaying")
        self.replayed_sessions[session] = (self.current, sequence)
        self._request(role, request)

    def end_replay(self, tag: Mac | Unknown) -> None:
        require(self.is_replaying, "not_replaying")
        nothing = not self.replayed_sessions
        check("replay_is_what_was_logged", nothing or self.tag == tag, "log_changed")
        check("replay_has_latest_mark", nothing or self.latest is None, "log_changed")
        self.is_replaying = False
        self.tag = self._mac(MARK, self.tag, self.config.incarnation)
        self.is_untold = True

    def hand_over(self) -> list[tuple[int, int]]:
        """The last sequences that were replayed, once."""
        if self.replayed_are_handed_over:
            return []
        self.replayed_are_handed_over = True
        return [(session, last) for session, (_, last) in sorted(self.replayed_sessions.items())]
