"""Changes of the model that no check tells of at once: the comparison of whole states must notice them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import keys
from .aggregator import Aggregator
from .cache import Cache
from .chain import Chain
from .epochs import Element, Epochs, Moment
from .keys import ROOT, Key
from .queue import Queue
from .sessions import Sessions
from .thread import Thread
from .values import Child

Change = tuple[type, str, Callable[..., Any]]


def _clock_that_stays(self: Epochs, ts: Moment, key: Key) -> None:
    if self.clock < ts:
        self.advance(ts.epoch, ts.counter + 1, key)


def _evict_unpublished(self: Epochs, key: Key, value: Any, ts: Moment) -> None:
    published = self.clocks.published[self.thread]
    _EVICT(self, key, value, ts)
    self.clocks.published[self.thread] = published


def _split_without_relinking(self: Cache, slot: int, parent: int, key: Key, child: Child) -> None:
    above = self.records[parent]
    side = keys.direction(above.key, key)
    linked, above.linked[side] = above.linked[side], None
    _SPLIT(self, slot, parent, key, child)
    if linked is not None:
        self.records[linked].parent = parent


def _hash_that_stays(self: Cache, slot: int, parent: int) -> None:
    record = self.records[slot]
    self.take_from(slot, parent, Child(record.key, self.book.hash(record.value)))


def _no_first_sequences(self: Queue) -> dict[int, int]:
    return {}


def _passed_on_trust(self: Epochs, ts: Moment) -> bool:
    return ts.epoch > self.clock.epoch


def _epoch_begun_at_its_start(self: Epochs) -> bool:
    has_begun = _NEXT(self)
    if has_begun:
        self.advance(self.clock.epoch, 0, ROOT)
    return has_begun


def _next_epoch_in_the_old_sums(self: Epochs) -> bool:
    sums = self.sums
    has_begun = _NEXT(self)
    self.sums = sums
    return has_begun


def _carried_without_a_trace(self: Epochs, element: Element) -> None:
    before = self.closing.sums.added.copy() if self.closing else Counter[Element]()
    _CARRY_OVER(self, element)
    assert self.closing is not None
    self.closing.sums.added = before


def _carried_as_it_was(self: Epochs, element: Element) -> None:
    before = self.closing.carried.copy() if self.closing else Counter[Element]()
    _CARRY_OVER(self, element)
    assert self.closing is not None
    self.closing.carried = before
    self.closing.carried[element] += 1


def _carried_at_once(self: Epochs, element: Element) -> None:
    _CARRY_OVER(self, element)
    assert self.closing is not None
    self.sums.evicted += self.closing.carried
    self.closing.carried.clear()


def _carrying_takes_time(self: Epochs, element: Element) -> None:
    _CARRY_OVER(self, element)
    self.tick()


def _forgotten_epoch(self: Epochs) -> Any:
    evicted = self.sums.evicted.copy()
    handed_over = _VERIFY(self)
    self.sums.evicted = evicted
    return handed_over


def _end_at_the_end(self: Thread) -> None:
    if self.end:
        self.end.root = self.cache.root
        self.end.tag = self.chain.tag if self.chain else None
    _VERIFY_OF_THREAD(self)


def _mark_that_stays(self: Chain, incarnation: bytes) -> None:
    latest = self.latest
    _MARK(self, incarnation)
    self.latest = latest


def _replayed_with_each_epoch(self: Chain) -> list[tuple[int, int]]:
    self.replayed_are_handed_over = False
    return _HAND_OVER_REPLAYED(self)


def _sessions_for_ever(self: Sessions, first_waiting: dict[int, int]) -> list[tuple[int, int]]:
    before = dict(self.sessions)
    handed_over = _HAND_OVER(self, first_waiting)
    self.sessions = before
    return handed_over


def _everybodys_keys(self: Chain, key_hash: bytes) -> bool:
    return True


def _everything_holds(self: Aggregator) -> Any:
    for snapshot in self.snapshots.values():
        snapshot.evicted = snapshot.added
    return _CONCLUDE(self)


def _failure_without_place(self: Thread, check: str, code: str, key: Key) -> Any:
    self.offset = 0
    return _FAIL(self, check, code, key)


_EVICT, _NEXT, _CARRY_OVER, _VERIFY = Epochs.evict, Epochs.next_epoch, Epochs.carry_over, Epochs.verify_epoch
_SPLIT, _MARK, _HAND_OVER, _HAND_OVER_REPLAYED = Cache.split, Chain.mark, Sessions.hand_over, Chain.hand_over
_VERIFY_OF_THREAD, _FAIL, _CONCLUDE = Thread.verify_epoch, Thread.fail, Aggregator.conclude

CHANGES: dict[str, Change] = {
    "the clock does not pass what is added at it": (Epochs, "pass_moment", _clock_that_stays),
    "evictions are not published": (Epochs, "evict", _evict_unpublished),
    "an epoch begins at its counter 0": (Epochs, "next_epoch", _epoch_begun_at_its_start),
    "the next epoch goes on with the sums of the closing one": (Epochs, "next_epoch", _next_epoch_in_the_old_sums),
    "a client may name any moment of an epoch that some thread has left": (Epochs, "is_for_later", _passed_on_trust),
    "what is carried over stays where it was, too": (Epochs, "carry_over", _carried_without_a_trace),
    "what is carried over keeps its moment": (Epochs, "carry_over", _carried_as_it_was),
    "what is carried over is evicted before the epoch is handed over": (Epochs, "carry_over", _carried_at_once),
    "to carry over moves the clock": (Epochs, "carry_over", _carrying_takes_time),
    "what was carried over is forgotten": (Epochs, "verify_epoch", _forgotten_epoch),
    "an epoch ends when it is handed over": (Thread, "verify_epoch", _end_at_the_end),
    "a split does not link what was linked": (Cache, "split", _split_without_relinking),
    "a parent keeps the hash of what is in Blum": (Cache, "evict_to_blum", _hash_that_stays),
    "what waits is handed over as done": (Queue, "first_sequences", _no_first_sequences),
    "closed sessions are kept": (Sessions, "hand_over", _sessions_for_ever),
    "what was replayed is handed over with each epoch": (Chain, "hand_over", _replayed_with_each_epoch),
    "no mark is the latest": (Chain, "mark", _mark_that_stays),
    "all keys are in all partitions": (Chain, "owns", _everybodys_keys),
    "every epoch holds": (Aggregator, "conclude", _everything_holds),
    "a failure has no place": (Thread, "fail", _failure_without_place),
}


@contextmanager
def changed(name: str) -> Iterator[None]:
    """The model with one change."""
    owner, method, change = CHANGES[name]
    original = getattr(owner, method)
    setattr(owner, method, change)
    try:
        yield
    finally:
        setattr(owner, method, original)
