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

_FORMAT = "zetakv-state-1"


@dataclass(frozen=True, slots=True)
class Memory:
    """A certificate, and the range up to and including it, where it is known from epoch 1 on.

    `hashes`: of the last certificates of its chain, by epoch, as far as known.
    """

    certificate: Certificate
    mountains: MountainRange | None
    hashes: Mapping[int, bytes]

    @classmethod
    def of(cls, chain: Chain) -> Memory | None:
        if chain.last is None:
            return None
        mountains = chain.mountains
        copied = MountainRange(mountains.count, mountains.peaks) if mountains else None
        return cls(chain.last, copied, chain.recent_hashes())


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
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, ProtocolError, CertificateError) as error:
            raise StateError(
                f"{self.path}: damaged. Without it a rollback cannot be noticed; restore it, or delete it to begin anew"
            ) from error
        return Memory(certificate, mountains, {certificate.epoch: certificate.hash})

    def chain(self) -> Chain | None:
        """The chain to go on with. Raises StateError."""
        memory = self.load()
        return None if memory is None else Chain.after(self._identity, memory.certificate, memory.mountains)

    def save(self, memory: Memory) -> None:
        """Remember, unless the file is ahead. Raises ForkError if it is of another chain, StateError."""
        with locked_directory(self.path.parent):
            self._save(memory)

    def _save(self, memory: Memory) -> None:
        certificate, known = memory.certificate, self.load()
        if known is not None:
            ours = known.certificate
            if ours.instance != certificate.instance or memory.hashes.get(ours.epoch, ours.hash) != ours.hash:
                raise ForkError(
                    f"{self.path}: another run of a client has seen another chain of certificates",
                    {"certificate": ours.data, "other_certificate": certificate.data},
                )
            if ours.epoch >= certificate.epoch:
                return
        record = {
            "format": _FORMAT,
            "certificate": certificate.data.hex(),
            "range_peaks": [peak.hex() for peak in memory.mountains.peaks] if memory.mountains else None,
        }
        write_private(self.path, json.dumps(record, indent=2) + "\n")
