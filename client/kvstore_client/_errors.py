"""Everything that the client raises.

    KVStoreError
    ├── TransportError            the server cannot be reached, or does not answer; trying again is sensible
    │   ├── ConnectionLostError
    │   └── CertificateTimeoutError (also a TimeoutError): a certificate is withheld
    ├── ProtocolError             the server does not speak this protocol
    ├── RefusedError              the monitor or the server said no
    │   ├── KeyRequiredError, UnknownKeyError, ForbiddenError
    ├── OperationError            this operation cannot be done
    │   ├── TooLongError, NotANumberError, NumberOverflowError
    ├── StateError                the client's own files cannot be used: state, keys, record of a local server
    ├── OutcomeError              the connection or the server was lost; says what became of the operation
    │   ├── ResultLostError       it ran, but its result is unknown
    │   ├── NotAppliedError       it never ran, and never will
    │   │   └── UnavailableError  the server's disk takes nothing: it refuses changes, and may answer gets
    │   ├── ProvisionalLostError  it was answered, but lost before it was certified
    │   └── OutcomeUnknownError   whether it holds is unknown: it may have run or not, or may run yet
    └── IntegrityError            somebody lied; never retried; carries the evidence
        ├── IdentityError, ReceiptError, ValueMismatchError, CertificateError
        ├── RollbackError, ForkError
        └── ViolationError        the monitor itself says, signed, what the host did

Messages hold no key material and no values. Evidence does hold what was sent and received.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore_client._receipts import Receipt
    from kvstore_client._violations import Violation


class KVStoreError(Exception):
    """Base of all errors of this package."""


class TransportError(KVStoreError):
    """The server cannot be reached, or does not answer. Nothing that was certified is affected."""


class ConnectionLostError(TransportError):
    """The connection was lost and could not be made again in time. A write in flight may have taken effect or not."""


class CertificateTimeoutError(TransportError, TimeoutError):
    """No certificate of `epoch` came in time: the server is slow, or withholds it. The answer stays provisional."""

    def __init__(
        self,
        epoch: int,
        seconds: float,
        consequence: str = "the answer stays provisional, and certified() may be awaited again",
    ) -> None:
        super().__init__(
            f"the certificate of epoch {epoch} did not arrive within {seconds:g} s: the server is overloaded or "
            f"withholds it; {consequence}"
        )
        self.epoch = epoch


class ProtocolError(KVStoreError):
    """The server sent what the protocol does not allow, and no key of the monitor vouches for it."""


class RefusedError(KVStoreError):
    """The server or the monitor refused. `code`: of the refusal (protocol section 4), or of the error (section 6)."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class KeyRequiredError(RefusedError):
    """The monitor admits only clients with a key, and this one has none."""


class UnknownKeyError(RefusedError):
    """The monitor does not know this client's key."""


class ForbiddenError(RefusedError):
    """The role of this client's key does not allow the operation."""


class OperationError(KVStoreError):
    """The operation cannot be done; nothing was changed by it.

    `receipt`: of an error that depends on the value which was there, and so is provisional like any answer. A call with
    `certified=True` raises it when it is certified.
    """

    receipt: Receipt | None = None


class TooLongError(OperationError, ValueError):
    """A key or value is longer than the server takes."""


class NotANumberError(OperationError):
    """`increment` met a value that is not an 8-byte integer."""


class NumberOverflowError(OperationError):
    """`increment` would leave the range of a signed 64-bit integer."""


class StateError(KVStoreError):
    """A file of the client's own (state, key, record of a local server) is missing, damaged, or open to others."""


class OutcomeError(KVStoreError):
    """The connection or the server was lost; the subclass says what became of the operation."""


class ResultLostError(OutcomeError):
    """The operation ran, but the connection was lost with its result."""


class NotAppliedError(OutcomeError):
    """The operation never ran and never will. It may be called again."""


class UnavailableError(NotAppliedError):
    """The server can make nothing durable now, as when its disk is full, and refuses changes. Gets are answered, unless
    it is the disk of its write-ahead log.

    The message has the server's reason. That the operation never runs is the monitor's word, not the server's; or the
    operation was never sent.
    """


class ProvisionalLostError(OutcomeError):
    """The server stopped before the operation's epoch was certified: the operation is undone, for good."""

    def __init__(self, epoch: int) -> None:
        super().__init__(
            f"the server restarted before epoch {epoch} was certified: what it had answered in that epoch is lost"
        )
        self.epoch = epoch


class OutcomeUnknownError(OutcomeError):
    """The session or the server was lost, and with it the answer whether this operation holds; or the server can give
    no answer now, since the disk of its write-ahead log takes nothing.

    It may have run or not, or may run yet; or it ran, in an epoch that was certified or in one that was lost.
    """


class IntegrityError(KVStoreError):
    """Somebody lied. Final: the client that raised it raises it again at every later call.

    `evidence`: what proves it, raw bytes by name (as `request`, `receipt`, `certificate`), to be kept and examined.
    """

    def __init__(self, message: str, evidence: Mapping[str, bytes] | None = None) -> None:
        super().__init__(message)
        self.evidence: Mapping[str, bytes] = dict(evidence or {})


class IdentityError(IntegrityError):
    """The server cannot show that it talks for the monitor whose fingerprint is pinned."""


class ReceiptError(IntegrityError):
    """A receipt (or a resumed, or an admin answer) is not the monitor's answer to what was asked."""


class ValueMismatchError(IntegrityError):
    """The bytes of a value are not those that the monitor's receipt commits to."""


class CertificateError(IntegrityError):
    """A certificate is not signed by the monitor, or does not fit the chain."""


class RollbackError(IntegrityError):
    """The store was put back to an older state than this client has seen certified."""


class ForkError(IntegrityError):
    """The monitor's chain of certificates has two branches: the store was copied or replaced."""


class ViolationError(IntegrityError):
    """The monitor found the host cheating and stopped for ever. `violation` is its signed statement."""

    def __init__(self, violation: Violation, evidence: Mapping[str, bytes]) -> None:
        super().__init__(violation.describe(), evidence)
        self.violation = violation
