"""What happens to a monitor, step by step: the script that both the model and the verifier follow.

Each step is also a line of text, so that a script can be kept, read and played again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Start:
    """Start, or crash and start again from the last epoch that held, with so many threads."""

    threads: int
    slots: int
    queue_bytes: int

    def line(self) -> str:
        return f"start {self.threads} {self.slots} {self.queue_bytes}"


@dataclass(frozen=True)
class KeepLog:
    """With a write-ahead log: all threads begin with its replay. Right after `Start`."""

    key: bytes
    instance: bytes
    incarnation: bytes
    sealed_by: bytes
    latest: bytes | None

    def line(self) -> str:
        latest = self.latest.hex() if self.latest else "-"
        return f"log {self.key.hex()} {self.instance.hex()} {self.incarnation.hex()} {self.sealed_by.hex()} {latest}"


@dataclass(frozen=True)
class Open:
    """Begin a session on all threads."""

    session: int
    role: int
    request_key: bytes
    receipt_key: bytes

    def line(self) -> str:
        return f"open {self.session} {self.role} {self.request_key.hex()} {self.receipt_key.hex()}"


@dataclass(frozen=True)
class Close:
    session: int

    def line(self) -> str:
        return f"close {self.session}"


@dataclass(frozen=True)
class SetRole:
    """`role` 0: none, and requests are rejected."""

    session: int
    role: int

    def line(self) -> str:
        return f"role {self.session} {self.role}"


@dataclass(frozen=True)
class Process:
    """Give a thread a piece of its log."""

    thread: int
    log: bytes

    def line(self) -> str:
        return f"process {self.thread} {self.log.hex()}"


@dataclass(frozen=True)
class Observe:
    """Look at the whole state of a thread."""

    thread: int

    def line(self) -> str:
        return f"observe {self.thread}"


@dataclass(frozen=True)
class TimeOut:
    """The other thread's clock has not passed the timestamp in time."""

    thread: int

    def line(self) -> str:
        return f"timeout {self.thread}"


@dataclass(frozen=True)
class Submit:
    """Take what a thread has handed over to the aggregator."""

    thread: int

    def line(self) -> str:
        return f"submit {self.thread}"


@dataclass(frozen=True)
class Certify:
    """The epoch that held last is certified."""

    def line(self) -> str:
        return "certify"


Step = Start | KeepLog | Open | Close | SetRole | Process | Observe | TimeOut | Submit | Certify
