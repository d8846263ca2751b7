"""Violations: what a monitor that has failed says about its host (protocol section 7), signed by its identity."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore_client._codec import Reader
from kvstore_client._crypto import SIGNATURE_BYTES, signed_by
from kvstore_client._errors import ProtocolError
from kvstore_client._refusals import TEXT_MAX

NO_THREAD = 65535
LEAF_DEPTH = 256

_MAGIC = b"ZKV1"

VIOLATION_NAMES = {
    1: "malformed_log",
    2: "slot_out_of_range",
    3: "slot_occupied",
    4: "slot_empty",
    5: "root_is_permanent",
    6: "key_not_allowed",
    7: "parent_not_internal",
    8: "not_an_ancestor",
    9: "value_not_initial",
    10: "hash_mismatch",
    11: "side_in_blum",
    12: "already_cached",
    13: "side_not_descendant",
    14: "child_cached",
    15: "side_names_other",
    16: "link_mismatch",
    17: "not_added_by_blum",
    18: "not_added_by_merkle",
    19: "epoch_closed",
    20: "epoch_in_future",
    21: "epoch_not_closing",
    22: "unknown_thread",
    23: "clock_not_passed",
    24: "timestamp_not_increasing",
    25: "timestamp_epoch",
    26: "clock_overflow",
    27: "request_in_progress",
    29: "epoch_not_closing_yet",
    30: "cache_not_empty",
    31: "no_request",
    32: "wrong_record",
    33: "not_absent",
    34: "carried_from_other",
    40: "epoch_mismatch",
    41: "rollback",
    42: "sealed_state_invalid",
    43: "bad_host_message",
    44: "log_changed",
    45: "not_replaying",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A verified violation.

    `thread` is None where none is to blame, `offset` counts bytes into that thread's log, `key_bits` of `key_depth`
    are the record's path in the tree (depth 256: a leaf, and `key_bits` is the hash of the application's key).
    """

    instance: bytes
    incarnation: bytes
    code: int
    thread: int | None
    epoch: int
    offset: int
    key_depth: int
    key_bits: bytes
    host_finding: str = ""
    """What the host adds, such as keys of records that look changed on its disk. Nobody has signed it: a hint."""

    @property
    def name(self) -> str:
        return VIOLATION_NAMES.get(self.code, f"violation_{self.code}")

    def describe(self) -> str:
        where = f"in epoch {self.epoch}"
        if self.thread is not None:
            where += f", thread {self.thread}, log offset {self.offset}"
        if self.key_depth == LEAF_DEPTH:
            where += f", key hash {self.key_bits.hex()}"
        elif self.key_depth:
            where += f", tree node at depth {self.key_depth}"
        added = f"; the host adds, unproved: {self.host_finding}" if self.host_finding else ""
        return f"the monitor reports a violation by the host: {self.name} (code {self.code}) {where}{added}"


class UnverifiedViolation:
    """A violation frame: the bytes of a violation, then the host's text. Raises ProtocolError if it is malformed."""

    def __init__(self, data: bytes) -> None:
        reader = Reader(data, "violation")
        if reader.take(4) != _MAGIC:
            raise ProtocolError("violation: wrong magic")
        instance, incarnation = reader.take(16), reader.take(16)
        code, thread, epoch, offset = reader.u16(), reader.u16(), reader.u32(), reader.u64()
        depth, bits = reader.u16(), reader.take(32)
        self._signature = reader.take(SIGNATURE_BYTES)
        self.signed = data[: reader.position()]
        host_finding = _printable(reader.rest())
        if depth > LEAF_DEPTH or (depth < LEAF_DEPTH and int.from_bytes(bits, "big") << depth & (1 << LEAF_DEPTH) - 1):
            raise ProtocolError("violation: a base key that is not canonical")
        self._violation = Violation(
            instance,
            incarnation,
            code,
            None if thread == NO_THREAD else thread,
            epoch,
            offset,
            depth,
            bits,
            host_finding,
        )

    def verify(self, identity: bytes) -> Violation:
        """Raises ProtocolError if the monitor did not sign it: then it is the host's invention, and says nothing."""
        if not signed_by(identity, self._signature, self.signed[:-SIGNATURE_BYTES]):
            raise ProtocolError("the server sent a violation that the monitor did not sign")
        return self._violation


def _printable(text: bytes) -> str:
    """The host's text, with nothing in it that a terminal would obey."""
    decoded = text.decode(errors="replace")[:TEXT_MAX]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in decoded)
