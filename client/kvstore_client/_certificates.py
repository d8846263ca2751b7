"""Certificates, the Merkle mountain range over them, and the chain that a client has followed (protocol section 5).

Invariants of `Chain`: what it holds was signed by the identity or is named, through the hashes of the ones after it, by
one that was; each certificate names the one before it, and epochs follow each other without a gap. It only ever grows.
It knows which incarnation certified each epoch since its start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kvstore_client._codec import U64, Reader
from kvstore_client._crypto import SIGNATURE_BYTES, ZERO_HASH, domain_hash, signed_by
from kvstore_client._errors import CertificateError, ForkError, IntegrityError, ProtocolError, RollbackError
from kvstore_client._overrides import Override, instance_at

CERTIFICATE_BYTES = 168
RECENT_MAX = 1024
"""Hashes of the last certificates that are kept, to tell a repeated certificate from a second one for its epoch."""

CERTIFICATES_MAX = 4096
"""Certificates asked for at once: 690 KB. The signature of one vouches, through the hashes, for all before it."""

_MAGIC = b"ZKC1"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of the monitor. `data`: its 168 bytes; `hash`: what the next one must name."""

    data: bytes
    instance: bytes
    incarnation: bytes
    epoch: int
    previous: bytes
    range_root: bytes
    hash: bytes


class UnverifiedCertificate:
    """The bytes of a certificate. Raises ProtocolError if they are malformed."""

    def __init__(self, data: bytes) -> None:
        reader = Reader(data, "certificate")
        if reader.take(4) != _MAGIC:
            raise ProtocolError("certificate: wrong magic")
        instance, incarnation = reader.take(16), reader.take(16)
        epoch, previous, range_root = reader.u32(), reader.take(32), reader.take(32)
        self._body = data[: reader.position()]
        self._signature = reader.take(SIGNATURE_BYTES)
        reader.end()
        if epoch == 0:
            raise ProtocolError("certificate: epoch 0 has none")
        certificate_hash = domain_hash("zetakv/1 certificate", self._body)
        self._certificate = Certificate(data, instance, incarnation, epoch, previous, range_root, certificate_hash)

    @property
    def epoch(self) -> int:
        return self._certificate.epoch

    def verify(self, identity: bytes) -> Certificate:
        """Raises CertificateError if the identity did not sign it."""
        certificate = self._certificate
        if not signed_by(identity, self._signature, self._body):
            raise CertificateError(
                f"the certificate of epoch {certificate.epoch} is not signed by the monitor",
                {"certificate": certificate.data},
            )
        return certificate

    def named_by(self, following: Certificate) -> Certificate | None:
        """The certificate, if one of the monitor's names it as the one before: that vouches for its body as well."""
        return self._certificate if following.previous == self._certificate.hash else None

    def repeats(self, known: Certificate) -> bool:
        return known.hash == self._certificate.hash


def verify_run(identity: bytes, run: list[UnverifiedCertificate]) -> list[Certificate]:
    """Check certificates of consecutive epochs; where the hashes link them, one signature vouches for all.

    Raises CertificateError.
    """
    verified = [run[-1].verify(identity)]
    for unverified in reversed(run[:-1]):
        verified.append(unverified.named_by(verified[-1]) or unverified.verify(identity))
    verified.reverse()
    return verified


class MountainRange:
    """The peaks of the range over `count` leaves: enough to add leaves and to compute the root."""

    def __init__(self, count: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.count = count
        self.peaks = list(peaks)
        if len(self.peaks) != count.bit_count() or any(len(peak) != 32 for peak in self.peaks):
            raise ValueError(f"a range over {count} leaves has {count.bit_count()} peaks of 32 bytes")

    def append(self, certificate_hash: bytes) -> None:
        node = domain_hash("zetakv/1 range leaf", certificate_hash)
        # The trailing ones of the count are the peaks that the new leaf completes, smallest first.
        carry = self.count
        while carry & 1:
            node = domain_hash("zetakv/1 range node", self.peaks.pop() + node)
            carry >>= 1
        self.peaks.append(node)
        self.count += 1

    def root(self) -> bytes:
        return domain_hash("zetakv/1 range root", U64.pack(self.count) + b"".join(self.peaks))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a statement signed by the identity says of the chain: the hash of the certificate of an epoch.

    `evidence`: the statement, by name, with what is needed to check its signature.
    """

    instance: bytes
    epoch: int
    hash: bytes
    evidence: Mapping[str, bytes]

    @classmethod
    def of_certificate(cls, certificate: Certificate) -> Claim:
        return cls(certificate.instance, certificate.epoch, certificate.hash, {"certificate": certificate.data})


def contradiction(ours: Certificate | Claim, theirs: Certificate | Claim) -> ForkError:
    """The error that two different certificates of one epoch are, or two statements that name such."""
    return ForkError(
        f"the monitor signed for two different certificates of epoch {ours.epoch}: the store was forked",
        side_by_side(ours, theirs),
    )


def side_by_side(ours: Certificate | Claim | None, theirs: Certificate | Claim) -> dict[str, bytes]:
    """The evidence of two statements; names of the second one that the first one has, too, begin with `other_`."""
    first = {} if ours is None else _evidence(ours)
    second = _evidence(theirs)
    return first | {f"other_{name}" if name in first else name: data for name, data in second.items()}


def _evidence(statement: Certificate | Claim) -> dict[str, bytes]:
    return dict(statement.evidence) if isinstance(statement, Claim) else {"certificate": statement.data}


class Chain:
    """The certificates of one store, as far as this client has followed them.

    It starts where the client first met the monitor (`Chain.since`), or from a remembered certificate
    (`Chain.after`). The range root is checked where the range is known: from epoch 1, or from the state file.
    An override ends one instance and begins the next. The certificate of its epoch need not be to be had: its hash is
    in the override, so the chain passes that epoch without it (`gaps`).
    """

    def __init__(
        self,
        identity: bytes,
        instance: bytes,
        epoch: int,
        mountains: MountainRange | None,
        overrides: tuple[Override, ...] = (),
    ) -> None:
        self.identity = identity
        self.instance = instance
        self.epoch = epoch
        self.hash = ZERO_HASH if epoch == 0 else None
        """Of the certificate of `epoch`, where it is known."""
        self.last: Certificate | None = None
        self.mountains = mountains
        self.overrides = overrides
        self.accepted = False
        """Whether it was begun anew, because the user accepted an override that contradicts what was remembered."""
        self.gaps: list[int] = []
        """Epochs that were passed without their certificate: whose incarnation certified them is not known."""
        self._claims: dict[int, Claim] = {}
        self._recent: dict[int, Certificate] = {}
        self._run_starts: list[int] = []
        self._run_incarnations: list[bytes] = []

    @classmethod
    def since(cls, identity: bytes, head: Claim, overrides: tuple[Override, ...] = ()) -> Chain:
        """A chain that begins with the certificate that a hello names as the head (or empty, at epoch 0)."""
        before = max(head.epoch - 1, 0)
        chain = cls(identity, head.instance, before, MountainRange() if before == 0 else None, overrides)
        chain._pass_gap()
        chain.claim(head, head.epoch)
        return chain

    @classmethod
    def after(
        cls,
        identity: bytes,
        certificate: Certificate,
        mountains: MountainRange | None,
        overrides: tuple[Override, ...] = (),
    ) -> Chain:
        """A chain that goes on after a remembered certificate. `mountains`: the range up to and including it."""
        chain = cls(identity, certificate.instance, certificate.epoch - 1, None, overrides)
        chain._accept(certificate)
        chain.mountains = mountains
        return chain

    def go_over(self, head: Claim, overrides: tuple[Override, ...], known_epoch: int) -> tuple[Override, ...]:
        """Take what a hello says of overrides. Returns the new ones; the chain goes on over them if it lost nothing.

        Raises RollbackError if a certificate that this client has seen is given up by one, ForkError if they do not
        start from this chain.
        """
        shared = 0
        while shared < min(len(self.overrides), len(overrides)) and self.overrides[shared] == overrides[shared]:
            shared += 1
        new, ours = overrides[shared:], self.overrides[shared:]
        if not new and not ours and head.instance == self.instance:
            return ()
        first = new[0] if new else None
        if first is None or first.old_instance != (ours[0].old_instance if ours else self.instance):
            raise self._stranger(head)
        common_epoch = min(override.epoch for override in (first, *ours))
        if known_epoch > common_epoch or self.hash_of(first.epoch) not in (None, first.head):
            raise RollbackError(
                f"epoch {known_epoch} was certified to this client, but {first.describe()}. To go on without what was "
                f"lost, accept the override {head.instance.hex()}",
                self._evidence(head, known_epoch) | {"override": first.statement},
            )
        self.overrides, self.instance = overrides, head.instance
        self._pass_gap()
        return new

    def instance_at(self, epoch: int) -> bytes:
        """The instance that certified, or will certify, an epoch."""
        return instance_at(self.overrides, self.instance, epoch)

    def gap_after(self, epoch: int) -> int | None:
        """The first epoch after `epoch` whose certificate may not be to be had."""
        return next((override.epoch for override in self.overrides if override.epoch > epoch), None)

    def gap_before(self, epoch: int) -> int | None:
        """The last epoch before `epoch` whose certificate may not be to be had."""
        return next((override.epoch for override in reversed(self.overrides) if override.epoch < epoch), None)

    def hash_of(self, epoch: int) -> bytes | None:
        """The hash of the certificate of an epoch, where it is known."""
        known = self._recent.get(epoch)
        if known is not None:
            return known.hash
        return next((override.head for override in self.overrides if override.epoch == epoch <= self.epoch), None)

    def _pass_gap(self) -> None:
        """Where an override says what the next certificate is, no certificate is needed."""
        for override in self.overrides:
            if override.epoch != self.epoch + 1:
                continue
            self._claims.pop(override.epoch, None)
            if self.mountains is not None:
                self.mountains.append(override.head)
            self.epoch, self.hash = override.epoch, override.head
            self.gaps.append(override.epoch)

    def _stranger(self, claim: Claim) -> IntegrityError:
        """The error that a signed statement about another instance is."""
        for override in self.overrides:
            if claim.instance == override.old_instance and claim.epoch >= override.epoch:
                return RollbackError(
                    f"epoch {claim.epoch} was certified, but {override.describe()}",
                    self._evidence(claim) | {"override": override.statement},
                )
        return ForkError(
            f"the monitor serves another store (instance {claim.instance.hex()}) than the one that this client "
            f"knows (instance {self.instance.hex()})",
            self._evidence(claim),
        )

    @property
    def known_epoch(self) -> int:
        """The last epoch that the monitor is known to have certified."""
        return max(self.epoch, *self._claims) if self._claims else self.epoch

    def meet(self, theirs: Certificate, ours: Certificate | None = None) -> None:
        """Check that the chain holds a certificate that somebody else was shown. Raises ForkError, RollbackError.

        `ours`: the chain's certificate of that epoch, if it was fetched; else its hash must be known.
        """
        ours = ours or self._recent.get(theirs.epoch)
        if theirs.hash == (ours.hash if ours is not None else self.hash_of(theirs.epoch)):
            return
        if ours is not None and ours.instance == theirs.instance:
            raise contradiction(ours, theirs)
        raise self._stranger(Claim.of_certificate(theirs))

    @property
    def oldest(self) -> Certificate | None:
        """The first of the certificates that are kept."""
        return next(iter(self._recent.values()), None)

    def claim(self, claim: Claim, known_epoch: int) -> None:
        """Take a signed statement about the chain: it must not contradict what is known, now or when it is reached.

        `known_epoch`: of this chain when the statement was asked for. (Certificates may overtake a hello.)
        Raises RollbackError if the chain was longer already by then, ForkError if it is another chain.
        """
        if claim.instance != self.instance:
            raise self._stranger(claim)
        if claim.epoch < known_epoch:
            raise RollbackError(
                f"the server is at epoch {claim.epoch}, but epoch {known_epoch} was certified: the store was rolled "
                f"back",
                self._evidence(claim, known_epoch),
            )
        known = self._recent.get(claim.epoch)
        if known is not None and claim.hash != known.hash:
            raise contradiction(known, claim)
        if claim.epoch > self.epoch:
            claimed = self._claims.setdefault(claim.epoch, claim)
            if claimed.hash != claim.hash:
                raise contradiction(claimed, claim)

    def _evidence(self, claim: Claim, known_epoch: int | None = None) -> dict[str, bytes]:
        """A claim beside the statement that it contradicts: of `known_epoch`, or the newest that is known."""
        ours = self._claims.get(self.known_epoch if known_epoch is None else known_epoch)
        return side_by_side(ours or self.last, claim)

    def extend(self, run: list[UnverifiedCertificate]) -> Certificate:
        """Add the certificates of the next epochs, without a gap, and return the last.

        Raises CertificateError if one is not the monitor's, ForkError if one contradicts another signed statement.
        """
        for certificate in verify_run(self.identity, run):
            if certificate.epoch != self.epoch + 1:
                continue  # of an override's epoch, which was passed without it
            self._check_instance(certificate)
            self._check_next(certificate)
            self._accept(certificate)
        assert self.last is not None
        return self.last

    def compare(self, unverified: UnverifiedCertificate) -> None:
        """Check a certificate that is not the next one: a repeated or an early one. Raises as `extend`."""
        known = self._recent.get(unverified.epoch)
        if known is not None and unverified.repeats(known):
            return
        certificate = unverified.verify(self.identity)
        if known is not None and known.instance == certificate.instance:
            raise contradiction(known, certificate)
        self._check_instance(certificate)

    def named_before(self, known: Certificate | None, unverified: UnverifiedCertificate) -> Certificate:
        """The certificate before a known one of the chain, or before a gap at its beginning. Raises as `extend`."""
        if known is None or unverified.epoch + 1 < known.epoch:
            # A gap is between: only the signature vouches for it.
            certificate = unverified.verify(self.identity)
            self._check_instance(certificate)
            return certificate
        named = unverified.named_by(known)
        if named is None:
            certificate = unverified.verify(self.identity)
            raise ForkError(
                f"the monitor signed a certificate of epoch {certificate.epoch} that the one of epoch {known.epoch} "
                f"does not follow: the store was forked",
                side_by_side(known, certificate),
            )
        return named

    def recent_hashes(self) -> dict[int, bytes]:
        """Of the last certificates, by epoch: at most RECENT_MAX, and those of overrides."""
        passed = {override.epoch: override.head for override in self.overrides if override.epoch <= self.epoch}
        return passed | {epoch: certificate.hash for epoch, certificate in self._recent.items()}

    def incarnation_of(self, epoch: int) -> bytes | None:
        """The incarnation that certified `epoch`; None if it is not known: see `gaps`, or the chain is not there."""
        if epoch > self.epoch or epoch in self.gaps:
            return None
        run = bisect_right(self._run_starts, epoch) - 1
        return self._run_incarnations[run] if run >= 0 else None

    def last_epoch_of(self, incarnation: bytes) -> int:
        """The last epoch that `incarnation` certified, as far as the chain is known; 0 if none."""
        for run in reversed(range(len(self._run_starts))):
            if self._run_incarnations[run] == incarnation:
                return self._run_starts[run + 1] - 1 if run + 1 < len(self._run_starts) else self.epoch
        return 0

    def _check_instance(self, certificate: Certificate) -> None:
        if certificate.instance != self.instance_at(certificate.epoch):
            raise CertificateError(
                f"the certificate of epoch {certificate.epoch} is of another store", {"certificate": certificate.data}
            )

    def _check_next(self, certificate: Certificate) -> None:
        evidence = {"certificate": certificate.data}
        if self.epoch == 0 and certificate.previous != ZERO_HASH:
            raise CertificateError("the certificate of epoch 1 names one before it", evidence)
        if self.hash is not None and certificate.previous != self.hash:
            raise ForkError(
                f"the certificate of epoch {certificate.epoch} follows another one of epoch {self.epoch} than the one "
                f"that this client knows",
                side_by_side(self.last, certificate),
            )
        if self.mountains is not None and certificate.range_root != self.mountains.root():
            raise CertificateError(
                f"the certificate of epoch {certificate.epoch} names a wrong root of the former certificates", evidence
            )
        claim = self._claims.pop(certificate.epoch, None)
        if claim is not None and claim.hash != certificate.hash:
            raise contradiction(certificate, claim)

    def _accept(self, certificate: Certificate) -> None:
        if not self._run_incarnations or self._run_incarnations[-1] != certificate.incarnation:
            self._run_starts.append(certificate.epoch)
            self._run_incarnations.append(certificate.incarnation)
        self._recent[certificate.epoch] = certificate
        self._recent.pop(certificate.epoch - RECENT_MAX, None)
        if self.mountains is not None:
            self.mountains.append(certificate.hash)
        self.epoch, self.hash = certificate.epoch, certificate.hash
        self.last = certificate
        self._pass_gap()
