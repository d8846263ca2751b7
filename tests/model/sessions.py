"""The sessions of one thread, and whether what arrives was made by a session's client, for this thread, now.

See docs/verification.md, section 7. What is not authentic is rejected without any change of state.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import macs, requests
from .book import Book
from .wire import Malformed


class Rejected(Exception):  # noqa: N818  an answer, not an error
    """`reason`: of the protocol's list."""

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Session:
    request_key: bytes
    receipt_key: bytes
    role: int | None
    is_open: bool = True
    generation: int = 1
    sequence: int = 0
    """The last that was admitted or refused."""


class Sessions:
    def __init__(self, thread: int, book: Book) -> None:
        self.thread = thread
        self.book = book
        self.sessions: dict[int, Session] = {}

    def open(self, number: int, role: int, request_key: bytes, receipt_key: bytes) -> None:
        self.sessions[number] = Session(request_key, receipt_key, role)

    def close(self, number: int) -> None:
        session = self.sessions.get(number)
        if session is not None:
            session.is_open = False
            if session.sequence == 0:
                del self.sessions[number]

    def set_role(self, number: int, role: int | None) -> None:
        if number in self.sessions:
            self.sessions[number].role = role

    def find(self, number: int) -> Session:
        session = self.sessions.get(number)
        if session is None or not session.is_open:
            raise Rejected(requests.UNKNOWN_SESSION)
        return session

    def authenticate(self, data: bytes) -> tuple[requests.Request, Session]:
        """The request, if it is the session's next. Raises Rejected."""
        try:
            request = requests.split_request(data, self.book)
        except Malformed:
            raise Rejected(requests.BAD_MAC) from None
        session = self.find(request.session)
        _accept(session.role is not None, requests.UNKNOWN_SESSION)
        _accept(request.thread == self.thread, requests.WRONG_THREAD)
        mac = self.book.mac(session.request_key, macs.REQUEST, request.covered)
        _accept(request.mac == mac, requests.BAD_MAC)
        _accept(request.generation == session.generation, requests.BAD_GENERATION)
        _accept(request.sequence == session.sequence + 1, requests.BAD_SEQUENCE)
        return request, session

    def resume(self, data: bytes) -> tuple[requests.Resume, Session]:
        """The resume, whose generation begins now. Raises Rejected."""
        try:
            resume = requests.split_resume(data, self.book)
        except Malformed:
            raise Rejected(requests.BAD_MAC) from None
        session = self.find(resume.session)
        _accept(resume.thread == self.thread, requests.WRONG_THREAD)
        mac = self.book.mac(session.request_key, macs.RESUME, resume.covered)
        _accept(resume.mac == mac, requests.BAD_MAC)
        _accept(resume.generation > session.generation, requests.BAD_GENERATION)
        session.generation = resume.generation
        return resume, session

    def hand_over(self, first_waiting: dict[int, int]) -> list[tuple[int, int]]:
        """For each session the last sequence of which it and all before have run or been refused.

        `first_waiting`: of each session that has requests in the queue, the first sequence.
        """
        handed_over = [
            (number, first_waiting[number] - 1 if number in first_waiting else session.sequence)
            for number, session in sorted(self.sessions.items())
        ]
        for number, session in list(self.sessions.items()):
            if not session.is_open and number not in first_waiting:
                del self.sessions[number]
        return handed_over


def _accept(condition: bool, reason: int) -> None:
    if not condition:
        raise Rejected(reason)
