"""What the library concludes from a server hello is what the session model concludes (`tests/model_sessions`): in every
situation that its search meets, it says the same of an operation that was answered, or was in flight."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kvstore_client._certificates import Chain
from kvstore_client._current import Current
from kvstore_client._errors import KVStoreError, OutcomeUnknownError, ProvisionalLostError
from kvstore_client._lane import Lane, Sent, Turn
from kvstore_client._messages import FormerAnswer, FormerSession, Role, ServerHello
from kvstore_client._operations import put
from kvstore_client._receipts import Answer, Receipt
from kvstore_client._session import Session

_VECTORS = Path(__file__).parents[1] / "vectors" / "verdicts.json"
_SITUATIONS: list[dict[str, Any]] = json.loads(_VECTORS.read_text())


class _Call:
    """Notes what an operation is settled with."""

    def __init__(self) -> None:
        self.outcome: Answer | KVStoreError | None = None

    @property
    def settled(self) -> bool:
        return self.outcome is not None

    def deliver(self, index: int, answer: Answer) -> None:
        self.outcome = answer

    def fail(self, index: int, error: KVStoreError) -> None:
        self.outcome = error


def _incarnation(number: int) -> bytes:
    return bytes([number + 1]) * 16


def _chain(certified_by: list[int]) -> Chain:
    """A chain whose epochs were certified by these incarnations."""
    chain = Chain(bytes(32), bytes(16), 0, None)
    for epoch, number in enumerate(certified_by, start=1):
        if not chain._run_incarnations or chain._run_incarnations[-1] != _incarnation(number):
            chain._run_starts.append(epoch)
            chain._run_incarnations.append(_incarnation(number))
        chain.epoch = epoch
    return chain


def _said_of(receipt: Receipt) -> str:
    settled, error = receipt.state
    if not settled:
        return "provisional"
    if error is None:
        return "certified"
    return {ProvisionalLostError: "lost", OutcomeUnknownError: "unknown"}[type(error)]


def _verdict(situation: dict[str, Any]) -> str:
    session = Session(bytes(32), None, _chain(situation["chain"]), bytes, 1.0)
    chain = session.chain
    assert chain is not None
    turn = Turn(session=1, generation=1, after_ts=0, epoch_min=situation["first"])
    lane = Lane(0, bytes(32), bytes(32), turn)
    of_session = _incarnation(situation["session_of"])
    session._current = Current(Role.WRITE, of_session, turn, [lane], bytes(32), None)
    origin = FormerSession(of_session, 1, bytes(32))
    session._asked_about = origin
    now, call = _incarnation(situation["now"]), _Call()
    operation, receipt = put(b"key", b"value", call), None
    if situation["answered"]:
        outcome = session.outcomes.of(
            _incarnation(situation["of"]), situation["epoch"], situation["first"], chain, origin
        )
        receipt = Receipt(situation["epoch"] << 32, outcome, 0, situation["sequence"])
        session.outcomes.follow(chain)
    else:
        lane.in_flight.append(Sent(situation["sequence"], [operation], b"", 1, 0, situation["first"]))
    known = situation["status"] == "known"
    hello = SimpleNamespace(
        incarnation=now,
        former=FormerAnswer([situation["last"]], [situation["replayed"]], situation["replay_epoch"]) if known else None,
        former_may_be_replayed=situation["status"] == "may_be_replayed",
        head=SimpleNamespace(epoch=chain.epoch),
    )
    again = session._settle_former(session._current, cast(ServerHello, hello))
    if receipt is not None:
        return _said_of(receipt)
    if operation in again:
        return "waiting"
    if isinstance(call.outcome, Answer):
        return _said_of(call.outcome.receipt)
    return {OutcomeUnknownError: "unknown"}[cast(type[OutcomeUnknownError], type(call.outcome))]


@pytest.mark.parametrize("situation", _SITUATIONS, ids=lambda situation: json.dumps(situation)[1:-1])
def test_the_library_concludes_what_the_model_does(situation: dict[str, Any]) -> None:
    assert _verdict(situation) == situation["verdict"]


def test_the_situations_are_of_every_kind() -> None:
    assert len(_SITUATIONS) > 150
    verdicts = {situation["verdict"] for situation in _SITUATIONS}
    assert verdicts == {"waiting", "provisional", "certified", "lost", "unknown"}
