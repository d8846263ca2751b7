"""The clock of one thread, its epochs, and the multisets of what it added from and evicted to Blum.

The clock is in the epoch after the last verified one, or that epoch is *closing*, and the clock is in the next. See
docs/verification.md, "Time and epochs".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from .check import check, holds, require
from .keys import ROOT, Key
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
class Sums:
    """What a thread added and evicted with timestamps of one epoch."""

    added: Multiset = field(default_factory=Counter)
    evicted: Multiset = field(default_factory=Counter)


@dataclass
class Closing:
    """The closing epoch, and what was carried over into the next."""

    sums: Sums
    carried: Multiset = field(default_factory=Counter)


@dataclass
class Epochs:
    thread: int
    clocks: Clocks
    clock: Moment
    sums: Sums
    """Of the clock's epoch, but for what is carried over while `closing`."""
    closing: Closing | None = None

    def is_ahead_of_all(self, ts: Moment) -> bool:
        return ts > max(self.clock, *self.clocks.published)

    def is_for_later(self, ts: Moment) -> bool:
        """Whether no clock in this epoch has reached it: only the thread's next epoch is known to be after it."""
        return all(ts > clock for clock in (self.clock, *self.clocks.published) if clock.epoch <= self.clock.epoch)

    def advance(self, epoch: int, counter: int, key: Key) -> None:
        require(epoch <= U32_MAX and counter <= U32_MAX, "clock_overflow", key)
        self.clock = Moment(epoch, counter)
        self.clocks.published[self.thread] = self.clock

    def tick(self) -> None:
        self.advance(self.clock.epoch, self.clock.counter + 1, ROOT)

    def pass_moment(self, ts: Moment, key: Key) -> None:
        """Move the clock past a moment, if it is not."""
        if self.clock <= ts:
            self.advance(ts.epoch, ts.counter + 1, key)

    def may_add(self, key: Key, ts: Moment, thread: int) -> bool:
        """Check what is added from Blum. False: wait until the published clock of the other thread has passed."""
        check("add_blum_epoch_not_over", ts.epoch >= self.clock.epoch, "epoch_closed", key)
        check("add_blum_epoch_reached", ts.epoch <= self.clock.epoch, "epoch_in_future", key)
        require(thread < THREADS_MAX, "unknown_thread", key)
        return holds("add_blum_clock_passed", thread == self.thread or self.clocks.published[thread] > ts)

    def add(self, element: Element) -> None:
        self.sums.added[element] += 1
        self.pass_moment(element.ts, element.key)

    def evict(self, key: Key, value: Value, ts: Moment) -> None:
        check("evict_in_epoch_of_clock", ts.epoch == self.clock.epoch, "timestamp_epoch", key)
        check("evict_later_than_before", ts > self.clock, "timestamp_not_increasing", key)
        self.sums.evicted[Element(key, value, ts, self.thread)] += 1
        self.clock = ts
        self.clocks.published[self.thread] = ts

    def carry_over(self, element: Element) -> None:
        """A record goes over from the closing epoch, in which `element` was evicted last, to the start of the next."""
        key, _, ts, thread = element
        require(thread < THREADS_MAX, "unknown_thread", key)
        require(self.closing is not None, "epoch_not_closing", key)
        assert self.closing is not None
        start = Moment(self.clock.epoch, 0)
        check("carry_over_from_closing_epoch", ts.epoch == start.epoch - 1, "epoch_not_closing", key)
        check("carry_over_settled", thread == self.thread or ts.counter == 0, "carried_from_other", key)
        self.closing.sums.added[element] += 1
        self.closing.carried[element._replace(ts=start, thread=self.thread)] += 1

    def next_epoch(self) -> bool:
        """Begin to close the clock's epoch. False, and nothing done: the one before it is not certified."""
        if self.clocks.certified < self.clock.epoch - 1:
            return False
        self.advance(self.clock.epoch + 1, 1, ROOT)
        self.closing, self.sums = Closing(self.sums), Sums()
        return True

    def verify_epoch(self) -> tuple[int, Closing]:
        """Hand the closing epoch over."""
        require(self.closing is not None, "epoch_not_closing_yet")
        assert self.closing is not None
        closing, self.closing = self.closing, None
        self.sums.evicted += closing.carried
        return self.clock.epoch - 1, closing
