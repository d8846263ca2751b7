"""The verified cache of one thread: the records in private memory, and how they come and go by Merkle.

A record that was added by Merkle is *linked*: its parent knows its slot, and it knows its parent's. See
docs/verification.md, "Adding and evicting records".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .book import Book
from .check import check, require
from .keys import ROOT, Key, direction, is_ancestor
from .values import NO_HASH, Child, Node, Value, is_initial, is_leaf

ROOT_SLOT = 0


@dataclass
class Record:
    key: Key
    value: Value
    parent: int | None
    """The slot of the parent that it is linked to. None: it came from Blum, or is the root."""
    linked: list[int | None] = field(default_factory=lambda: [None, None])
    """The slots of the children that are linked to it."""

    @property
    def sides(self) -> tuple[Child | None, Child | None]:
        """Of an internal node."""
        assert isinstance(self.value, Node)
        return self.value.sides

    def set_side(self, side: int, child: Child) -> None:
        assert isinstance(self.value, Node)
        self.value = self.value.with_side(side, child)


class Cache:
    def __init__(self, slots: int, root: Node | None, leaf_depth: int, book: Book) -> None:
        self.slots = slots
        self.leaf_depth = leaf_depth
        self.book = book
        self.records: dict[int, Record] = {}
        if root is not None:
            self.records[ROOT_SLOT] = Record(ROOT, root, None)

    @property
    def root(self) -> Node | None:
        record = self.records.get(ROOT_SLOT)
        if record is not None and record.key == ROOT and isinstance(record.value, Node):
            return record.value
        return None

    def record(self, slot: int, key: Key = ROOT) -> Record:
        """The record in a slot. `key` is what a fault is about."""
        require(slot < self.slots, "slot_out_of_range", key)
        require(slot in self.records, "slot_empty", key)
        return self.records[slot]

    def node_above(self, parent: int, key: Key) -> Record:
        """The record in slot `parent`, if it is an internal node above `key`."""
        record = self.record(parent, key)
        require(isinstance(record.value, Node), "parent_not_internal", key)
        require(is_ancestor(record.key, key), "not_an_ancestor", key)
        return record

    def side_above(self, parent: int, key: Key) -> Child | None:
        """What the node in slot `parent` knows in the direction of `key`."""
        above = self.node_above(parent, key)
        return above.sides[direction(above.key, key)]

    def check_addable(self, slot: int, key: Key, value: Value) -> None:
        require(slot < self.slots, "slot_out_of_range", key)
        check("add_to_empty_slot", slot not in self.records, "slot_occupied", key)
        check("add_within_leaf_depth", len(key) <= self.leaf_depth, "key_not_allowed", key)
        fits = is_leaf(value) == (len(key) == self.leaf_depth)
        check("add_value_fits_key", fits, "key_not_allowed", key)

    def insert(self, slot: int, key: Key, value: Value) -> None:
        """Put a record from Blum into a slot that `check_addable` has passed."""
        self.records[slot] = Record(key, value, None)

    def remove(self, slot: int) -> None:
        del self.records[slot]

    def add_merkle(self, slot: int, parent: int, key: Key, value: Value) -> None:
        """Add a record that its parent proves: the first time, again, or between the parent and what was below it."""
        self.check_addable(slot, key, value)
        above = self.node_above(parent, key)
        side = direction(above.key, key)
        child = above.sides[side]
        if child is None:
            check("first_value_initial", is_initial(value), "value_not_initial", key)
            above.set_side(side, Child(key, NO_HASH))
            self.records[slot] = Record(key, value, parent)
            above.linked[side] = slot
        elif child.key == key:
            require(child.hash is not None, "side_in_blum", key)
            check("again_not_cached", above.linked[side] is None, "already_cached", key)
            check("again_hash", self.book.hash(value) == child.hash, "hash_mismatch", key)
            self.records[slot] = Record(key, value, parent)
            above.linked[side] = slot
        else:
            require(is_ancestor(key, child.key), "side_not_descendant", key)
            check("split_value_initial", is_initial(value), "value_not_initial", key)
            self.split(slot, parent, key, child)

    def split(self, slot: int, parent: int, key: Key, child: Child) -> None:
        """Put a new node between a parent and what its side names; what is linked there hangs on the new node now."""
        above = self.records[parent]
        side, below = direction(above.key, key), direction(key, child.key)
        new = Record(key, Node().with_side(below, child), parent)
        linked = above.linked[side]
        if linked is not None:
            new.linked[below] = linked
            self.record(linked, child.key).parent = slot
        self.records[slot] = new
        above.set_side(side, Child(key, NO_HASH))
        above.linked[side] = slot

    def evictable(self, slot: int) -> Record:
        record = self.record(slot)
        check("evict_not_root", record.key != ROOT, "root_is_permanent", record.key)
        check("evict_no_child_linked", record.linked == [None, None], "child_cached", record.key)
        return record

    def evict_merkle(self, slot: int, parent: int) -> None:
        """Evict a record, and write its hash into its parent."""
        record = self.evictable(slot)
        self.take_from(slot, parent, Child(record.key, self.book.hash(record.value)))

    def evict_to_blum(self, slot: int, parent: int) -> None:
        """Evict a record that was added by Merkle, and note in its parent that it is in Blum now."""
        self.take_from(slot, parent, Child(self.records[slot].key, None))

    def take_from(self, slot: int, parent: int, child: Child) -> None:
        record = self.records[slot]
        above = self.node_above(parent, record.key)
        side = direction(above.key, record.key)
        named = above.sides[side]
        names_record = named is not None and named.key == record.key
        check("evict_side_names_record", names_record, "side_names_other", record.key)
        if record.parent is not None:
            agrees = record.parent == parent and above.linked[side] == slot
        else:
            agrees = above.linked[side] is None
        check("evict_links_agree", agrees, "link_mismatch", record.key)
        above.set_side(side, child)
        above.linked[side] = None
        del self.records[slot]
