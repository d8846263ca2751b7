"""The session that operations are sent in: its lanes, its turn, its administration."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstore_client._crypto import SessionKeys
from kvstore_client._lane import Lane, Turn
from kvstore_client._messages import FormerSession, Role, ServerHello
from kvstore_client._operations import Operation
from kvstore_client._questions import AdminLine

ADMIN_LINE = -1
"""Number of the administration among the lines, where lanes have those of their threads."""


@dataclass(slots=True)
class Current:
    """`incarnation` is empty, and `admin` None, for an unverified server."""

    role: Role
    incarnation: bytes
    turn: Turn
    lanes: list[Lane]
    former_key: bytes = field(repr=False)
    admin: AdminLine | None

    @classmethod
    def of_hello(cls, hello: ServerHello, keys: SessionKeys, after_ts: int, epoch_min: int) -> Current:
        turn = Turn(hello.session, 1, after_ts, epoch_min)
        lanes = [Lane(thread, keys.request(thread), keys.receipt(thread), turn) for thread in range(hello.threads)]
        return cls(hello.role, hello.incarnation, turn, lanes, keys.former, AdminLine(keys.admin, hello.session))

    @classmethod
    def of_unverified(cls, workers: int) -> Current:
        turn = Turn(session=0, generation=1, after_ts=0, epoch_min=0)
        return cls(Role.WRITE, b"", turn, [Lane(thread, None, None, turn) for thread in range(workers)], b"", None)

    def lane_of(self, operation: Operation) -> Lane:
        """The thread of a key is the first log2(threads) bits of its hash."""
        return self.lanes[operation.key_hash[0] * len(self.lanes) >> 8]

    def as_former(self) -> FormerSession:
        return FormerSession(self.incarnation, self.turn.session, self.former_key)

    @property
    def busy(self) -> bool:
        return any(line.busy for line in self.lines().values())

    def lines(self) -> dict[int, Lane | AdminLine]:
        """What settles calls, each at its own pace: lanes by thread, and the administration."""
        lines: dict[int, Lane | AdminLine] = dict(enumerate(self.lanes))
        if self.admin is not None:
            lines[ADMIN_LINE] = self.admin
        return lines

    def explains_rejection(self, thread: int, sequence: int) -> bool:
        """Whether a rejection is of an admin request that was sent twice, the first of which may have run."""
        if self.admin is None:
            return False
        of_a_lane = thread < len(self.lanes) and any(sent.sequence == sequence for sent in self.lanes[thread].in_flight)
        return not of_a_lane and self.admin.explains(sequence)
