"""What becomes of operations when a connection, a session or a server was lost. Pure decisions, no bytes.

**Same incarnation, resumed.** `last` of the monitor's answer splits what was in flight, for good: requests up to it ran
(puts and deletes are answered as applied, at or before its ts; gets are asked again; of the others the result is lost),
later ones never will, so they are sent again in the new generation.

**Changes refused.** A server whose disk takes nothing says that it did not pass a request on; it may be lying, and pass
it on later. So the session is resumed, on the same connection: once the monitor has answered, what it did not run fails
with UnavailableError, and gets are asked again.

**No answers.** A server whose write-ahead log takes nothing says so: no answer may go out, and not the monitor's to a
resume either. What was not sent never will be, and a get changes nothing: they fail with UnavailableError. What is in
flight may have run, or may run yet: OutcomeUnknownError.

**New incarnation.** The monitor says what its sealed state knows of the former session.
- *Answered*: requests up to `last` took effect, certified. Later ones up to `replayed` took effect again, from the
  write-ahead log, with the same results, and will be certified with `replay_epoch`, by the new incarnation. Those that
  are later still did not and never will.
- *Unknown*: the session is not in the sealed state, because none was sealed while it existed, or because the monitor
  had to forget it. Those differ in the chain: a request can only have run in an epoch after the last one that was
  certified when it was sent (`Sent.epoch_min`). If the former incarnation certified no epoch that late, the request did
  not take effect, unless it may have been replayed. Otherwise nobody can say: OutcomeUnknownError.
- Answers of epochs that the former incarnation did not certify, and that were not replayed, are lost
  (ProvisionalLostError): the new one has certified, or will certify, those epochs itself. Answers of sessions before
  that one are asked about by further hellos, one for each.
- If an answered operation was lost, no write that was called before the loss is applied after it, since it may build
  on what was lost: writes that never ran are then not sent again, but fail with NotAppliedError. Gets are asked again.

**Same incarnation, but the session is gone** (the host closed it, or says so): answered operations are certified as
ever; what was in flight may have run, or may run yet if the host lied: gets are asked again, the others are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from kvstore_client._errors import (
    KVStoreError,
    NotAppliedError,
    OutcomeUnknownError,
    ResultLostError,
    UnavailableError,
)
from kvstore_client._lane import Lane, Sent
from kvstore_client._messages import FormerAnswer
from kvstore_client._operations import DELETE, GET, PUT, Operation
from kvstore_client._receipts import Receipt, Written


def settle_ran(sent: Sent, receipt_of: Callable[[], Receipt]) -> list[Operation]:
    """The request ran, at or before the ts of its receipt, which is made only if something hangs on it.

    Returns what is to be asked again.
    """
    again = []
    receipt: Receipt | None = None
    for operation in _unsettled(sent.operations):
        if operation.code == GET:
            again.append(operation)
            continue
        receipt = receipt or receipt_of()
        if operation.code in (PUT, DELETE):
            operation.call.deliver(operation.index, Written(receipt))
        else:
            error = ResultLostError("the operation ran, but the connection was lost with its result: read the key")
            operation.call.fail(operation.index, error)
    return again


def settle_unknown(sent: Sent) -> list[Operation]:
    """Nobody can say whether the request ran. Returns what is to be asked again."""
    again = []
    for operation in _unsettled(sent.operations):
        if operation.code == GET:
            again.append(operation)
        else:
            error = OutcomeUnknownError(
                "the session ended without an answer: the operation may have taken effect or not, or may do so yet"
            )
            operation.call.fail(operation.index, error)
    return again


def without_answers(lane: Lane, reason: str) -> None:
    """No answer can come for now: fail every call that waits for this lane."""
    unavailable = UnavailableError(reason)
    for sent in lane.in_flight:
        for operation in _unsettled(sent.operations):
            error: KVStoreError = unavailable
            if operation.code != GET:
                error = OutcomeUnknownError(f"{reason}: the operation may have taken effect or not, or may do so yet")
            operation.call.fail(operation.index, error)
    fail_all(lane.queue, unavailable)
    lane.queue.clear()


def fail_all(operations: Iterable[Operation], error: KVStoreError) -> None:
    for operation in _unsettled(operations):
        operation.call.fail(operation.index, error)


def after_resume(
    lane: Lane, last: int, receipt_of: Callable[[Sent], Receipt], refusal: UnavailableError | None = None
) -> None:
    """Settle what a resumed lane had in flight, and queue the rest again, in order, before what is queued.

    `refusal`: why all of that, if it is not a get, fails instead.
    """
    again: list[Operation] = []
    for sent in lane.in_flight:
        if sent.sequence <= last:
            kept = settle_ran(sent, partial(receipt_of, sent))
            lane.settled_count += len(sent.operations) - len(kept)
            again += kept
        else:
            again += _unsettled(sent.operations)
    lane.in_flight.clear()
    lane.sequence = last
    lane.queue.extendleft(reversed(again))
    if refusal is not None:
        lane.refuse_changes(refusal)


def after_restart(
    lanes: list[Lane], former: FormerAnswer | None, receipt_of: Callable[[int, int], Receipt], lost_from: int
) -> list[Operation]:
    """Settle the lanes of a session of a former incarnation. Returns what is to be sent in the new session.

    `receipt_of(thread, sequence)`: for what took effect. `lost_from`: where the monitor does not know the session, what
    can only have run in this epoch or later did not take effect.
    """
    again: list[Operation] = []
    for lane in lanes:
        for sent in lane.in_flight:
            if former is not None and sent.sequence <= former.replayed[lane.thread]:
                again += settle_ran(sent, partial(receipt_of, lane.thread, sent.sequence))
            elif former is not None or sent.epoch_min >= lost_from:
                again += _unsettled(sent.operations)
            else:
                again += settle_unknown(sent)
        again += lane.queue
    return again


def without_writes(operations: list[Operation]) -> list[Operation]:
    """Fail the writes that have not run, since they may build on an answer that was lost; the rest may be sent."""
    error = NotAppliedError("the server restarted and lost answers of this client; this operation was not applied")
    fail_all((operation for operation in operations if operation.code != GET), error)
    return [operation for operation in operations if operation.code == GET]


def after_session_gone(lanes: list[Lane]) -> list[Operation]:
    """Settle the lanes of a session that ended within its incarnation. Returns what is to be sent in the new one."""
    again: list[Operation] = []
    for lane in lanes:
        for sent in lane.in_flight:
            again += settle_unknown(sent)
        again += lane.queue
    return again


def _unsettled(operations: Iterable[Operation]) -> list[Operation]:
    """Those whose call still waits: a call that has failed in the meantime must not run later."""
    return [operation for operation in operations if not operation.call.settled]
