"""Heads: the end of a monitor's chain of certificates, in a short form that clients can mail to each other and compare.

A head is a certificate, so whoever has the monitor's fingerprint can check it. Two different certificates of one
instance and epoch are a proof that the store was forked: no honest monitor signs both. What can be told of two heads
without a server is told by `compare_heads`; `KV.compare` follows the chain between them, and so always decides.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from kvstore_client._certificates import (
    CERTIFICATES_MAX,
    Certificate,
    Chain,
    Claim,
    UnverifiedCertificate,
    contradiction,
    side_by_side,
)
from kvstore_client._errors import ForkError, KVStoreError, ProtocolError
from kvstore_client._frames import encode_certificates
from kvstore_client._local import parse_fingerprint

_PREFIX = "zetakv-head-1:"


class Relation(Enum):
    """How another client's head stands to this one's."""

    SAME = "same"
    OLDER = "older"
    """It is older, and in this one's chain."""
    NEWER = "newer"
    """It was newer; by now this one's chain has come to it."""
    UNDECIDED = "undecided"
    """Only without a server: the epochs between are not at hand; nothing contradicts."""
    OTHER_INSTANCE = "other instance"
    """Only without a server: it is of another store of the monitor, or of this one after an operator's override."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last certificate of a chain, verified. `str(head)` is its short form, 238 characters; `parse` reads it."""

    instance: bytes
    epoch: int
    incarnation: bytes
    hash: bytes
    certificate: bytes

    @classmethod
    def of(cls, certificate: Certificate) -> Head:
        return cls(certificate.instance, certificate.epoch, certificate.incarnation, certificate.hash, certificate.data)

    @classmethod
    def parse(cls, text: str, fingerprint: str) -> Head:
        """Read a short form; white space, as mail adds it, does not matter.

        Raises ValueError if it is none, CertificateError if the monitor with this fingerprint did not sign it.
        """
        return cls.of(verified_head(text, parse_fingerprint(fingerprint)))

    def __str__(self) -> str:
        return _PREFIX + base64.urlsafe_b64encode(self.certificate).decode()


def compare_heads(fingerprint: str, ours: Head | str, theirs: Head | str) -> Relation:
    """What two heads of one monitor prove about each other, without a server.

    Heads of neighbouring epochs are decided as well, since each certificate names the one before it.
    Raises ForkError, with both certificates, if they contradict each other; ValueError and CertificateError as `parse`.
    """
    identity = parse_fingerprint(fingerprint)
    first, second = verified_head(ours, identity), verified_head(theirs, identity)
    if first.hash == second.hash:
        return Relation.SAME
    older, newer = sorted((first, second), key=lambda certificate: certificate.epoch)
    if newer.epoch == older.epoch + 1 and newer.previous == older.hash:
        return Relation.OLDER if second is older else Relation.NEWER
    if first.instance != second.instance:
        return Relation.OTHER_INSTANCE
    if newer.epoch - older.epoch > 1:
        return Relation.UNDECIDED
    if newer.epoch == older.epoch:
        raise contradiction(first, second)
    raise ForkError(
        f"the certificate of epoch {newer.epoch} names another one of epoch {older.epoch}: the store was forked",
        side_by_side(first, second),
    )


def verified_head(head: Head | str, identity: bytes) -> Certificate:
    """The certificate that a head is. Raises ValueError, CertificateError."""
    data = head.certificate if isinstance(head, Head) else _decode(head)
    try:
        return UnverifiedCertificate(data).verify(identity)
    except ProtocolError as error:
        raise ValueError(f"not a head: {error}") from error


def _decode(text: str) -> bytes:
    compact = "".join(text.split())
    if not compact.startswith(_PREFIX):
        raise ValueError(f"not a head: it begins with {_PREFIX}, as `zetakv head` prints it")
    try:
        return base64.b64decode(compact.removeprefix(_PREFIX), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not a head: a part of it is missing or changed") from None


Settle = Callable[[Relation | None, KVStoreError | None], None]


class Comparison:
    """One head of another client, on its way to a verdict against a session's chain; sans I/O.

    A newer head becomes a claim on the chain, which has to meet it. For one older than the certificates that are
    kept, those between are asked for page by page, from the newest down: each is vouched for by the one after it.
    """

    def __init__(self, theirs: Certificate, chain: Chain, settle: Settle) -> None:
        """Raises ForkError, RollbackError: a newer head may contradict the chain as it is."""
        self._theirs = theirs
        self._chain = chain
        self._settle = settle
        self._relation = Relation.SAME
        self._is_paging = False
        self._lowest: Certificate | None = None
        self._page: list[UnverifiedCertificate] = []
        self._page_first = self._page_end = 0
        if theirs.epoch > chain.epoch:
            self._relation = Relation.NEWER
            chain.claim(Claim.of_certificate(theirs), 0)
        elif theirs.epoch < chain.epoch:
            self._relation = Relation.OLDER

    def advance(self) -> bytes | None:
        """After the chain has grown. Settles if it can; else the frame that asks for what is missing, if that helps.

        Raises ForkError.
        """
        if self._is_paging or self._chain.epoch < self._theirs.epoch:
            return None
        if self._chain.hash_of(self._theirs.epoch) is not None:
            self._decide(None)
            return None
        self._is_paging = True
        return self.ask()

    def ask(self) -> bytes | None:
        """On a new connection, or for the next page: the frame that asks for certificates, if any are missing."""
        if not self._is_paging:
            return self.advance()
        self._page.clear()
        # A chain that begins with an override has no certificate yet.
        self._lowest = self._lowest or self._chain.oldest
        self._page_end = self._chain.epoch + 1 if self._lowest is None else self._lowest.epoch
        while (gap := self._chain.gap_before(self._page_end)) is not None and gap == self._page_end - 1:
            self._page_end = gap
        self._page_first = max(self._theirs.epoch, self._page_end - CERTIFICATES_MAX, (gap or 0) + 1)
        return encode_certificates(self._page_first, self._page_end - self._page_first)

    def takes(self, unverified: UnverifiedCertificate) -> bool:
        """Whether it is the next one of those that were asked for; then `take` it."""
        return unverified.epoch == self._page_first + len(self._page) < self._page_end

    def take(self, unverified: UnverifiedCertificate) -> bytes | None:
        """As `advance`. Raises CertificateError, ForkError."""
        self._page.append(unverified)
        if unverified.epoch + 1 < self._page_end:
            return None
        for before in reversed(self._page):
            self._lowest = self._chain.named_before(self._lowest, before)
        assert self._lowest is not None, "a page is not empty"
        if self._lowest.epoch > self._theirs.epoch:
            return self.ask()
        self._decide(self._lowest)
        return None

    def fail(self, error: KVStoreError) -> None:
        self._settle(None, error)

    def _decide(self, ours: Certificate | None) -> None:
        """`ours`: of the same epoch; None if the chain has it."""
        self._chain.meet(self._theirs, ours)
        self._settle(self._relation, None)
