"""Changes of the model that no check tells of at once: the comparison of whole states must notice them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import keys
from .cache import Cache
from .chain import Chain
from .epochs import Epochs, Moment
from .keys import Key
from .queue import Queue
from .sessions import Sessions
from .thread import Thread
from .values import Child

Change = tuple[type, str, Callable[..., Any]]


def _clock_that_stays(self: Epochs, ts: Moment, key: Key) -> None:
    if self.clock < ts:
        self.advance(ts.epoch, ts.counter + 1, key)


def _moment_that_keeps_its_key(self: Epochs, epoch: int, counter: int, key: Key) -> None:
    last = self.last_evict_key
    _ADVANCE(self, epoch, counter, key)
    self.last_evict_key = last


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


def _forgotten_epoch(self: Epochs) -> Any:
    evicted_next = self.evicted_next
    handed_over = _VERIFY(self)
    self.evicted = type(evicted_next)()
    return handed_over


def _mark_that_stays(self: Chain, incarnation: bytes) -> None:
    latest = self.latest
    _MARK(self, incarnation)
    self.latest = latest


def _sessions_for_ever(self: Sessions, first_waiting: dict[int, int]) -> list[tuple[int, int]]:
    before = dict(self.sessions)
    handed_over = _HAND_OVER(self, first_waiting)
    self.sessions = before
    return handed_over


def _everybodys_keys(self: Chain, key_hash: bytes) -> bool:
    return True


def _failure_without_place(self: Thread, check: str, code: str, key: Key) -> Any:
    self.offset = 0
    return _FAIL(self, check, code, key)


_ADVANCE, _EVICT, _VERIFY = Epochs.advance, Epochs.evict, Epochs.verify_epoch
_SPLIT, _MARK, _HAND_OVER, _FAIL = Cache.split, Chain.mark, Sessions.hand_over, Thread.fail

CHANGES: dict[str, Change] = {
    "the clock does not pass what is added at it": (Epochs, "pass_moment", _clock_that_stays),
    "a new moment remembers the last key": (Epochs, "advance", _moment_that_keeps_its_key),
    "evictions are not published": (Epochs, "evict", _evict_unpublished),
    "the drain is forgotten": (Epochs, "verify_epoch", _forgotten_epoch),
    "a split does not link what was linked": (Cache, "split", _split_without_relinking),
    "a parent keeps the hash of what is in Blum": (Cache, "evict_to_blum", _hash_that_stays),
    "what waits is handed over as done": (Queue, "first_sequences", _no_first_sequences),
    "closed sessions are kept": (Sessions, "hand_over", _sessions_for_ever),
    "no mark is the latest": (Chain, "mark", _mark_that_stays),
    "all keys are in all partitions": (Chain, "owns", _everybodys_keys),
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
