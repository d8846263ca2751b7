"""MACs: the tuple of what they are computed from. In the bytes of a log a MAC has a *name*, 16 bytes long."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from blake3 import blake3

MAC_BYTES = 16

REQUEST, RESUME, RECEIPT, RESUMED, LOG = "QSRTL"


@dataclass(frozen=True)
class Mac:
    key: bytes
    domain: str
    parts: tuple[bytes | Mac, ...]

    @cached_property
    def name(self) -> bytes:
        content = b"".join(part.name if isinstance(part, Mac) else part for part in self.parts)
        return blake3(content + self.domain.encode(), key=self.key).digest()[:MAC_BYTES]
