"""The requests and resumes that a thread has admitted and not finished, in their order."""

from __future__ import annotations

from dataclasses import dataclass

from . import operations
from .book import Book
from .operations import Operation
from .requests import Request, Resume
from .wire import Reader

QUEUED_MAX = 4096


@dataclass
class QueuedRequest:
    request: Request
    role: int
    receipt_key: bytes
    done: int = 0
    """Operations that have run."""


@dataclass
class QueuedResume:
    resume: Resume
    last_sequence: int
    """The last that was admitted before it."""
    receipt_key: bytes


class Queue:
    def __init__(self, bytes_max: int, book: Book) -> None:
        self.bytes_max = bytes_max
        self.book = book
        self.waiting: list[QueuedRequest | QueuedResume] = []
        self.operations = b""
        """Of all waiting requests, those that have not run."""

    def has_room(self, operations_bytes: int) -> bool:
        return len(self.waiting) < QUEUED_MAX and len(self.operations) + operations_bytes <= self.bytes_max

    def push(self, queued: QueuedRequest) -> None:
        self.waiting.append(queued)
        self.operations += queued.request.operations

    @property
    def head(self) -> QueuedRequest | None:
        first = self.waiting[0] if self.waiting else None
        return first if isinstance(first, QueuedRequest) else None

    @property
    def in_progress(self) -> bool:
        """Whether some operations of the request at the head have run, and not all."""
        return self.head is not None and self.head.done > 0

    def next_operation(self) -> tuple[Operation, bytes]:
        """The next operation, and what comes after it. Raises Malformed."""
        reader = Reader(self.operations, self.book)
        return operations.decode(reader), reader.rest

    def finish_operation(self, rest: bytes) -> QueuedRequest | None:
        """The next operation has run. The request, taken out, if that was its last."""
        self.operations = rest
        head = self.head
        assert head is not None
        head.done += 1
        if head.done < head.request.count:
            return None
        del self.waiting[0]
        return head

    def pop_resume(self) -> QueuedResume | None:
        first = self.waiting[0] if self.waiting else None
        if not isinstance(first, QueuedResume):
            return None
        del self.waiting[0]
        return first

    def first_sequences(self) -> dict[int, int]:
        """For each session that has requests here, the first sequence that has not run."""
        first: dict[int, int] = {}
        for queued in self.waiting:
            if isinstance(queued, QueuedRequest):
                first.setdefault(queued.request.session, queued.request.sequence)
        return first
