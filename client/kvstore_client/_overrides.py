"""Overrides of a rollback: the operator's signed decisions to go on from an older store (protocol section 5).

Each ends one instance at an epoch and begins another, which continues the chain of certificates from there. The
statements come in the monitor's signed hello; that one is signed by an admin is the monitor's word. An override says
that what was certified after its epoch is lost: so a client that has seen such a certificate never follows by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from kvstore_client._codec import Reader
from kvstore_client._crypto import SIGNATURE_BYTES, domain_hash, signed_by
from kvstore_client._errors import ProtocolError

OVERRIDES_MAX = 16

_MAGIC = b"ZKO1"
_SIGNED_DOMAIN = b"zetakv/1 override"
_TIME_MAX = 253402300799  # the last second of the year 9999, which is as far as calendars go


@dataclass(frozen=True, slots=True)
class Override:
    """An override. `epoch`: the last one that `new_instance` took over from `old_instance`; `head`: the hash of its
    certificate. `time`: seconds since 1970, by the operator's clock. `statement`: all of it, as signed by `admin_key`.
    """

    old_instance: bytes
    new_instance: bytes
    epoch: int
    head: bytes
    time: int
    admin_key: bytes
    reason: str
    statement: bytes

    @classmethod
    def read(cls, statement: bytes) -> Override:
        """Raises ProtocolError if the statement is malformed, or not signed by the key that it names."""
        reader = Reader(statement, "override")
        if reader.take(4) != _MAGIC:
            raise ProtocolError("override: wrong magic")
        old_instance, epoch, head = reader.take(16), reader.u32(), reader.take(32)
        reader.take(32 + 16)  # what the register held: of use to the monitor only
        time, admin_key = reader.u64(), reader.take(32)
        reason = reader.text(reader.u8())
        signed = statement[: reader.position()]
        signature = reader.take(SIGNATURE_BYTES)
        reader.end()
        if not reason or epoch == 0 or time > _TIME_MAX:
            raise ProtocolError("override: a field out of range")
        if not signed_by(admin_key, signature, _SIGNED_DOMAIN + signed):
            raise ProtocolError("override: not signed by the admin key that it names")
        new_instance = domain_hash("zetakv/1 instance", statement)[:16]
        return cls(old_instance, new_instance, epoch, head, time, admin_key, reason, statement)

    def describe(self) -> str:
        when = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return (
            f"the operator overrode a rollback on {when} (admin key {self.admin_key.hex()}; reason: {self.reason!r}): "
            f"what was certified after epoch {self.epoch} of instance {self.old_instance.hex()} is lost; "
            f"instance {self.new_instance.hex()} continues"
        )


def read_overrides(statements: Iterable[bytes], instance: bytes) -> tuple[Override, ...]:
    """All overrides of a store, the oldest first. Raises ProtocolError if they do not lead to `instance`."""
    overrides = tuple(Override.read(statement) for statement in statements)
    if len(overrides) > OVERRIDES_MAX:
        raise ProtocolError(f"{len(overrides)} overrides: at most {OVERRIDES_MAX} are possible")
    ends = [override.old_instance for override in overrides[1:]] + [instance]
    for override, following in zip(overrides, ends, strict=False):
        if override.new_instance != following:
            raise ProtocolError("the overrides do not continue each other up to the present instance")
    if any(later.epoch < earlier.epoch for earlier, later in pairwise(overrides)):
        raise ProtocolError("the overrides' epochs are not in order")
    return overrides


def instance_at(overrides: Sequence[Override], instance: bytes, epoch: int) -> bytes:
    """Which instance certified `epoch`, in the chain that leads over `overrides` to `instance`."""
    return next((override.old_instance for override in overrides if epoch <= override.epoch), instance)


def leading_to(overrides: Sequence[Override], instance: bytes) -> tuple[Override, ...]:
    """Those of the overrides that came before `instance`."""
    instances = [override.old_instance for override in overrides]
    return tuple(overrides[: instances.index(instance)]) if instance in instances else tuple(overrides)
