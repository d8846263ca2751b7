"""The session that operations are sent in: its lanes, its turn, its administration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvstore_client._crypto import SessionKeys
from kvstore_client._lane import Lane, Turn
from kvstore_client._messages import FormerSession, Role, ServerHello
from kvstore_client._operations import Operation
from kvstore_client._questions import AdminLine


@dataclass(slots=True)
class Current:
    """`incarnation` is empty, and `admin` None, for an unverified server."""

    role: Role
    incarnation: bytes
    turn: Turn
    lanes: list[Lane]
    former_key: bytes
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

    def waiting(self) -> Iterator[Operation]:
        """All operations that are in flight or queued."""
        for lane in self.lanes:
            for sent in lane.in_flight:
                yield from sent.operations
            yield from lane.queue

    @property
    def busy(self) -> bool:
        admin_busy = self.admin is not None and self.admin.pending
        return admin_busy or any(lane.queue or lane.in_flight for lane in self.lanes)

    def explains_rejection(self, thread: int, sequence: int) -> bool:
        """Whether a rejection is of an admin request that was sent twice, the first of which may have run."""
        admin = self.admin
        if admin is None or not admin.pending or admin.sequence != sequence:
            return False
        of_a_lane = thread < len(self.lanes) and any(sent.sequence == sequence for sent in self.lanes[thread].in_flight)
        return not of_a_lane and admin.rejected()
