"""The clock of one thread, its epochs, and the multisets of what it added from and evicted to Blum.

One epoch is *open* (clock.epoch = last verified + 1), or it is *closing* and the next has begun (+ 2). See
docs/verification.md, "Time and epochs".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from .check import check, holds, require
from .keys import ROOT, Key, comes_before
from .values import Value

U32_MAX = 2**32 - 1
THREADS_MAX = 64


class Moment(NamedTuple):
    """A timestamp. Ordered by epoch, then counter."""

    epoch: int
    counter: int


class Element(NamedTuple):
    """What is added to and evicted from Blum: a record, at a moment, by a thread."""

    key: Key
    value: Value
    ts: Moment
    thread: int


Multiset = Counter[Element]


class Clocks:
    """What the threads of one monitor share: how far each clock is, and which epoch is certified."""

    def __init__(self, certified: int) -> None:
        self.published = [Moment(certified + 1, 1)] * THREADS_MAX
        self.certified = certified


@dataclass
class Epochs:
    thread: int
    clocks: Clocks
    clock: Moment
    last_verified: int
    last_evict_key: Key | None = None
    """The last record evicted at `clock`. None, which comes before every key: there is none."""
    added: Multiset = field(default_factory=Counter)
    evicted: Multiset = field(default_factory=Counter)
    evicted_next: Multiset = field(default_factory=Counter)

    @property
    def open_epoch(self) -> int:
        return self.last_verified + 1

    @property
    def closing(self) -> bool:
        return self.clock.epoch != self.open_epoch

    def is_ahead_of_all(self, ts: Moment) -> bool:
        return ts > max(self.clock, *self.clocks.published)

    def advance(self, epoch: int, counter: int, key: Key) -> None:
        require(epoch <= U32_MAX and counter <= U32_MAX, "clock_overflow", key)
        self.clock = Moment(epoch, counter)
        self.last_evict_key = None
        self.clocks.published[self.thread] = self.clock

    def tick(self) -> None:
        self.advance(self.clock.epoch, self.clock.counter + 1, ROOT)

    def pass_moment(self, ts: Moment, key: Key) -> None:
        """Move the clock past a moment, if it is not."""
        if self.clock <= ts:
            self.advance(ts.epoch, ts.counter + 1, key)

    def may_add(self, key: Key, ts: Moment, thread: int) -> bool:
        """Check what is added from Blum. False: wait until the published clock of the other thread has passed."""
        check("add_blum_epoch_not_verified", ts.epoch > self.last_verified, "epoch_closed", key)
        check("add_blum_epoch_reached", ts.epoch <= self.clock.epoch, "epoch_in_future", key)
        in_closing = not self.closing or ts.epoch == self.open_epoch
        check("add_blum_epoch_is_closing", in_closing, "epoch_not_closing", key)
        require(thread < THREADS_MAX, "unknown_thread", key)
        return holds("add_blum_clock_passed", thread == self.thread or self.clocks.published[thread] > ts)

    def add(self, element: Element) -> None:
        self.added[element] += 1
        self.pass_moment(element.ts, element.key)

    def evict(self, key: Key, value: Value, ts: Moment) -> None:
        check("evict_in_epoch_of_clock", ts.epoch == self.clock.epoch, "timestamp_epoch", key)
        key_is_later = self.last_evict_key is None or comes_before(self.last_evict_key, key)
        is_later = ts > self.clock or (ts == self.clock and key_is_later)
        check("evict_later_than_before", is_later, "timestamp_not_increasing", key)
        evicted = self.evicted_next if self.closing else self.evicted
        evicted[Element(key, value, ts, self.thread)] += 1
        self.clock = ts
        self.last_evict_key = key
        self.clocks.published[self.thread] = ts

    def next_epoch(self) -> bool:
        """Begin to close the open epoch. False, and nothing done: the one before it is not certified."""
        check("next_epoch_once", not self.closing, "epoch_already_closing")
        if self.clocks.certified < self.last_verified:
            return False
        self.advance(self.clock.epoch + 1, 0, ROOT)
        return True

    def check_verify(self) -> None:
        at_start = self.closing and self.clock.counter == 0
        check("verify_epoch_clock_at_start", at_start, "epoch_not_closing_yet")

    def verify_epoch(self) -> tuple[int, Multiset, Multiset, Multiset]:
        """Hand the closing epoch over, and open the next: epoch, added, evicted, evicted in the next."""
        handed_over = self.open_epoch, self.added, self.evicted, self.evicted_next
        self.added, self.evicted, self.evicted_next = Counter(), self.evicted_next.copy(), Counter()
        self.last_verified = self.open_epoch
        self.tick()
        return handed_over
