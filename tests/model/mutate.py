"""Scripts of a host that lies: honest ones with something dropped, repeated, swapped, moved, inserted or altered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from random import Random
from typing import Any

from . import entries, steps
from .book import Book
from .client import COMMITMENTS
from .entries import Entry
from .epochs import U32_MAX, Moment
from .host import LEAF_DEPTH
from .keys import Key
from .lies import KEYS, Liar
from .monitor import Monitor
from .steps import Process, Step
from .values import NO_HASH, Child, Node, Null, Unknown, Value
from .wire import Malformed, Reader

SLOTS = [*range(10), 15, 16, U32_MAX]
THREADS = [0, 0, 1, 1, 2, 63, 64, 65535]
EVICTS = entries.EvictMerkle | entries.EvictBlum | entries.EvictBlumMerkle
NEXT_EPOCH, VERIFY_EPOCH, CARRY_OVER = b"\x06", b"\x07", b"\x10"
"""How their entries begin."""
NEAR = 8
"""Steps between two pieces that are swapped, at the most."""


def decode(log: bytes, book: Book) -> list[Entry]:
    """The entries of a piece of log; none if it is malformed."""
    reader, found = Reader(log, book), []
    try:
        while not reader.is_at_end:
            found.append(reader.entry())
    except Malformed:
        return []
    return found


def split(script: list[Step], book: Book) -> list[Step]:
    """The same script, with one entry in each piece of log."""
    single: list[Step] = []
    for step in script:
        if isinstance(step, Process):
            single += [Process(step.thread, entry.encode()) for entry in decode(step.log, book)]
        else:
            single.append(step)
    return single


class Mutator:
    """Changes to one honest script."""

    def __init__(self, random: Random, script: list[Step], book: Book, leaf_depth: int) -> None:
        self.random = random
        self.script = script
        self.book = book
        self.leaf_depth = leaf_depth
        self.entries = [entry for step in script if isinstance(step, Process) for entry in decode(step.log, book)]
        self.keys: list[Key] = list(KEYS)
        self.values: list[Value] = [*COMMITMENTS, Node()]
        self.moments = [Moment(1, 0), Moment(0, U32_MAX)]
        self.names = [bytes(16)]
        """Tags and incarnations."""
        self.requests = [entry.request for entry in self.entries if isinstance(entry, entries.Request | entries.Replay)]
        for entry in self.entries:
            match entry:
                case entries.AddMerkle(key=key, value=value) | entries.AddBlum(key=key, value=value):
                    self.keys.append(key)
                    self.values.append(value)
                case entries.EvictBlum(ts=ts) | entries.EvictBlumMerkle(ts=ts):
                    self.moments.append(ts)
                case entries.CarryOver(ts=ts, key=key, value=value):
                    self.moments += [ts, Moment(ts.epoch + 1, 0)]
                    self.keys.append(key)
                    self.values.append(value)
                case entries.ReplayMark(name) | entries.EndReplay(name):
                    self.names.append(name)
        for value in self.values:
            book.hash(value)  # sides may name them

    def mutated(self) -> tuple[list[Step], int]:
        """A changed script, and where the first change is."""
        script, first = list(self.script), len(self.script)
        for _ in range(self.random.choice([1, 1, 1, 2, 3])):
            if not places(script):
                break
            change = self.random.choice(self.changes if self.leaf_depth in LIED_AT else self.plain_changes)
            first = min(first, change(self, script))
            script = possible(script)  # the next change may play it
        return script, first

    def place(self, script: list[Step]) -> int:
        """Where some piece of log is."""
        return self.random.choice(places(script))

    def some(self, found: list[int]) -> list[int]:
        """One of these, if there are any."""
        return self.random.sample(found, min(1, len(found)))

    def some_thread(self, script: list[Step]) -> int:
        """One that there is from every start on."""
        return self.random.randrange(min(step.threads for step in script if isinstance(step, steps.Start)))

    def now(self, script: list[Step], at: int) -> Monitor:
        """The monitor before a step."""
        monitor = Monitor(self.leaf_depth, self.book)
        monitor.follow(script[:at])
        return monitor

    # Changes: each returns the first place that it touches.

    def drop(self, script: list[Step]) -> int:
        at = self.place(script)
        del script[at]
        return at

    def drop_other(self, script: list[Step]) -> int:
        """Drop a step that is not the host's: what a client or the monitor does, or when."""
        others = [at for at, step in enumerate(script) if isinstance(step, steps.Certify | steps.Submit | steps.Close)]
        if not others:
            return len(script)
        at = self.random.choice(others)
        del script[at]
        return at

    def repeat(self, script: list[Step]) -> int:
        at = self.place(script)
        script.insert(self.random.randint(at, min(at + NEAR, len(script))), script[at])
        return at

    def swap(self, script: list[Step]) -> int:
        at = self.place(script)
        near = range(max(at - NEAR, 0), min(at + NEAR, len(script)))
        other = self.random.choice([place for place in near if isinstance(script[place], Process)])
        script[at], script[other] = script[other], script[at]
        return min(at, other)

    def move(self, script: list[Step]) -> int:
        """Give a piece to another thread."""
        at = self.place(script)
        script[at] = Process(self.some_thread(script), log_of(script[at]))
        return at

    def merge(self, script: list[Step]) -> int:
        """Make one piece of some of the same thread: a failure takes the outputs of all with it."""
        at = self.place(script)
        for _ in range(self.random.randint(1, NEAR)):
            first, second = script[at], script[at + 1] if at + 1 < len(script) else None
            if isinstance(first, Process) and isinstance(second, Process) and first.thread == second.thread:
                script[at : at + 2] = [Process(first.thread, first.log + second.log)]
        return at

    def insert(self, script: list[Step]) -> int:
        at = self.place(script)
        script.insert(at, Process(thread_of(script[at]), self.any_entry().encode()))
        return at

    def lie(self, script: list[Step]) -> int:
        """Insert entries that nearly fit the state of a thread at this moment."""
        closing = [at + 1 for at in places(script, NEXT_EPOCH, CARRY_OVER)]
        at = self.random.choice([self.place(script), self.place(script), len(script), *self.some(closing)])
        threads = self.now(script, at).threads
        if any(thread.failed for thread in threads):
            return len(script)
        weights = [len(thread.cache.records) + (5 if thread.epochs.closing else 1) for thread in threads]
        [thread] = self.random.choices(threads, weights)
        lies = Liar(self.random, thread, threads).lie()
        script[at:at] = [Process(thread.number, entry.encode()) for entry in lies]
        if self.random.random() < 0.2:
            script.insert(at + 1, steps.TimeOut(thread.number))
        return at

    def end_replay(self, script: list[Step]) -> int:
        """End a replay before it is complete, with the tag that it has come to."""
        found = places(script, *self.random.choice([(b"\x0d",), (b"\x0d", b"\x0e")]))
        if not found:
            return len(script)
        at = self.random.choice(found)
        thread = thread_of(script[at])
        chain = self.now(script, at).threads[thread].chain
        if chain:
            script.insert(at, Process(thread, entries.EndReplay(chain.tag.name).encode()))
        return at

    def over_the_cut(self, script: list[Step]) -> int:
        """Move a piece of a thread's log over its next_epoch or verify_epoch."""
        cuts = places(script, NEXT_EPOCH, VERIFY_EPOCH)
        if not cuts:
            return len(script)
        at = self.random.choice(cuts)
        near = range(max(at - 2 * NEAR, 0), min(at + 2 * NEAR, len(script)))
        found = [place for place in near if place != at and is_of_thread(script[place], thread_of(script[at]))]
        if not found:
            return len(script)
        piece = self.random.choice(found)
        script.insert(at, script.pop(piece))
        return min(at, piece)

    def carry_over(self, script: list[Step]) -> int:
        """Carry a record over otherwise, twice, by another thread, or not at all."""
        found = places(script, CARRY_OVER)
        if not found:
            return len(script)
        at = self.random.choice(found)
        match self.random.randrange(5):
            case 0:
                del script[at]
            case 1:
                script.insert(self.random.randint(at, min(at + NEAR, len(script))), script[at])
            case 2:
                script[at] = Process(self.some_thread(script), log_of(script[at]))
            case _:
                script[at] = self.with_last_altered(script[at])
        return at

    def splice(self, script: list[Step]) -> int:
        """Repeat what was written elsewhere, perhaps to another thread."""
        at = self.place(script)
        start = self.place(self.script)
        pieces = [step for step in self.script[start : start + self.random.randint(1, 4)] if isinstance(step, Process)]
        script[at:at] = [Process(thread_of(script[at]), piece.log) for piece in pieces]
        return at

    def alter(self, script: list[Step]) -> int:
        """Change one field of an entry."""
        at = self.place(script)
        script[at] = self.with_last_altered(script[at])
        return at

    def with_last_altered(self, step: Step) -> Process:
        log = log_of(step)
        for entry in decode(log, self.book)[-1:]:
            log = log.removesuffix(entry.encode()) + self.altered(entry).encode()
        return Process(thread_of(step), log)

    def alter_bytes(self, script: list[Step]) -> int:
        at = self.place(script)
        log = bytearray(log_of(script[at]))
        place = self.random.randrange(len(log) + 1)
        match self.random.randrange(3):
            case 0 if place < len(log):
                log[place] ^= 1 << self.random.randrange(8)
            case 1:
                del log[place:]
            case _:
                log[place:place] = self.random.randbytes(1)
        script[at] = Process(thread_of(script[at]), bytes(log))
        return at

    def another_evict(self, script: list[Step]) -> int:
        """Evict in another way."""
        pieces = [(at, decode(step.log, self.book)[:1]) for at, step in enumerate(script) if isinstance(step, Process)]
        found = [(at, entry) for at, first in pieces for entry in first if isinstance(entry, EVICTS)]
        if not found:
            return len(script)
        at, entry = self.random.choice(found)
        moment = self.random.choice(self.moments) if isinstance(entry, entries.EvictMerkle) else entry.ts
        parent = self.random.choice(SLOTS[:10]) if isinstance(entry, entries.EvictBlum) else entry.parent
        others: list[Entry] = [
            entries.EvictMerkle(entry.slot, parent),
            entries.EvictBlum(entry.slot, moment),
            entries.EvictBlumMerkle(entry.slot, parent, moment),
        ]
        script[at] = Process(thread_of(script[at]), self.random.choice(others).encode())
        return at

    plain_changes: tuple[Callable[[Mutator, list[Step]], int], ...] = (
        drop, drop, drop_other, repeat, swap, move, merge, insert, splice, alter, alter, alter_bytes, another_evict,
        end_replay, over_the_cut, carry_over,
    )  # fmt: skip
    changes = (*plain_changes, *10 * (lie,))

    # Entries and fields

    def any_entry(self) -> Entry:
        random = self.random
        slot, parent, moment = random.choice(SLOTS[:10]), random.choice(SLOTS[:10]), random.choice(self.moments)
        key, value = random.choice(self.keys), random.choice(self.values)
        request = random.choice(self.requests or [b""])
        choices: list[Entry] = [
            self.altered(random.choice(self.entries)),
            entries.AddMerkle(slot, parent, key, Null() if len(key) == self.leaf_depth else Node()),
            entries.AddMerkle(slot, parent, key, value),
            entries.AddBlum(slot, moment, random.choice(THREADS), key, value),
            entries.EvictMerkle(slot, parent),
            entries.EvictBlum(slot, moment),
            entries.EvictBlumMerkle(slot, parent, moment),
            entries.NextEpoch(),
            entries.CarryOver(moment, random.choice(THREADS), key, value),
            entries.VerifyEpoch(),
            entries.Tick(),
            entries.Request(request),
            entries.Run((slot,)),
            entries.Run((slot, parent)),
            entries.RunAbsent(parent),
            entries.ReplayMark(random.choice(self.names)),
            entries.Replay(random.randrange(4), request),
            entries.EndReplay(random.choice(self.names)),
        ]
        return random.choice(choices)

    def altered(self, entry: Entry) -> Entry:
        names = [field.name for field in fields(entry)]
        if not names:
            without_fields: list[Entry] = [entries.NextEpoch(), entries.VerifyEpoch(), entries.Tick()]
            return self.random.choice(without_fields)
        name = self.random.choice(names)
        changes: Any = {name: self.other(name, getattr(entry, name))}
        return replace(entry, **changes)

    def other(self, name: str, value: object) -> object:
        """Another value for a field."""
        random = self.random
        match name, value:
            case "slot" | "parent", _:
                return random.choice(SLOTS)
            case "slots", tuple():
                slots = [*value, random.choice(SLOTS[:10])]
                random.shuffle(slots)
                return tuple(slots[: random.choice([len(value), len(value), 1, 8])])
            case "key", _:
                return random.choice(self.keys)
            case "thread", _:
                return random.choice(THREADS)
            case "role", _:
                return random.randrange(4)
            case "ts", Moment():
                return self.other_moment(value)
            case "value", _:
                return self.other_value(value)
            case "tag" | "incarnation", bytes() if random.random() < 0.5:
                return random.choice(self.names)
            case _, bytes():
                at = random.randrange(len(value) or 1)
                return (
                    value[:at] + bytes(byte ^ 1 << random.randrange(8) for byte in value[at : at + 1]) + value[at + 1 :]
                )
        raise AssertionError(name)

    def other_moment(self, ts: Moment) -> Moment:
        """A moment at or around the bounds of what is allowed."""
        random = self.random
        epoch, counter = random.choice(
            [
                (ts.epoch, ts.counter + random.choice([-2, -1, 1, 2])),
                (ts.epoch + random.choice([-1, 1]), ts.counter),
                (ts.epoch + random.choice([-1, 0, 1]), random.choice([0, 1, U32_MAX - 1, U32_MAX])),
                random.choice(self.moments),
            ]
        )
        return Moment(min(max(epoch, 0), U32_MAX), min(max(counter, 0), U32_MAX))

    def other_value(self, value: object) -> Value:
        random = self.random
        if not isinstance(value, Node) or random.random() < 0.3:
            return random.choice(self.values)
        side = random.randrange(2)
        child = value.sides[side]
        hashes = [NO_HASH, None, Unknown(random.randbytes(32)), random.choice(self.values)]
        key = child.key if child and random.random() < 0.7 else random.choice(self.keys)
        return value.with_side(side, Child(key, random.choice(hashes)))


LIED_AT = [LEAF_DEPTH]
"""Depths of the trees that `lies` knows."""


def possible(script: list[Step]) -> list[Step]:
    """The script without what goes to threads that there are not: changes may move pieces over a start."""
    kept: list[Step] = []
    threads = 0
    for step in script:
        if isinstance(step, steps.Start):
            threads = step.threads
        if not isinstance(step, Process | steps.TimeOut | steps.Submit) or step.thread < threads:
            kept.append(step)
    return kept


def places(script: list[Step], *kinds: bytes) -> list[int]:
    """Where pieces of log are; with kinds, only those that begin with such an entry."""
    return [at for at, step in enumerate(script) if isinstance(step, Process) and (not kinds or step.log[:1] in kinds)]


def is_of_thread(step: Step, thread: int) -> bool:
    return isinstance(step, Process) and step.thread == thread


def thread_of(step: Step) -> int:
    assert isinstance(step, Process)
    return step.thread


def log_of(step: Step) -> bytes:
    assert isinstance(step, Process)
    return step.log
