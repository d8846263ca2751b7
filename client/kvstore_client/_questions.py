"""What a client asks beside operations: status, listing of keys, administration. Answers come in the order asked.

Status and keys are the host's word. Administration is the monitor's: one request at a time, numbered and MACed. If the
connection is lost, the same bytes are sent again: whichever copy comes first is the only one that the monitor takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from kvstore_client._errors import KVStoreError, OutcomeUnknownError, ProtocolError
from kvstore_client._frames import FrameType, encode_frame
from kvstore_client._messages import AdminAnswer, AdminOp, UnverifiedAdminAnswer, encode_admin_request

_ANSWERS = {FrameType.STATUS: FrameType.STATUS_ANSWER, FrameType.KEYS: FrameType.KEYS_ANSWER}
"""Which answer belongs to which question of the host."""

Callback = Callable[[bytes | None, KVStoreError | None], None]
AdminCallback = Callable[[AdminAnswer | None, KVStoreError | None], None]


class HostQuestions:
    """Questions to the host, first in, first out per kind."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[Callback]] = {kind: deque() for kind in _ANSWERS.values()}

    def ask(self, kind: FrameType, callback: Callback) -> None:
        self._waiting[_ANSWERS[kind]].append(callback)

    def answer(self, kind: int, body: bytes) -> None:
        if not self._waiting[kind]:
            raise ProtocolError(f"the server answered a question of type {kind:#x} that nobody asked")
        self._waiting[kind].popleft()(body, None)

    def fail_all(self, error: KVStoreError) -> None:
        for callbacks in self._waiting.values():
            while callbacks:
                callbacks.popleft()(None, error)


class AdminLine:
    """The administration side of one session."""

    def __init__(self, key: bytes, session: int) -> None:
        self._key = key
        self._session = session
        self._callback: AdminCallback | None = None
        self._sent_again = False
        self._request = b""
        self.sequence = 0

    @property
    def pending(self) -> bool:
        return self._callback is not None

    def ask(self, op: AdminOp, arguments: bytes, callback: AdminCallback) -> bytes:
        """The frame to send. One request at a time."""
        assert not self.pending
        self.sequence += 1
        self._callback, self._sent_again = callback, False
        self._request = encode_admin_request(self._key, self._session, self.sequence, op, arguments)
        return encode_frame(FrameType.ADMIN, self._request)

    def again(self) -> bytes | None:
        """After a reconnect: the same bytes again, if an answer is due."""
        if not self.pending:
            return None
        self._sent_again = True
        return encode_frame(FrameType.ADMIN, self._request)

    def answer(self, body: bytes) -> None:
        if not self.pending:
            raise ProtocolError("the server sent an admin answer that nobody asked for")
        self._finish(UnverifiedAdminAnswer(body).verify(self._key, self._request), None)

    def rejected(self) -> bool:
        """Whether the rejection may come of the former copy having run. False: the connection is of no use.

        Only the host says so, which may as well have changed or dropped both copies: nothing is known of the change.
        """
        if self._sent_again:
            text = "the connection was lost with the answer: the change may have run or not; list the clients to see"
            self._finish(None, OutcomeUnknownError(text))
        return self._sent_again

    def fail(self, error: KVStoreError) -> None:
        if self.pending:
            self._finish(None, error)

    def _finish(self, answer: AdminAnswer | None, error: KVStoreError | None) -> None:
        callback, self._callback = self._callback, None
        assert callback is not None
        callback(answer, error)
