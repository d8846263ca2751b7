"""Which answered operations are certified: the open outcomes, at most a few epochs' worth, settled by certificates."""

from __future__ import annotations

from kvstore_client._certificates import Chain
from kvstore_client._errors import KVStoreError, OutcomeError, OutcomeUnknownError, ProvisionalLostError
from kvstore_client._receipts import EpochOutcome


class Outcomes:
    """Open outcomes by incarnation and epochs. Settled ones are dropped: answers keep theirs alive if they care."""

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._open: dict[tuple[bytes, int, int], EpochOutcome] = {}
        self.answers_lost = False
        """Whether an outcome was lost since the session was adopted."""
        self.unreported: KVStoreError | None = None
        """The first loss that no barrier has reported yet."""

    def open(self) -> list[EpochOutcome]:
        return list(self._open.values())

    def of(self, incarnation: bytes, epoch: int, epoch_first: int, chain: Chain) -> EpochOutcome:
        """The outcome of what ran in `epoch_first` to `epoch`, settled already if the chain has come there."""
        outcome = self._open.get((incarnation, epoch, epoch_first))
        if outcome is None:
            outcome = EpochOutcome(incarnation, epoch, epoch_first, self.timeout_seconds)
            self._open[incarnation, epoch, epoch_first] = outcome
            if epoch <= chain.epoch:
                self.follow(chain)
        return outcome

    def of_unverified(self, epoch: int, checkpointed: int) -> EpochOutcome:
        outcome = self._open.get((b"", epoch, epoch))
        if outcome is None:
            outcome = EpochOutcome(b"", epoch, epoch, self.timeout_seconds)
            self._open[b"", epoch, epoch] = outcome
            self.checkpointed(checkpointed)
        return outcome

    def follow(self, chain: Chain) -> None:
        """Settle what the chain decides: certified if the certificate of the epoch names the incarnation, else lost."""
        for key, outcome in list(self._open.items()):
            if outcome.epoch <= chain.epoch:
                del self._open[key]
                if chain.incarnation_of(outcome.epoch) == outcome.incarnation:
                    outcome.settle()
                else:
                    self._lose(outcome, _loss(outcome, chain))

    def checkpointed(self, epoch: int) -> None:
        """An unverified server says that everything up to `epoch` is on disk."""
        for key, outcome in list(self._open.items()):
            if outcome.epoch <= epoch:
                del self._open[key]
                outcome.settle()

    def incarnation_ended(self, incarnation: bytes, chain: Chain) -> None:
        """The chain has come to the head of another incarnation: what `incarnation` left open, it cannot certify."""
        for key, outcome in list(self._open.items()):
            if outcome.incarnation == incarnation:
                del self._open[key]
                self._lose(outcome, _loss(outcome, chain))

    def fail_all(self, error: KVStoreError) -> None:
        for outcome in self._open.values():
            self._lose(outcome, error)
        self._open.clear()

    def _lose(self, outcome: EpochOutcome, error: KVStoreError) -> None:
        outcome.settle(error)
        self.answers_lost = True
        self.unreported = self.unreported or error


def _loss(outcome: EpochOutcome, chain: Chain) -> OutcomeError:
    """What to say of an outcome whose last epoch its incarnation did not certify."""
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
