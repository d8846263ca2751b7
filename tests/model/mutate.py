"""Scripts of a host that lies: honest ones with something dropped, repeated, swapped, moved, inserted or altered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from random import Random

from . import entries, steps
from .book import Book
from .client import COMMITMENTS
from .epochs import U32_MAX, Moment
from .host import LEAF_DEPTH
from .lies import KEYS, Liar
from .monitor import Monitor
from .steps import Process, Step
from .values import NO_HASH, Child, Node, Null, Unknown, Value
from .wire import Malformed, Reader

SLOTS = [*range(10), 15, 16, U32_MAX]
THREADS = [0, 0, 1, 1, 2, 63, 64, 65535]


def decode(log: bytes, book: Book) -> list[entries.Entry]:
    """The entries of a piece of log; none if it is malformed."""
    reader, found = Reader(log, book), []
    try:
        while not reader.is_at_end:
            found.append(reader.entry())
    except Malformed:
        return []
    return found


class Mutator:
    """Changes to one honest script."""

    def __init__(self, random: Random, script: list[Step], book: Book) -> None:
        self.random = random
        self.script = script
        self.book = book
        self.log = [at for at, step in enumerate(script) if isinstance(step, Process)]
        """Where the pieces of logs are."""
        self.entries = [entry for at in self.log for entry in decode(script[at].log, book)]
        self.values: list[Value] = [*COMMITMENTS, Node()]
        self.moments = [Moment(1, 0), Moment(0, U32_MAX)]
        self.names = [bytes(16)]
        for entry in self.entries:
            match entry:
                case entries.AddMerkle(value=value) | entries.AddBlum(value=value):
                    self.values.append(value)
                case entries.ReplayMark(name) | entries.EndReplay(name):
                    self.names.append(name)
            if isinstance(entry, entries.AddBlum | entries.EvictBlum | entries.EvictBlumMerkle):
                self.moments.append(entry.ts)
        for value in self.values:
            book.hash(value)  # sides may name them

    def mutated(self) -> tuple[list[Step], int]:
        """A changed script, and where the first change is."""
        script, first = list(self.script), len(self.script)
        for _ in range(self.random.choice([1, 1, 1, 2, 3])):
            at = self.random.choice(self.log)
            if at >= len(script) or not isinstance(script[at], Process):
                continue  # another change has moved it
            change = self.random.choice(self.changes)
            first = min(first, at, change(self, script, at))
        return script, first

    # Changes: each returns the first place that it touches.

    def drop(self, script: list[Step], at: int) -> int:
        del script[at]
        return at

    def drop_other(self, script: list[Step], at: int) -> int:
        """Drop a step that is not the host's: what a client or the monitor does, or when."""
        others = [at for at, step in enumerate(script) if isinstance(step, steps.Certify | steps.Submit | steps.Close)]
        if others:
            at = self.random.choice(others)
            del script[at]
        return at

    def repeat(self, script: list[Step], at: int) -> int:
        script.insert(self.random.randint(at, min(at + 5, len(script))), script[at])
        return at

    def swap(self, script: list[Step], at: int) -> int:
        other = self.random.choice([place for place in self.log if place < len(script) and abs(place - at) < 8])
        script[at], script[other] = script[other], script[at]
        return min(at, other)

    def move(self, script: list[Step], at: int) -> int:
        """Give a piece to another thread."""
        threads = min(step.threads for step in script if isinstance(step, steps.Start))
        script[at] = replace(script[at], thread=self.random.randrange(threads))
        return at

    def merge(self, script: list[Step], at: int) -> int:
        """Make one piece of two of the same thread."""
        if at + 1 < len(script) and isinstance(script[at + 1], Process) and script[at].thread == script[at + 1].thread:
            script[at] = replace(script[at], log=script[at].log + script[at + 1].log)
            del script[at + 1]
        return at

    def insert(self, script: list[Step], at: int) -> int:
        script.insert(at, replace(script[at], log=self.any_entry().encode()))
        return at

    def lie(self, script: list[Step], at: int) -> int:
        """Insert entries that nearly fit the state of a thread at this moment."""
        if self.random.random() < 0.3:
            at = len(script)
        monitor = Monitor(LEAF_DEPTH, self.book)
        monitor.follow(script[:at])
        weights = [1 + len(thread.cache.records) for thread in monitor.threads]
        [thread] = self.random.choices(monitor.threads, weights)
        if not any(thread.failed for thread in monitor.threads):
            lies = Liar(self.random, thread, monitor.threads).lie()
            script[at:at] = [Process(thread.number, entry.encode()) for entry in lies]
            if self.random.random() < 0.2:
                script.insert(at + 1, steps.TimeOut(thread.number))
        return at

    def end_replay(self, script: list[Step], at: int) -> int:
        """End a replay before it is complete, with the tag that it has come to."""
        kinds = self.random.choice([(b"\x0d",), (b"\x0d", b"\x0e")])
        places = [place for place, step in enumerate(script) if isinstance(step, Process) and step.log[:1] in kinds]
        if places:
            at = self.random.choice(places)
            monitor = Monitor(LEAF_DEPTH, self.book)
            monitor.follow(script[:at])
            chain = monitor.threads[script[at].thread].chain
            if chain:
                script.insert(at, replace(script[at], log=entries.EndReplay(chain.tag.name).encode()))
        return at

    def splice(self, script: list[Step], at: int) -> int:
        """Repeat what was written elsewhere."""
        start = self.random.choice(self.log)
        pieces = [step for step in self.script[start : start + self.random.randint(1, 4)] if isinstance(step, Process)]
        script[at:at] = [replace(piece, thread=script[at].thread) for piece in pieces]
        return at

    def alter(self, script: list[Step], at: int) -> int:
        """Change one field of an entry."""
        for entry in decode(script[at].log, self.book)[-1:]:
            log = script[at].log.removesuffix(entry.encode()) + self.altered(entry).encode()
            script[at] = replace(script[at], log=log)
        return at

    def alter_bytes(self, script: list[Step], at: int) -> int:
        log = bytearray(script[at].log)
        place = self.random.randrange(len(log))
        match self.random.randrange(3):
            case 0:
                log[place] ^= 1 << self.random.randrange(8)
            case 1:
                del log[place:]
            case 2:
                log[place:place] = self.random.randbytes(1)
        script[at] = replace(script[at], log=bytes(log))
        return at

    def another_evict(self, script: list[Step], at: int) -> int:
        """Evict in another way."""
        evicts = entries.EvictMerkle | entries.EvictBlum | entries.EvictBlumMerkle
        places = [place for place in self.log if place < len(script) and isinstance(script[place], Process)]
        found = [(place, entry) for place in places for entry in decode(script[place].log, self.book)[:1]]
        found = [(place, entry) for place, entry in found if isinstance(entry, evicts)]
        if not found:
            return at
        at, entry = self.random.choice(found)
        moment = getattr(entry, "ts", self.random.choice(self.moments))
        parent = getattr(entry, "parent", self.random.choice(SLOTS[:10]))
        other = self.random.choice(
            [
                entries.EvictMerkle(entry.slot, parent),
                entries.EvictBlum(entry.slot, moment),
                entries.EvictBlumMerkle(entry.slot, parent, moment),
            ]
        )
        script[at] = replace(script[at], log=other.encode())
        return at

    changes: tuple[Callable[[Mutator, list[Step], int], int], ...] = (
        drop, drop, drop_other, repeat, swap, move, merge, insert, splice, alter, alter, alter_bytes, another_evict,
        end_replay, lie, lie, lie, lie, lie, lie, lie, lie, lie, lie,
    )  # fmt: skip

    # Entries and fields

    def any_entry(self) -> entries.Entry:
        random = self.random
        slot, parent, moment = random.choice(SLOTS[:10]), random.choice(SLOTS[:10]), random.choice(self.moments)
        key, value = random.choice(KEYS), random.choice(self.values)
        request = next(
            (it.request for it in random.sample(self.entries, len(self.entries)) if hasattr(it, "request")), b""
        )
        return random.choice(
            [
                self.altered(random.choice(self.entries)),
                entries.AddMerkle(slot, parent, key, random.choice([Null(), Node()])),
                entries.AddMerkle(slot, parent, key, value),
                entries.AddBlum(slot, moment, random.choice(THREADS), key, value),
                entries.EvictMerkle(slot, parent),
                entries.EvictBlum(slot, moment),
                entries.EvictBlumMerkle(slot, parent, moment),
                entries.NextEpoch(),
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
        )

    def altered(self, entry: entries.Entry) -> entries.Entry:
        names = [field.name for field in fields(entry)]
        if not names:
            return self.random.choice([entries.NextEpoch(), entries.VerifyEpoch(), entries.Tick()])
        name = self.random.choice(names)
        return replace(entry, **{name: self.other(name, getattr(entry, name))})

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
                return random.choice(KEYS)
            case "thread", _:
                return random.choice(THREADS)
            case "role", _:
                return random.randrange(4)
            case "ts", Moment():
                return self.other_moment(value)
            case "value", _:
                return self.other_value(value)
            case "request" | "resume" | "tag" | "incarnation", bytes():
                if name in ("tag", "incarnation") and random.random() < 0.5:
                    return random.choice(self.names)
                at = random.randrange(len(value) or 1)
                return value[:at] + bytes((value[at] ^ 1 << random.randrange(8),)) + value[at + 1 :] if value else b""
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
        new = Child(child.key if child and random.random() < 0.7 else random.choice(KEYS), random.choice(hashes))
        return value.with_side(side, new)
