"""One lane per verifier thread: what is queued for it, what is in flight, and the check of its receipts.

Invariants: sequences follow each other; receipts come in the order of the requests, so the first in flight is the only
one that a receipt can answer. Nothing of a receipt is delivered before all of it has been checked: first the MAC, which
covers the request, then every value against its commitment.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blake3 import blake3

from kvstore_client._codec import I64
from kvstore_client._crypto import MAC_BYTES, mac, mac_equal
from kvstore_client._errors import (
    ForbiddenError,
    KVStoreError,
    NotANumberError,
    NumberOverflowError,
    OperationError,
    ProtocolError,
    ReceiptError,
    ValueMismatchError,
)
from kvstore_client._frames import encode_request_frame
from kvstore_client._messages import encode_request
from kvstore_client._operations import (
    COMPARE_AND_SET,
    EXISTS,
    FORBIDDEN,
    GET,
    INLINE_BYTES_MAX,
    MISMATCH,
    NOT_A_NUMBER,
    OK,
    OPERATION_NAMES,
    OVERFLOW,
    STATUSES,
    VALUE,
    Operation,
)
from kvstore_client._receipts import Answer, Attempt, EpochOutcome, Number, Receipt, Value, Written

OPERATIONS_MAX = 512
"""Per request: the monitor's bound on the work between two looks at the socket."""

IN_FLIGHT_MAX = 8
"""Requests per thread that wait for receipts: enough to keep a server busy, and a bound on what a reconnect repeats."""

_FRAME_OVERHEAD = 1 + 4 + (64 << 10)
"""Of a frame: type, the request's length, and the largest request."""

_RECEIPT_HEADER = struct.Struct("<QIHHQQB")
_REQUEST_ERRORS = {1: "malformed", 2: "after_ts beyond every clock"}
_WRITTEN_CODES = frozenset({2, 3})


@dataclass(frozen=True, slots=True)
class Sent:
    """A request in flight. It can run only after `after_ts`, and in no epoch before `epoch_min`."""

    sequence: int
    operations: list[Operation]
    request: bytes
    generation: int
    after_ts: int
    epoch_min: int


@dataclass(slots=True)
class Turn:
    """What all lanes of a session share: numbers that go into every request.

    `gets_apart`: the server has refused changes, and taken none since. So gets are sent in requests of their own.
    """

    session: int
    generation: int
    after_ts: int
    epoch_min: int
    gets_apart: bool = False


class Lane:
    """`request_key`, `receipt_key`: None for an unverified server, whose MACs are zeros and prove nothing.

    `settled_count` grows whenever the monitor's word settles something: a lane where it stands still is stuck.
    """

    def __init__(self, thread: int, request_key: bytes | None, receipt_key: bytes | None, turn: Turn) -> None:
        self.thread = thread
        self.queue: deque[Operation] = deque()
        self.in_flight: deque[Sent] = deque()
        self.sequence = 0
        self.settled_count = 0
        self.request_key = request_key
        self.receipt_key = receipt_key
        self._turn = turn

    @property
    def acknowledged(self) -> int:
        """The last sequence that a receipt or a resumed has settled."""
        return self.in_flight[0].sequence - 1 if self.in_flight else self.sequence

    @property
    def busy(self) -> bool:
        """Whether a call waits for this lane."""
        return any(not operation.call.settled for operation in self._waiting())

    @property
    def answer_is_due(self) -> bool:
        """Whether a request is in flight, even if nobody waits for its answer any more."""
        return bool(self.in_flight)

    def abandon(self, error: KVStoreError) -> None:
        """Fail every waiting call. What is in flight stays known, but is not sent again."""
        for operation in self._waiting():
            if not operation.call.settled:
                operation.call.fail(operation.index, error)
        self.queue.clear()

    @property
    def changes_in_flight(self) -> bool:
        return any(operation.code != GET for sent in self.in_flight for operation in sent.operations)

    def refuse_changes(self, error: KVStoreError) -> None:
        """Fail what is queued and not a get: it cannot run, since it is not sent."""
        queue, self.queue = self.queue, deque()
        for operation in queue:
            if operation.code == GET:
                self.queue.append(operation)
            else:
                operation.call.fail(operation.index, error)
                self.settled_count += 1

    def _waiting(self) -> Iterator[Operation]:
        for sent in self.in_flight:
            yield from sent.operations
        yield from self.queue

    def next_frame(self, frame_bytes_max: int) -> bytes | None:
        """The next request as a frame; None if nothing is queued or enough is in flight."""
        if not self.queue or len(self.in_flight) >= IN_FLIGHT_MAX:
            return None
        operations = self._take(frame_bytes_max - _FRAME_OVERHEAD)
        if not operations:
            return None
        turn = self._turn
        self.sequence += 1
        encoded = [operation.encoded for operation in operations]
        request = encode_request(
            self.request_key, turn.session, turn.generation, self.thread, self.sequence, turn.after_ts, encoded
        )
        self.in_flight.append(Sent(self.sequence, operations, request, turn.generation, turn.after_ts, turn.epoch_min))
        return encode_request_frame(request, [operation.payload for operation in operations])

    def _take(self, payload_bytes_max: int) -> list[Operation]:
        """The operations of the next request, within the limits. A call that was cancelled in the queue is not sent."""
        queue, size = self.queue, 0
        operations: list[Operation] = []
        while queue and len(operations) < OPERATIONS_MAX:
            operation = queue[0]
            if operation.call.settled:
                queue.popleft()
                continue
            size += len(operation.payload)
            if operations and (size > payload_bytes_max or operation.alone or self._apart(operation, operations[0])):
                break
            operations.append(queue.popleft())
            if operation.alone:
                break
        return operations

    def _apart(self, one: Operation, other: Operation) -> bool:
        return self._turn.gets_apart and (one.code == GET) != (other.code == GET)

    def receive(self, receipt: bytes, payload: bytes, outcome_of: Callable[[int], EpochOutcome]) -> int:
        """Check the receipt of the first request in flight and deliver its answers. Returns its ts.

        `outcome_of` gives the outcome of an epoch. Raises IntegrityError or ProtocolError; then nothing was delivered.
        """
        if not self.in_flight:
            raise ReceiptError(
                f"a receipt of thread {self.thread} came that answers no request: repeated, or made up",
                {"receipt": receipt},
            )
        sent = self.in_flight[0]
        ts, error = self._check(sent, receipt)
        operations = sent.operations
        answers: list[Answer | KVStoreError | None]
        if error:
            reason = _REQUEST_ERRORS.get(error, f"error {error}")
            answers = [OperationError(f"the monitor could not run the request: {reason}")] * len(operations)
        else:
            proof = Receipt(ts, outcome_of(ts >> 32), self.thread, sent.sequence)
            try:
                answers = _read_results(sent, receipt, payload, proof)
            except (IndexError, struct.error):
                raise ProtocolError(f"thread {self.thread}: a receipt whose results are malformed") from None
        self.in_flight.popleft()
        self.settled_count += 1
        if self._turn.gets_apart and any(operation.code != GET for operation in operations):
            self._turn.gets_apart = False
        for operation, answer in zip(operations, answers, strict=True):
            if isinstance(answer, Answer):
                operation.call.deliver(operation.index, answer)
            elif answer is not None:
                operation.call.fail(operation.index, answer)
            else:
                operation.alone = True
                self.queue.appendleft(operation)
        return ts

    def _check(self, sent: Sent, receipt: bytes) -> tuple[int, int]:
        """(ts, error) of a receipt that answers `sent`. Raises ReceiptError."""
        evidence = {"request": sent.request, "receipt": receipt}
        if len(receipt) < _RECEIPT_HEADER.size + MAC_BYTES:
            raise ReceiptError(f"a receipt of thread {self.thread} is cut short", evidence)
        session, generation, thread, count, sequence, ts, error = _RECEIPT_HEADER.unpack_from(receipt)
        turn = self._turn
        if (session, generation, thread, sequence) != (turn.session, sent.generation, self.thread, sent.sequence):
            raise ReceiptError(
                f"thread {self.thread}: the receipt of request {sequence} came where that of request {sent.sequence} "
                f"is due: repeated, reordered, or of another session",
                evidence,
            )
        if self.receipt_key is not None:
            expected = mac(self.receipt_key, b"R", receipt[:-MAC_BYTES] + sent.request[-MAC_BYTES:])
            if not mac_equal(expected, receipt[-MAC_BYTES:]):
                raise ReceiptError(
                    f"thread {self.thread}: the receipt of request {sequence} is not the monitor's", evidence
                )
        if count != (0 if error else len(sent.operations)):
            raise ReceiptError(f"thread {self.thread}: the receipt of request {sequence} has {count} results", evidence)
        if not error and (ts <= sent.after_ts or ts >> 32 < sent.epoch_min):
            raise ReceiptError(
                f"thread {self.thread}: the receipt of request {sequence} names a time before the request", evidence
            )
        return ts, error


def _read_results(sent: Sent, receipt: bytes, payload: bytes, proof: Receipt) -> list[Answer | KVStoreError | None]:
    """An answer or an error per operation; None for one whose value did not fit, which is to be asked for alone."""
    answers: list[Answer | KVStoreError | None] = []
    position, end, payload_position = _RECEIPT_HEADER.size, len(receipt) - MAC_BYTES, 0
    for operation in sent.operations:
        status, code = receipt[position], operation.code
        position += 1
        if status not in STATUSES[code]:
            raise ProtocolError(f"a receipt gives status {status} for {OPERATION_NAMES.get(code, code)}")
        if status == OK:
            answers.append(Written(proof) if code in _WRITTEN_CODES else Attempt(proof, True))
            continue
        if status not in (VALUE, MISMATCH):
            answers.append(_failure(status, proof))
            continue
        value: bytes | None = None
        left_out = False
        kind = receipt[position]
        if kind == 1:
            length = receipt[position + 1]
            value = receipt[position + 2 : position + 2 + length]
            position += 2 + length
            if length > INLINE_BYTES_MAX:
                raise ProtocolError("a receipt holds a commitment that is not canonical")
        elif kind == 2:
            length = int.from_bytes(receipt[position + 1 : position + 5], "little")
            digest = receipt[position + 5 : position + 37]
            position += 37
            left_out = payload[payload_position] == 0
            payload_position += 1
            if not left_out:
                value = payload[payload_position : payload_position + length]
                payload_position += length
                _check_value(sent, operation, receipt, value, length, digest, payload[payload_position - length - 1])
        elif kind == 0:
            position += 1
        else:
            raise ProtocolError("a receipt holds an unknown kind of commitment")
        if code == GET:
            if left_out and operation.alone:
                raise ProtocolError("the server leaves out the value of a get that was sent alone")
            answers.append(None if left_out else Value(proof, value))
        elif code == COMPARE_AND_SET:
            answers.append(Attempt(proof, False, value, left_out))
        else:
            if value is None or len(value) != I64.size:
                raise ProtocolError("a receipt gives a result of increment that is not an integer")
            answers.append(Number(proof, I64.unpack(value)[0]))
    if position != end or payload_position != len(payload):
        raise ProtocolError("a receipt and its values do not fit together")
    return answers


def _check_value(
    sent: Sent, operation: Operation, receipt: bytes, value: bytes, length: int, digest: bytes, flag: int
) -> None:
    if flag != 1:
        raise ProtocolError("a receipt's values are malformed")
    if len(value) != length or blake3(value).digest() != digest:
        raise ValueMismatchError(
            f"the server's bytes for key hash {operation.key_hash.hex()} are not the value that the monitor proved",
            {"request": sent.request, "receipt": receipt, "key": operation.key, "value": value},
        )


def _failure(status: int, proof: Receipt) -> Answer | KVStoreError:
    if status == EXISTS:
        return Attempt(proof, False)
    if status == FORBIDDEN:
        return ForbiddenError("the role of this client's key does not allow the operation")
    error: OperationError
    if status == NOT_A_NUMBER:
        error = NotANumberError("increment: the value is not an 8-byte integer")
    else:
        assert status == OVERFLOW
        error = NumberOverflowError("increment: the number would leave the range of 64 bits")
    error.receipt = proof
    return error
