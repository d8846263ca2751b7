"""Which answered operations are certified: the open outcomes, at most a few epochs' worth, settled by certificates.

A certificate of another incarnation settles nothing: that incarnation may have replayed the operations from a
write-ahead log, and only the monitor's answer about their session tells.
"""

from __future__ import annotations

from kvstore_client._certificates import Chain
from kvstore_client._errors import KVStoreError, OutcomeError, OutcomeUnknownError, ProvisionalLostError
from kvstore_client._messages import FormerAnswer, FormerSession
from kvstore_client._receipts import EpochOutcome, Replay


class Outcomes:
    """Open outcomes by incarnation, epochs and session. Settled ones are dropped: answers keep theirs if they care."""

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._open: dict[tuple[bytes, int, int, FormerSession | None], EpochOutcome] = {}
        self.answers_lost = False
        """Whether an outcome was lost since the session was adopted."""
        self.unreported: KVStoreError | None = None
        """The first loss that no barrier has reported yet."""

    def open(self) -> list[EpochOutcome]:
        return list(self._open.values())

    def of(self, incarnation: bytes, epoch: int, epoch_first: int, chain: Chain, origin: FormerSession) -> EpochOutcome:
        """The outcome of what ran in `epoch_first` to `epoch`, settled already if the chain has certified it."""
        outcome = self._find(incarnation, epoch, epoch_first, origin)
        if epoch <= chain.epoch:
            self.follow(chain)
        return outcome

    def of_unverified(self, epoch: int, checkpointed: int) -> EpochOutcome:
        outcome = self._find(b"", epoch, epoch, None)
        if epoch <= checkpointed:
            self.checkpointed(checkpointed)
        return outcome

    def _find(self, incarnation: bytes, epoch: int, epoch_first: int, origin: FormerSession | None) -> EpochOutcome:
        key = (incarnation, epoch, epoch_first, origin)
        outcome = self._open.get(key)
        if outcome is None:
            outcome = EpochOutcome(incarnation, epoch, epoch_first, self.timeout_seconds, origin)
            self._open[key] = outcome
        return outcome

    def follow(self, chain: Chain) -> None:
        """Settle what the chain certifies: the certificate of the epoch names the incarnation."""
        for key, outcome in list(self._open.items()):
            if outcome.epoch <= chain.epoch and chain.incarnation_of(outcome.epoch) == outcome.incarnation:
                del self._open[key]
                outcome.settle()

    def checkpointed(self, epoch: int) -> None:
        """An unverified server says that everything up to `epoch` is on disk."""
        for key, outcome in list(self._open.items()):
            if outcome.epoch <= epoch:
                del self._open[key]
                outcome.settle()

    def former_to_ask_about(self, incarnation: bytes) -> FormerSession | None:
        """A session that has open outcomes of other incarnations than `incarnation`, whose monitor can tell of them."""
        for outcome in self._open.values():
            if outcome.incarnation != incarnation:
                return outcome.origin
        return None

    def session_ended(
        self, origin: FormerSession, incarnation: bytes, chain: Chain, answer: FormerAnswer | None, unknown: bool
    ) -> None:
        """Settle what former incarnations left open of a session, as the monitor of `incarnation` tells.

        `answer`: None if it knows nothing of the session; `unknown`: then the session may have been replayed.
        """
        for key, outcome in list(self._open.items()):
            if outcome.origin != origin or outcome.incarnation == incarnation:
                continue
            del self._open[key]
            if answer is None:
                self._lose(outcome, _unknown() if unknown else _loss(outcome, chain))
            elif answer.replay_epoch:
                again = self.of(incarnation, answer.replay_epoch, answer.replay_epoch, chain, origin)
                self._replayed(outcome, answer, again, ProvisionalLostError(outcome.epoch))
            else:
                # What took effect all the same was replayed by an incarnation in between, which has certified it.
                certified = EpochOutcome(outcome.incarnation, chain.epoch, chain.epoch, 0.0)
                certified.settle()
                self._replayed(outcome, answer, certified, _loss(outcome, chain))

    def _replayed(self, outcome: EpochOutcome, answer: FormerAnswer, again: EpochOutcome, error: KVStoreError) -> None:
        """Some of it, or all, ran again in another epoch or incarnation. The rest is lost, with `error`."""
        for thread, last in outcome.answered.items():
            again.answered[thread] = max(min(last, answer.replayed[thread]), again.answered.get(thread, 0))
            if last > answer.replayed[thread]:
                self._note_loss(error)
        outcome.settle(replay=Replay(answer.replayed, again, error))

    def fail_all(self, error: KVStoreError) -> None:
        for outcome in self._open.values():
            self._lose(outcome, error)
        self._open.clear()

    def _lose(self, outcome: EpochOutcome, error: KVStoreError) -> None:
        outcome.settle(error)
        self._note_loss(error)

    def _note_loss(self, error: KVStoreError) -> None:
        self.answers_lost = True
        self.unreported = self.unreported or error


def _unknown() -> OutcomeError:
    return OutcomeUnknownError(
        "the server restarted and may have replayed the operation, but the monitor does not know its session any more"
    )


def _loss(outcome: EpochOutcome, chain: Chain) -> OutcomeError:
    """What to say of an outcome whose last epoch its incarnation did not certify, and that was not replayed."""
    if any(outcome.epoch_first <= gap <= outcome.epoch for gap in chain.gaps):
        return OutcomeUnknownError(
            f"the store was put back to epoch {chain.gaps[-1]} by its operator: whether that holds what this client "
            f"was answered in it is not known"
        )
    if chain.last_epoch_of(outcome.incarnation) < outcome.epoch_first:
        return ProvisionalLostError(outcome.epoch)
    return OutcomeUnknownError(
        f"the server restarted before epoch {outcome.epoch} was certified: the operation ran in it, and is lost, or in "
        f"an earlier one since epoch {outcome.epoch_first}, and is certified"
    )
