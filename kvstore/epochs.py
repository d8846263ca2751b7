"""The epoch's life on the host: cut, checkpoint, certificate. Sans-IO: events in, actions out.

An epoch passes through the phases in order and only one is on its way at a time, so memory for epochs is constant:

    OPEN -> CUTTING     a cut is asked of every worker
    CUTTING -> STORING  all workers have handed the epoch over, and the monitor has sealed it
    STORING -> CERTIFYING  rows and sealed state are durable; only now may the monitor release the certificate
    CERTIFYING -> OPEN  the certificate is out; the next epoch is the open one

Beside that, some time after an epoch is durable, its rows are *applied*: workers find them in the store. No phase waits
for it, so several epochs may be durable and not applied.

Without a monitor (`verified=False`) nothing is sealed or certified: an epoch is over when it is durable.
"""

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    OPEN = "open"
    CUTTING = "cutting"
    STORING = "storing"
    CERTIFYING = "certifying"


@dataclass(frozen=True)
class Cut:
    """Ask every worker to close the epoch."""

    epoch: int
    all_to_merkle: bool


@dataclass(frozen=True)
class Store:
    """Write the epoch's rows, sealed state and the certificate of the epoch before, in one transaction."""

    epoch: int
    sealed: bytes
    former_certificate: bytes


@dataclass(frozen=True)
class Acknowledge:
    """Tell the monitor that the epoch is durable."""

    epoch: int


@dataclass(frozen=True)
class Finish:
    """Tell every worker that the epoch is durable and, with a monitor, certified."""

    epoch: int
    certificate: bytes


@dataclass(frozen=True)
class Release:
    """Tell every worker that the checkpoints up to that of the epoch are in the store."""

    epoch: int


Action = Cut | Store | Acknowledge | Finish | Release


class OutOfTurnError(Exception):
    """A process reported something that the phase does not allow: a fault of that process, not a violation."""


class Epochs:
    """`open_epoch` is the first epoch that is not certified yet. `certificate` is the newest one, b"" if none.

    `durable_epoch` and `applied_epoch` are the newest ones that are.
    """

    def __init__(self, *, open_epoch: int, workers: int, verified: bool, certificate: bytes) -> None:
        self.open_epoch = open_epoch
        self.durable_epoch = open_epoch - 1
        self.applied_epoch = open_epoch - 1
        self.phase = Phase.OPEN
        self.certificate = certificate
        self.changed_since_start = False
        self._workers = workers
        self._verified = verified
        self._active = False
        self._sealed = b""
        self._handed_over: set[int] = set()

    @property
    def certified_epoch(self) -> int:
        return self.open_epoch - 1

    @property
    def cut_is_due(self) -> bool:
        """Whether there is something to certify, and no cut is on its way."""
        return self.phase is Phase.OPEN and self._active

    def active(self, epoch: int) -> None:
        """Something has happened in the epoch that waits for a certificate."""
        self.changed_since_start = True
        # While epoch e is on its way, workers are in e + 1 already; what still belongs to e is covered by its cut.
        if epoch > self.open_epoch or self.phase is Phase.OPEN:
            self._active = True

    def cut(self, *, all_to_merkle: bool = False) -> list[Action]:
        if self.phase is not Phase.OPEN:
            raise OutOfTurnError(f"a cut while epoch {self.open_epoch} is {self.phase.value}")
        self.phase = Phase.CUTTING
        self._active = False
        self._sealed = b""
        self._handed_over.clear()
        return [Cut(self.open_epoch, all_to_merkle)]

    def handed_over(self, worker: int, epoch: int) -> list[Action]:
        self._expect(Phase.CUTTING, epoch, f"handover by worker {worker}")
        self._handed_over.add(worker)
        return self._store_when_complete()

    def sealed(self, epoch: int, state: bytes) -> list[Action]:
        self._expect(Phase.CUTTING, epoch, "sealed state")
        self._sealed = state
        return self._store_when_complete()

    def stored(self, epoch: int) -> list[Action]:
        self._expect(Phase.STORING, epoch, "checkpoint")
        self.durable_epoch = epoch
        if self._verified:
            self.phase = Phase.CERTIFYING
            return [Acknowledge(epoch)]
        return self._finish(b"")

    def applied(self, epoch: int) -> list[Action]:
        if not self.applied_epoch < epoch <= self.durable_epoch:
            raise OutOfTurnError(
                f"epoch {epoch} is applied, after epoch {self.applied_epoch}, while {self.durable_epoch} is durable"
            )
        self.applied_epoch = epoch
        return [Release(epoch)]

    def certified(self, epoch: int, certificate: bytes) -> list[Action]:
        self._expect(Phase.CERTIFYING, epoch, "certificate")
        return self._finish(certificate)

    def _store_when_complete(self) -> list[Action]:
        if len(self._handed_over) < self._workers or (self._verified and not self._sealed):
            return []
        self.phase = Phase.STORING
        return [Store(self.open_epoch, self._sealed, self.certificate)]

    def _finish(self, certificate: bytes) -> list[Action]:
        epoch = self.open_epoch
        self.phase = Phase.OPEN
        self.open_epoch += 1
        self.certificate = certificate
        self._sealed = b""
        return [Finish(epoch, certificate)]

    def _expect(self, phase: Phase, epoch: int, what: str) -> None:
        if self.phase is not phase or epoch != self.open_epoch:
            raise OutOfTurnError(f"{what} of epoch {epoch}, while epoch {self.open_epoch} is {self.phase.value}")
