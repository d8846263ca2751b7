"""What a client asks beside operations: status, listing of keys, administration. Answers come in the order asked.

Status and keys are the host's word. Administration is the monitor's: one request at a time, numbered and MACed. If the
connection is lost, the same number is sent again: whichever copy comes first is the only one that the monitor takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from kvstore_client._errors import KVStoreError, OutcomeUnknownError, ProtocolError, UnavailableError
from kvstore_client._frames import FrameType, encode_frame
from kvstore_client._messages import AdminAnswer, AdminOp, UnverifiedAdminAnswer, encode_admin_request
from kvstore_client._receipts import Receipt

_ANSWERS = {FrameType.STATUS: FrameType.STATUS_ANSWER, FrameType.KEYS: FrameType.KEYS_ANSWER}
"""Which answer belongs to which question of the host."""

Callback = Callable[[bytes | None, KVStoreError | None], None]


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


class AdminCall(Protocol):
    """Who waits for an admin request. Failing or delivering is without effect once it is settled."""

    op: AdminOp
    arguments: bytes

    @property
    def settled(self) -> bool: ...
    def deliver(self, answer: AdminAnswer, receipt: Receipt | None) -> None: ...
    def fail(self, error: KVStoreError) -> None: ...


class AdminLine:
    """The administration side of one session: what waits, and at most one request in flight."""

    def __init__(self, key: bytes, session: int) -> None:
        self.queue: deque[AdminCall] = deque()
        self.settled_count = 0
        self._key = key
        self._session = session
        self._sequence = 0
        self._in_flight: AdminCall | None = None
        self._requests: list[bytes] = []
        """Those that were sent under the number of the one in flight: the monitor takes one of them."""
        self._sent_again = False
        self._superfluous: int | None = None
        """Number of requests of which a copy is still to be rejected, since another one was taken."""
        self._refusal: UnavailableError | None = None

    @property
    def busy(self) -> bool:
        in_flight = self._in_flight is not None and not self._in_flight.settled
        return in_flight or any(not call.settled for call in self.queue)

    @property
    def answer_is_due(self) -> bool:
        """Whether a request is in flight, even if nobody waits for its answer any more."""
        return self._in_flight is not None

    def next_frame(self) -> bytes | None:
        """The next request as a frame; None if there is none, or one is in flight."""
        while self._in_flight is None and self.queue:
            call = self.queue.popleft()
            if not call.settled:
                self._sequence += 1
                self._in_flight, self._sent_again = call, False
                self._requests.clear()
                return self._encode(call.op, call.arguments)
        return None

    def again(self) -> bytes | None:
        """After a reconnect: the same bytes again. If nobody waits any more: a harmless request of the same number,
        which takes its place if it never arrived, so that it cannot take effect later."""
        if self._in_flight is None:
            return None
        self._sent_again = True
        if self._in_flight.settled:
            return self._encode(AdminOp.LIST, b"")
        return encode_frame(FrameType.ADMIN, self._requests[-1])

    def refuse(self, error: UnavailableError) -> bytes | None:
        """The host says that it did not pass the request in flight on. A harmless request of the same number takes its
        place, so that it cannot take effect later; if the monitor takes that one, the call fails. None if nothing is
        in flight."""
        if self._in_flight is None or self._refusal is not None:
            return None
        self._refusal, self._sent_again = error, True
        return self._encode(AdminOp.LIST, b"")

    def answer(self, body: bytes) -> tuple[AdminCall, AdminAnswer]:
        """The answer to the request in flight, checked, and who waits for it. Raises ReceiptError, ProtocolError."""
        if self._in_flight is None:
            raise ProtocolError("the server sent an admin answer that nobody asked for")
        unverified = UnverifiedAdminAnswer(body)
        taken = next((request for request in self._requests if unverified.answers(self._key, request)), None)
        answer = unverified.verify(self._key, taken or self._requests[-1])
        self.settled_count += 1
        if self._refusal is not None:
            if taken != self._requests[0]:
                self._in_flight.fail(self._refusal)
            else:
                self._superfluous = self._sequence  # the host has passed the first one on, too
        return self._take_in_flight(), answer

    def explains(self, sequence: int) -> bool:
        """Whether a rejection of this number may come of a former copy of the request in flight having run.

        Only the host says so, which may as well have changed or dropped both copies: nothing is known of the change.
        False: an honest host has no such rejection, unless the session has ended.
        """
        if sequence == self._superfluous:
            self._superfluous = None
            return True
        if self._in_flight is None or sequence != self._sequence or not self._sent_again:
            return False
        self._lose_answer("the connection was lost with the answer")
        return True

    def abandon(self, error: KVStoreError) -> None:
        """Fail every waiting call. A request in flight stays known, but is not sent again."""
        if self._in_flight is not None:
            self._in_flight.fail(error)
        while self.queue:
            self.queue.popleft().fail(error)

    def end(self) -> deque[AdminCall]:
        """The session has ended. Returns the calls that are to be sent in the next one."""
        if self._in_flight is not None:
            self._lose_answer("the session ended without an answer")
        return self.queue

    def _encode(self, op: AdminOp, arguments: bytes) -> bytes:
        request = encode_admin_request(self._key, self._session, self._sequence, op, arguments)
        if request not in self._requests:
            self._requests.append(request)
        return encode_frame(FrameType.ADMIN, request)

    def _lose_answer(self, reason: str) -> None:
        """A listing is asked for again; of a change nothing is known."""
        call = self._take_in_flight()
        if call.op is AdminOp.LIST:
            self.queue.appendleft(call)
        else:
            call.fail(OutcomeUnknownError(f"{reason}: the change may have run or not; list the clients to see"))

    def _take_in_flight(self) -> AdminCall:
        call, self._in_flight, self._refusal = self._in_flight, None, None
        assert call is not None
        return call
