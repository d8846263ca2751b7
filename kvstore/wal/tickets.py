"""Tickets of sessions: durable before the client has its hello, and offered to the next incarnation.

With them the monitor can answer for a session that no sealed state knows yet. A session that is opened while epoch e is
the open one is in the sealed state of e + 1 at the latest; then its ticket is not needed any more. An epoch that has
many of them is to be cut, though nothing else happens in it: the file stays small, and the monitor takes only so many.
"""

from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kvstore import limits
from kvstore.wal import files
from kvstore.wal.writer import LogWriter

_NO_THREAD: Final = 65_535


class Tickets:
    def __init__(self, directory: Path, threads: int, open_epoch: int, on_trouble: Callable[[str], None]) -> None:
        """`on_trouble(text)`: the disk takes none, and why; empty: it does again. Raises DamagedLogError, OSError."""
        found = files.segments(directory, files.TICKETS)
        outdated = [segment for segment in found if segment.epoch < open_epoch]
        files.remove(directory, outdated)
        kept = found[len(outdated) :]
        self.former = [ticket for segment in kept for ticket in segment.records()]
        """Those of earlier incarnations, in order."""
        for segment in kept:
            segment.epoch = open_epoch
        self._counts = Counter({open_epoch: len(self.former)})
        """Of those that are needed, by the epoch that ends that."""
        self._on_trouble = on_trouble
        self._trouble = ""
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._writer = LogWriter(
            directory,
            files.TICKETS,
            thread=_NO_THREAD,
            threads=threads,
            on_durable=self._is_durable,
            on_trouble=self._is_troubled,
            segments=kept,
        )

    @property
    def are_too_many(self) -> bool:
        """Whether no session can be opened before the next certificates."""
        return self._counts.total() >= limits.TICKETS_MAX

    @property
    def refusal(self) -> str:
        """Why no session can be opened now; empty if it can."""
        if self.are_too_many:
            return f"{limits.TICKETS_MAX} sessions were opened since the last certificates: wait for the next"
        return self._trouble

    def keep(self, open_epoch: int, ticket: bytes, then: Callable[[], None]) -> bool:
        """`then` is called when the ticket is durable. Returns whether the open epoch has enough of them."""
        self._waiting.append((self._writer.append(open_epoch + 1, ticket), then))
        self._counts[open_epoch + 1] += 1
        return self._counts[open_epoch + 1] >= limits.TICKETS_PER_EPOCH

    def certified(self, epoch: int) -> None:
        self._counts = Counter({kept: count for kept, count in self._counts.items() if kept > epoch})
        self._writer.certified(epoch)

    def close(self) -> None:
        self._writer.close()

    def _is_troubled(self, text: str | None) -> None:
        self._trouble = text or ""
        self._on_trouble(self._trouble)

    def _is_durable(self, number: int) -> None:
        while self._waiting and self._waiting[0][0] <= number:
            self._waiting.popleft()[1]()
