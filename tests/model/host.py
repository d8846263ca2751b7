"""An honest host over a small tree: it moves records between caches, Blum and Merkle as an entry needs them.

It reads the state of the model's threads, as a prover mirrors that of its verifier thread; whatever it writes must be
accepted, by the model and so by the verifier. Choices are random.
"""

from __future__ import annotations

from random import Random

from . import entries
from .book import Book
from .cache import Record
from .epochs import Element, Moment
from .keys import ROOT, Key, direction, is_ancestor
from .monitor import Monitor
from .steps import Process, Step
from .thread import Thread
from .values import Child, Node, Null, Unknown, Value

LEAF_DEPTH = 3


class OutOfReach(Exception):  # noqa: N818  not an error
    """A thread needs a record that is in another epoch than its own. What has been written until now stays honest."""


class Host:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.book = Book()
        self.monitor = Monitor(LEAF_DEPTH, self.book)
        self.script: list[Step] = []
        self.blum: dict[Key, Element] = {}
        """What was evicted to Blum and not added since. What a thread is to carry over is in the next epoch already."""
        self.owed: dict[int, list[Element]] = {}
        """What each thread has still to carry over."""
        self.carried: dict[Key, Element] = {}
        """What is in Blum at the end of the closing epoch, as it is in the next."""

    @property
    def threads(self) -> list[Thread]:
        return self.monitor.threads

    def do(self, step: Step) -> list[str]:
        self.script.append(step)
        return self.monitor.do(step)

    def write(self, thread: Thread, *log: entries.Entry) -> bytes:
        """One piece of log, which is accepted. Returns the outputs."""
        encoded = b"".join(entry.encode() for entry in log)
        progress, outputs = self.do(Process(thread.number, encoded))
        assert progress == "done", f"an honest host is accused: {progress}, {log}"
        return b"" if outputs == "none" else bytes.fromhex(outputs)

    # Where records are

    def cached_by(self, key: Key) -> tuple[Thread, int] | None:
        """The thread and the slot of a cached record."""
        for thread in self.threads:
            for slot, record in thread.cache.records.items():
                if record.key == key:
                    return thread, slot
        return None

    def value_of(self, child: Child) -> Value:
        """The present value of a record that a side names."""
        cached = self.cached_by(child.key)
        if cached:
            thread, slot = cached
            return thread.cache.records[slot].value
        if child.key in self.blum:
            return self.blum[child.key].value
        assert child.hash is not None
        assert not isinstance(child.hash, Unknown)
        return child.hash  # the hash of a value is the value

    def nearest(self, key: Key) -> tuple[Key, Child | None]:
        """The lowest record strictly above a key, and what its side names in that direction."""
        above: Key = ROOT
        value: Value | None = self.threads[0].cache.root
        while True:
            assert isinstance(value, Node)
            child = value.sides[direction(above, key)]
            if child is None or not is_ancestor(child.key, key):
                return above, child
            above, value = child.key, self.value_of(child)

    # Moving records

    def free_slot(self, thread: Thread, pinned: set[Key]) -> int:
        """An empty slot; if there is none, a record that is not pinned makes room."""
        free = [slot for slot in range(thread.cache.slots) if slot not in thread.cache.records]
        if free:
            return self.random.choice(free)
        slot = self.random.choice(self.evictable(thread, pinned))
        self.evict(thread, slot)
        return slot

    def evictable(self, thread: Thread, pinned: set[Key]) -> list[int]:
        return [
            slot
            for slot, record in thread.cache.records.items()
            if record.key != ROOT and record.key not in pinned and record.linked == [None, None]
        ]

    def next_moment(self, thread: Thread) -> Moment:
        """A moment at which a thread may evict a record."""
        clock = thread.epochs.clock
        return Moment(clock.epoch, clock.counter + self.random.choice([1, 1, 1, 2, 4]))

    def evict(self, thread: Thread, slot: int, *, to_blum: bool | None = None) -> None:
        """Evict a record, to wherever it may go (None: to either)."""
        record = thread.cache.records[slot]
        parent = record.parent if record.parent is not None else self.parent_for(thread, record)
        if to_blum is None:
            to_blum = parent is None or self.random.random() < 0.5
        if not to_blum:
            assert parent is not None
            self.write(thread, entries.EvictMerkle(slot, parent))
            return
        ts = self.next_moment(thread)
        element = Element(record.key, record.value, ts, thread.number)
        if record.parent is None:
            self.write(thread, entries.EvictBlum(slot, ts))
        else:
            self.write(thread, entries.EvictBlumMerkle(slot, record.parent, ts))
        self.blum[record.key] = element

    def parent_for(self, thread: Thread, record: Record) -> int | None:
        """The slot of a cached node that a record from Blum can be evicted to by Merkle."""
        above, child = self.nearest(record.key)
        for slot, other in thread.cache.records.items():
            if other.key == above and child and child.key == record.key:
                return slot
        return None

    def evict_subtree(self, thread: Thread, slot: int) -> None:
        """Evict a record to Blum, after all that is linked below it."""
        for child in thread.cache.records[slot].linked:
            if child is not None:
                self.evict_subtree(thread, child)
        self.evict(thread, slot, to_blum=True)

    def add_blum(self, thread: Thread, key: Key, pinned: set[Key]) -> int:
        if self.blum[key].ts.epoch < thread.epochs.clock.epoch:
            self.promise(key)
        element = self.blum[key]
        if element.ts.epoch > thread.epochs.clock.epoch:
            raise OutOfReach
        owner = self.threads[element.thread] if element.thread < len(self.threads) else thread
        if owner is not thread and owner.epochs.clock <= element.ts:
            self.write(owner, entries.Tick())
        slot = self.free_slot(thread, pinned | {key})
        self.write(thread, entries.AddBlum(slot, element.ts, element.thread, key, element.value))
        del self.blum[key]
        return slot

    def bring(self, thread: Thread, key: Key, pinned: set[Key]) -> int:
        """Get a record into the cache of a thread, a new one if it must be. Returns its slot."""
        cached = self.cached_by(key)
        if cached and cached[0] is thread:
            return cached[1]
        if cached:
            self.check_same_epoch(thread, cached[0])
            self.evict_subtree(*cached)
        if key not in self.blum:
            above, _ = self.nearest(key)
            home = self.threads[0] if above == ROOT else thread
            self.check_same_epoch(thread, home)
            slot = self.add_merkle(home, above, key, pinned)
            if home is thread:
                return slot
            self.evict_subtree(home, slot)
        return self.add_blum(thread, key, pinned)

    def add_merkle(self, thread: Thread, above: Key, key: Key, pinned: set[Key]) -> int:
        """Add a record below one that is brought into the same cache."""
        pinned = pinned | {above, key}
        self.bring(thread, above, pinned)
        slot = self.free_slot(thread, pinned)
        parent = self.bring(thread, above, pinned)
        node = thread.cache.records[parent].value
        assert isinstance(node, Node)
        child = node.sides[direction(above, key)]
        initial: Value = Null() if len(key) == LEAF_DEPTH else Node()
        value = self.value_of(child) if child and child.key == key else initial
        if child and child.key != key and not is_ancestor(key, child.key):
            # another record is in the way: a node above both comes first
            common = next(key[:depth] for depth in range(len(key), -1, -1) if is_ancestor(key[:depth], child.key))
            self.write(thread, entries.AddMerkle(slot, parent, common, Node()))
            return self.add_merkle(thread, common, key, pinned)
        self.write(thread, entries.AddMerkle(slot, parent, key, value))
        return slot

    @staticmethod
    def check_same_epoch(one: Thread, other: Thread) -> None:
        """Whether records can go from one thread to the other."""
        if one.epochs.clock.epoch != other.epochs.clock.epoch:
            raise OutOfReach

    # Epochs

    def empty(self, thread: Thread) -> None:
        """Evict all that is cached."""
        while slots := self.evictable(thread, set()):
            self.evict(thread, self.random.choice(slots))

    def may_carry_over(self, thread: Thread) -> list[Key]:
        """What is in Blum in the closing epoch, and this thread may carry over."""
        if thread.epochs.closing is None:
            return []
        closing = thread.epochs.clock.epoch - 1
        return [
            key
            for key, element in self.blum.items()
            if element.ts.epoch == closing and (element.thread == thread.number or element.ts.counter == 0)
        ]

    def promise(self, key: Key, by: Thread | None = None) -> None:
        """Decide which thread carries a record over. From now on it is at the start of the next epoch."""
        carriers = [thread for thread in self.threads if key in self.may_carry_over(thread)]
        if not carriers:
            raise OutOfReach
        carrier = by or self.random.choice(carriers)
        element = self.blum[key]
        self.owed[carrier.number].append(element)
        start = Moment(element.ts.epoch + 1, 0)
        self.blum[key] = self.carried[key] = element._replace(ts=start, thread=carrier.number)

    def carry_over(self, thread: Thread) -> None:
        """One record that this thread owes, or another."""
        owed, others = self.owed[thread.number], self.may_carry_over(thread)
        if others and (not owed or self.random.random() < 0.5):
            self.promise(self.random.choice(others), thread)
        if owed:
            element = owed.pop(self.random.randrange(len(owed)))
            self.write(thread, entries.CarryOver(element.ts, element.thread, element.key, element.value))

    def hand_over(self, thread: Thread) -> None:
        """Hand the closing epoch over, after all that only this thread can carry over, and perhaps more."""
        epoch = thread.epochs.clock.epoch
        others = [other.epochs for other in self.threads if other is not thread]
        is_last = all(epochs.clock.epoch == epoch and epochs.closing is None for epochs in others)
        for key in self.may_carry_over(thread):
            if is_last or self.blum[key].ts.counter != 0 or self.random.random() < 0.5:
                self.promise(key, thread)
        while self.owed[thread.number]:
            self.carry_over(thread)
        self.write(thread, entries.VerifyEpoch())
