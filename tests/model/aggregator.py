"""Whether an epoch holds: over all threads, what was added from Blum is what was evicted to it."""

from __future__ import annotations

from dataclasses import dataclass

from .epochs import Multiset
from .macs import Mac
from .thread import Snapshot
from .values import Node


@dataclass
class HeldEpoch:
    """What the sealed state of an epoch holds."""

    epoch: int
    carried: Multiset
    """Over all threads, what is in Blum at the epoch's end, as it is in the next."""
    root: Node
    sessions: dict[int, list[int]]
    """Of each session, the last sequence on each thread."""
    tags: list[Mac]


class Aggregator:
    def __init__(self, threads: int, first_epoch: int) -> None:
        self.threads = threads
        self.epoch = first_epoch
        self.snapshots: dict[int, Snapshot] = {}
        self.failed = False

    def submit(self, snapshot: Snapshot) -> HeldEpoch | None:
        """The epoch, when all snapshots of it are in and it holds. Sets `failed` if it does not."""
        if snapshot.epoch != self.epoch or snapshot.thread in self.snapshots:
            self.failed = True
            return None
        self.snapshots[snapshot.thread] = snapshot
        return self.conclude() if len(self.snapshots) == self.threads else None

    def conclude(self) -> HeldEpoch | None:
        snapshots = [self.snapshots[thread] for thread in range(self.threads)]
        added, evicted, carried = Multiset(), Multiset(), Multiset()
        sessions: dict[int, list[int]] = {}
        for snapshot in snapshots:
            added += snapshot.added
            evicted += snapshot.evicted
            carried += snapshot.carried
            for session, sequence in snapshot.end.sessions:
                sessions.setdefault(session, [0] * self.threads)[snapshot.thread] = sequence
        root = next((snapshot.end.root for snapshot in snapshots if snapshot.end.root is not None), None)
        if added != evicted or root is None:
            self.failed = True
            return None
        self.snapshots = {}
        self.epoch += 1
        tags = [snapshot.end.tag for snapshot in snapshots if snapshot.end.tag is not None]
        return HeldEpoch(self.epoch - 1, carried, root, sessions, tags)
