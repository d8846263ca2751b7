"""Entries that nearly fit the state of a thread: at the bounds of each check, on this side or the other."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from . import entries
from .entries import Entry
from .epochs import U32_MAX, Element, Moment
from .host import LEAF_DEPTH
from .keys import ROOT, Key, direction, is_ancestor, path_of
from .thread import Thread
from .values import NO_HASH, Child, Digest, Inline, Node, Null, Value, is_leaf
from .wire import Malformed

KEYS: list[Key] = ["", *(f"{number:0{depth}b}" for depth in range(1, 4) for number in range(2**depth)), "0000", "1111"]


LIES_TRIED = 10
"""Not every lie fits every state."""


class Liar:
    def __init__(self, random: Random, thread: Thread, threads: list[Thread]) -> None:
        self.random = random
        self.thread = thread
        self.threads = threads
        self.records = thread.cache.records

    def lie(self) -> list[Entry]:
        """Some entries in a row."""
        for _ in range(LIES_TRIED):
            found = self.random.choice(self.lies)(self)
            if found:
                return found
        return self.epoch()

    # What entries name

    def slot(self, *, free: float = 0.0) -> int:
        """A slot: an occupied one, if it is not to be free."""
        all_slots = range(self.thread.cache.slots + 1)
        empty = [slot for slot in all_slots if slot not in self.records]
        is_empty = not self.records or self.random.random() < max(free, 0.03)
        return self.random.choice(empty if is_empty else list(self.records))

    def parent_of(self, key: Key) -> int:
        """The slot of a cached node above a key, if there is one: the nearest, most of the time."""
        nodes = sorted(
            (slot for slot, record in self.records.items() if is_ancestor(record.key, key)),
            key=lambda slot: len(self.records[slot].key),
        )
        if not nodes or self.random.random() < 0.1:
            return self.slot()
        return nodes[-1] if self.random.random() < 0.6 else self.random.choice(nodes)

    def moment(self) -> Moment:
        """At or around the bounds of what may be added or evicted now."""
        random, clock = self.random, self.thread.epochs.clock
        published = random.choice(self.threads).epochs.clock
        epoch, counter = random.choice(
            [
                clock,
                (clock.epoch, clock.counter + 1),
                (clock.epoch, clock.counter - 1),
                (clock.epoch, random.choice([0, 1, U32_MAX])),
                (clock.epoch + 1, random.choice([0, 1, clock.counter])),
                (clock.epoch - 1, random.choice([0, 1, U32_MAX])),
                (clock.epoch - 2, random.choice([1, U32_MAX])),
                published,
                (published.epoch, published.counter - 1),
            ]
        )
        return Moment(max(epoch, 0), min(max(counter, 0), U32_MAX))

    def key_below(self, parent: int) -> Key:
        """A key that a node may get a record for: on a side that is empty, or names it, or something below it."""
        node = self.records.get(parent, None)
        if node is None or not isinstance(node.value, Node) or self.random.random() < 0.15:
            return self.random.choice(KEYS)
        child = self.random.choice(node.value.sides)
        below = [key for key in KEYS if is_ancestor(node.key, key) and len(key) <= LEAF_DEPTH]
        if child is not None:
            below = [key for key in below if child.key.startswith(key)] or below
        return self.random.choice(below or KEYS)

    def value_for(self, parent: int, key: Key) -> Value:
        """What may be added: what the parent's hash names, the initial value, or another."""
        initial, written = (Null(), Inline(b"a")) if len(key) == LEAF_DEPTH else (Node(), node_with_child(key))
        node = self.records[parent].value if parent in self.records else None
        if isinstance(node, Node) and is_ancestor(self.records[parent].key, key) and self.random.random() < 0.8:
            child = node.sides[direction(self.records[parent].key, key)]
            if child and child.key == key and isinstance(child.hash, Null | Inline | Digest | Node):
                return child.hash
        return self.random.choice([initial, initial, written])

    # Lies

    def add_by_merkle(self) -> list[Entry]:
        nodes = [slot for slot, record in self.records.items() if isinstance(record.value, Node)]
        if not nodes:
            return []
        parent = self.random.choice(nodes) if self.random.random() < 0.95 else self.slot()
        key = self.key_below(parent)
        return [entries.AddMerkle(self.slot(free=0.9), parent, key, self.value_for(parent, key))]

    def add_again_changed(self) -> list[Entry]:
        """Add again, with another value, a record that its parent has the hash of."""
        found = [
            (slot, child.key)
            for slot, record in self.records.items()
            if isinstance(record.value, Node)
            for side, child in enumerate(record.value.sides)
            if child and child.hash is not None and record.linked[side] is None
        ]
        if not found:
            return []
        parent, key = self.random.choice(found)
        changed = Inline(b"changed") if len(key) == LEAF_DEPTH else node_with_child(key)
        return [entries.AddMerkle(self.slot(free=1), parent, key, changed)]

    def record_slot(self) -> int | None:
        """The slot of a record, seldom the root's."""
        slots = [slot for slot, record in self.records.items() if record.key != ROOT or self.random.random() < 0.1]
        return self.random.choice(slots) if slots else None

    def evict(self) -> list[Entry]:
        """Evict a record in any way, right or wrong."""
        slot = self.record_slot()
        if slot is None:
            return []
        record = self.records[slot]
        parent = (
            record.parent if record.parent is not None and self.random.random() < 0.8 else self.parent_of(record.key)
        )
        moment = self.moment()
        choices = (
            entries.EvictMerkle(slot, parent),
            entries.EvictBlum(slot, moment),
            entries.EvictBlumMerkle(slot, parent, moment),
        )
        return [self.random.choice(choices)]

    def evict_two(self) -> list[Entry]:
        """Evict two records at one moment: at most one of them is in time."""
        clock = self.thread.epochs.clock
        moment = Moment(clock.epoch, min(clock.counter + self.random.choice([0, 1]), U32_MAX))
        found: list[Entry] = []
        for slot in self.random.sample(sorted(self.records), min(2, len(self.records))):
            parent = self.records[slot].parent
            if parent is None:
                found.append(entries.EvictBlum(slot, moment))
            else:
                found.append(entries.EvictBlumMerkle(slot, parent, moment))
        return found

    def add_by_blum(self) -> list[Entry]:
        """Add what nobody evicted, or what somebody did and not then."""
        evicted, element = self.evicted(), self.made_up()
        if evicted and self.random.random() < 0.5:
            element = self.random.choice(evicted)
            if self.random.random() < 0.3:
                element = element._replace(ts=self.moment())
        return [self.add(element)]

    def add(self, element: Element) -> Entry:
        return entries.AddBlum(self.slot(free=0.9), element.ts, element.thread, element.key, element.value)

    def made_up(self) -> Element:
        key = self.random.choice(KEYS)
        value: Value = Null() if len(key) == LEAF_DEPTH else Node()
        return Element(key, value, self.moment(), random_thread(self.random, self.thread.number))

    def evicted(self) -> list[Element]:
        """What any thread evicted in its epoch."""
        return [element for other in self.threads for element in other.epochs.sums.evicted]

    def evicted_before(self) -> list[Element]:
        """What any thread evicted in its closing epoch."""
        closing = [other.epochs.closing for other in self.threads if other.epochs.closing]
        return [element for of in closing for element in of.sums.evicted]

    def carry_over(self) -> list[Entry]:
        """Carry a record over: rightly, or as nobody evicted it, or one of another thread, or one that is gone."""
        random, before = self.random, self.evicted_before()
        if self.thread.epochs.closing is None and random.random() < 0.8:
            return []
        own = [element for element in before if element.thread == self.thread.number or element.ts.counter == 0]
        found = random.choice([before, own, own, self.evicted()])
        element = random.choice(found) if found else self.made_up()
        match random.randrange(6):
            case 0:
                element = element._replace(value=self.made_up().value)
            case 1:
                element = element._replace(ts=self.moment())
            case 2:
                element = element._replace(thread=random_thread(random, self.thread.number))
        entry = entries.CarryOver(element.ts, element.thread, element.key, element.value)
        return [entry] * random.choice([1, 1, 1, 2])

    def add_carried(self) -> list[Entry]:
        """Add a record from the start of the epoch, as if some thread carried it over."""
        before = self.evicted_before()
        if not before:
            return []
        element, start = self.random.choice(before), Moment(self.thread.epochs.clock.epoch, 0)
        if self.random.random() < 0.3:
            element = element._replace(thread=random_thread(self.random, self.thread.number))
        return [self.add(element._replace(ts=start))]

    def add_a_copy(self) -> list[Entry]:
        """Add a record that is cached already a second time, from Blum, and evict that copy."""
        original = self.record_slot()
        if original is None:
            return []
        record, slot = self.records[original], self.slot(free=0.97)
        epochs = self.thread.epochs
        moment = self.random.choice([Moment(epochs.clock.epoch, self.random.choice([0, 1])), self.moment()])
        copy = entries.AddBlum(slot, moment, self.thread.number, record.key, record.value)
        parent = record.parent if record.parent is not None else self.parent_of(record.key)
        later = epochs.clock._replace(counter=min(epochs.clock.counter + 1, U32_MAX))
        evicts: list[Entry] = [
            entries.EvictMerkle(slot, parent),
            entries.EvictBlum(slot, later),
            entries.EvictBlumMerkle(slot, parent, later),
        ]
        return [copy, self.random.choice(evicts)]

    def wanted(self) -> list[Key]:
        """The leaves that the next operation names."""
        if self.thread.queue.head is None:
            return []
        try:
            operation, _ = self.thread.queue.next_operation()
        except Malformed:  # what was replayed need not be requests
            return []
        return [path_of(key_hash, LEAF_DEPTH) for key_hash in operation.key_hashes]

    def run(self) -> list[Entry]:
        """Run the next operation on its records or others."""
        wanted = self.wanted()
        leaves = {record.key: slot for slot, record in self.records.items() if is_leaf(record.value)}
        if not wanted or not leaves:
            return []
        slots = [leaves.get(key, self.slot()) for key in wanted]
        match self.random.randrange(6):
            case 0:
                slots = slots[::-1]
            case 1:
                slots = [slots[0]] * len(slots)
            case 2:
                slots.append(self.slot())
            case 3:
                slots[-1] = self.random.choice(list(leaves.values()))
        return [entries.Run(tuple(slots[:8]))]

    def run_absent(self) -> list[Entry]:
        return [entries.RunAbsent(self.parent_of(key)) for key in self.wanted()[:1]]

    def epoch(self) -> list[Entry]:
        return self.random.choice(
            [
                [entries.NextEpoch()],
                [entries.VerifyEpoch()],
                [entries.NextEpoch(), entries.VerifyEpoch()],
                [entries.NextEpoch(), *self.carry_over(), entries.VerifyEpoch()],
                [entries.VerifyEpoch(), entries.NextEpoch()],
            ]
        )

    def clock(self) -> list[Entry]:
        """Drive the clock to its end."""
        end = Moment(self.thread.epochs.clock.epoch, self.random.choice([U32_MAX - 1, U32_MAX]))
        evict = entries.EvictBlum(self.slot(), end)
        return [self.random.choice([evict, *self.add_by_blum()]), entries.Tick()]

    def replay(self) -> list[Entry]:
        chain = self.thread.chain
        if chain is None:
            return [entries.EndReplay(bytes(16))] if self.random.random() < 0.1 else []
        return self.random.choice(
            [
                [entries.EndReplay(chain.tag.name)],
                [entries.EndReplay(bytes(16))],
                [entries.ReplayMark(chain.latest or chain.current)],
                [entries.ReplayMark(chain.latest or chain.current), entries.EndReplay(chain.tag.name)],
            ]
        )

    lies: tuple[Callable[[Liar], list[Entry]], ...] = (
        add_by_merkle, add_by_merkle, add_again_changed, evict, evict, evict_two, add_by_blum, add_a_copy, run, run,
        run_absent, run_absent, carry_over, carry_over, carry_over, add_carried, epoch, clock, replay,
    )  # fmt: skip


def node_with_child(key: Key) -> Node:
    """A value that the node of this key never had, or not since it is new."""
    return Node().with_side(0, Child(key + "0", NO_HASH))


def random_thread(random: Random, own: int) -> int:
    return random.choice([own, own, 0, 1, 2, 63, 64])
