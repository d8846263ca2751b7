"""What a client remembers of a monitor between runs: the last certificate, so that a rollback cannot go unnoticed.

A state is a directory with one file per monitor, `<fingerprint>.json`, mode 0600, replaced atomically and synced.
Several clients may share it: an older certificate never replaces a newer one, and a chain that does not hold the
remembered certificate is refused, as far back as a client keeps hashes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from kvstore_client._certificates import Certificate, Chain, MountainRange, UnverifiedCertificate
from kvstore_client._errors import CertificateError, ForkError, ProtocolError, StateError
from kvstore_client._files import locked_directory, read_private, write_private
from kvstore_client._overrides import Override, instance_at, leading_to

_FORMAT = "zetakv-state-1"


@dataclass(frozen=True, slots=True)
class Memory:
    """A certificate, and the range up to and including it, where it is known from epoch 1 on.

    `hashes`: of the last certificates of its chain, by epoch, as far as known. `overrides`: those that led to its
    instance. `accepted`: the user has accepted that it replaces another chain.
    """

    certificate: Certificate
    mountains: MountainRange | None
    hashes: Mapping[int, bytes]
    overrides: tuple[Override, ...] = ()
    accepted: bool = False

    @classmethod
    def of(cls, chain: Chain) -> Memory | None:
        """None before the first certificate, and where the chain has just passed an epoch without its certificate."""
        if chain.last is None or chain.last.epoch != chain.epoch:
            return None
        mountains = chain.mountains
        copied = MountainRange(mountains.count, mountains.peaks) if mountains else None
        return cls(chain.last, copied, chain.recent_hashes(), chain.overrides, chain.accepted)

    def has_room_for(self, other: Certificate) -> bool:
        """Whether `other`, of this epoch or an earlier one, may be in the same chain, as far as is known here."""
        certificate = self.certificate
        expected = instance_at(self.overrides, certificate.instance, other.epoch)
        return other.instance == expected and self.hashes.get(other.epoch, other.hash) == other.hash


class StateFile:
    """The file of one monitor in a state directory."""

    def __init__(self, directory: str | PathLike[str], identity: bytes) -> None:
        self._identity = identity
        self.path = Path(directory) / f"{identity.hex()}.json"

    def load(self) -> Memory | None:
        """What is remembered; None at first. Raises StateError if the file is damaged or open to others."""
        try:
            record = json.loads(read_private(self.path))
            if record["format"] != _FORMAT:
                raise ValueError("unknown format")
            certificate = UnverifiedCertificate(bytes.fromhex(record["certificate"])).verify(self._identity)
            peaks = record["range_peaks"]
            mountains = None
            if peaks is not None:
                mountains = MountainRange(certificate.epoch, [bytes.fromhex(peak) for peak in peaks])
            overrides = tuple(Override.read(bytes.fromhex(statement)) for statement in record["overrides"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, ProtocolError, CertificateError) as error:
            raise StateError(
                f"{self.path}: damaged. Without it a rollback cannot be noticed; restore it, or delete it to begin anew"
            ) from error
        return Memory(certificate, mountains, {certificate.epoch: certificate.hash}, overrides)

    def chain(self) -> Chain | None:
        """The chain to go on with. Raises StateError."""
        memory = self.load()
        if memory is None:
            return None
        return Chain.after(self._identity, memory.certificate, memory.mountains, memory.overrides)

    def accepted(self) -> bytes | None:
        """The instance that the user has accepted in place of the remembered chain's, until it has a certificate."""
        try:
            accepted = json.loads(read_private(self.path)).get("accepted")
            return None if accepted is None else bytes.fromhex(accepted)
        except (FileNotFoundError, ValueError, AttributeError, TypeError):
            return None  # `load` tells what is wrong with it

    def accept(self, instance: bytes) -> None:
        """Remember that the user has accepted an override. Raises StateError."""
        with locked_directory(self.path.parent):
            if self.load() is not None:
                record = json.loads(read_private(self.path)) | {"accepted": instance.hex()}
                write_private(self.path, json.dumps(record, indent=2) + "\n")

    def save(self, memory: Memory) -> None:
        """Remember, unless the file is ahead. Raises ForkError if it is of another chain, StateError."""
        with locked_directory(self.path.parent):
            self._save(memory)

    def _save(self, memory: Memory) -> None:
        certificate, known = memory.certificate, self.load()
        if known is not None:
            ours = known.certificate
            ahead = ours.epoch >= certificate.epoch
            in_one_chain = known.has_room_for(certificate) if ahead else memory.has_room_for(ours)
            if not in_one_chain and not memory.accepted:
                raise ForkError(
                    f"{self.path}: another run of a client has seen another chain of certificates",
                    {"certificate": ours.data, "other_certificate": certificate.data},
                )
            if ahead and in_one_chain:
                return
        record = {
            "format": _FORMAT,
            "certificate": certificate.data.hex(),
            "overrides": [override.statement.hex() for override in leading_to(memory.overrides, certificate.instance)],
            "range_peaks": [peak.hex() for peak in memory.mountains.peaks] if memory.mountains else None,
        }
        write_private(self.path, json.dumps(record, indent=2) + "\n")
