"""Tickets of sessions: durable before the client has its hello, and offered to the next incarnation.

With them the monitor can answer for a session that no sealed state knows yet. A session that is opened while epoch e is
the open one is in the sealed state of e + 1 at the latest; then its ticket is not needed any more.
"""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kvstore.wal import files
from kvstore.wal.writer import LogWriter

_NO_THREAD: Final = 65_535


class Tickets:
    def __init__(self, directory: Path, threads: int, open_epoch: int) -> None:
        """Raises DamagedLogError, OSError."""
        found = files.segments(directory, files.TICKETS)
        outdated = [segment for segment in found if segment.epoch < open_epoch]
        files.remove(directory, outdated)
        kept = found[len(outdated) :]
        self.former = [ticket for segment in kept for ticket in segment.records()]
        """Those of earlier incarnations, in order."""
        for segment in kept:
            segment.epoch = open_epoch
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._writer = LogWriter(
            directory,
            files.TICKETS,
            thread=_NO_THREAD,
            threads=threads,
            on_durable=self._is_durable,
            on_trouble=lambda _text: None,  # hellos wait; the log of requests says why
            segments=kept,
        )

    def keep(self, open_epoch: int, ticket: bytes, then: Callable[[], None]) -> None:
        """`then` is called when the ticket is durable."""
        self._waiting.append((self._writer.append(open_epoch + 1, ticket), then))

    def certified(self, epoch: int) -> None:
        self._writer.certified(epoch)

    def close(self) -> None:
        self._writer.close()

    def _is_durable(self, number: int) -> None:
        while self._waiting and self._waiting[0][0] <= number:
            self._waiting.popleft()[1]()
