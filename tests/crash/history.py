"""What clients did between two quiet moments, and whether one order of it explains what they were told.

Every operation has a *fate*: certified (the monitor said so), gone (the SDK said, for good, that it has no effect), or
open (neither). At the quiet moments nothing is in flight and the certified value of every key is known. What happened
to a key in between is explained if the operations can be put into an order that keeps real time (what was answered
before another was called comes first), in which certified ones gave the answers that they gave, gone ones do not occur,
open ones occur or not, and which leads from the value before to the value after. One key at a time suffices: a history
is linearizable if that of every key is (Herlihy and Wing 1990, theorem 1).

The search is "just in time" (Lowe 2017): it walks through calls and answers in order, and keeps every configuration
(value, open calls that have had their effect) that is possible at that moment.
"""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Stored = bytes | None


class Fate(Enum):
    CERTIFIED = "certified"
    GONE = "gone"
    OPEN = "open"


class Kind(Enum):
    GET = "get"
    PUT = "put"
    DELETE = "delete"
    INSERT = "insert"
    COMPARE_AND_SET = "compare_and_set"
    INCREMENT = "increment"


@dataclass(eq=False)
class Operation:
    """One operation on one key. `called` and `answered` are places in the order of all calls and answers."""

    number: int
    key: bytes
    kind: Kind
    value: Stored = None
    expected: Stored = None
    delta: int = 0
    called: int = 0
    answered: int | None = None
    result: Any = None
    fate: Fate = Fate.OPEN

    def apply(self, state: Stored) -> tuple[bool, Stored]:
        """Whether its answer is right if it comes upon `state`, and the state after it."""
        match self.kind:
            case Kind.GET:
                expected, after = state, state
            case Kind.PUT | Kind.DELETE:
                return True, self.value
            case Kind.INSERT:
                expected, after = (True, self.value) if state is None else (False, state)
            case Kind.COMPARE_AND_SET:
                expected, after = (True, self.value) if state == self.expected else (False, state)
            case Kind.INCREMENT:
                expected = int.from_bytes(state or b"", "little", signed=True) + self.delta
                after = expected.to_bytes(8, "little", signed=True)
        return self.answered is None or self.result == expected, after

    def __str__(self) -> str:
        what = {name: value for name in ("value", "expected", "delta") if (value := getattr(self, name))}
        return f"{self.called}-{self.answered} {self.kind.value} {what} = {self.result!r}: {self.fate.value}"


class NotExplainedError(AssertionError):
    """No order of the operations on a key explains what clients were told."""


@dataclass
class History:
    """Operations since the last quiet moment."""

    values: dict[bytes, Stored]
    """Of all keys at that moment."""
    operations: list[Operation] = field(default_factory=list)
    fates: Counter[Fate] = field(default_factory=Counter)
    """Of all operations that were checked."""
    _order: Iterable[int] = field(default_factory=itertools.count)
    _numbers: Iterable[int] = field(default_factory=itertools.count)

    def call(self, key: bytes, kind: Kind, **arguments: Any) -> Operation:
        operation = Operation(next(self._numbers), key, kind, called=next(self._order), **arguments)  # type: ignore[call-overload]
        self.operations.append(operation)
        return operation

    def answer(self, operation: Operation, result: Any) -> None:
        operation.answered, operation.result = next(self._order), result  # type: ignore[call-overload]

    def settle(self, operation: Operation, fate: Fate) -> None:
        """Its fate is known for good."""
        operation.fate = fate

    def check(self, values: dict[bytes, Stored]) -> None:
        """Nothing is in flight, and these are the certified values of all keys. Raises NotExplainedError."""
        for key, before in self.values.items():
            explain(key, before, [operation for operation in self.operations if operation.key == key], values[key])
        self.fates.update(operation.fate for operation in self.operations)
        self.operations.clear()
        self.values = values


def explain(key: bytes, before: Stored, operations: list[Operation], after: Stored) -> None:
    """Raises NotExplainedError if there is no order as the module says."""
    relevant = [operation for operation in operations if operation.fate is not Fate.GONE and _matters(operation)]
    events = [(operation.called, operation, True) for operation in relevant]
    # An open operation was perhaps never answered, and if it was, its effect came before the answer or not at all.
    events += [
        (operation.answered, operation, False)
        for operation in relevant
        if operation.answered is not None and operation.fate is Fate.CERTIFIED
    ]
    events.sort(key=lambda event: event[0])
    in_flight: set[Operation] = set()
    possible: set[tuple[Stored, frozenset[Operation]]] = {(before, frozenset())}
    for _, operation, is_call in events:
        if is_call:
            in_flight.add(operation)
            continue
        reached = _all_orders(possible, in_flight)
        possible = {(state, done - {operation}) for state, done in reached if operation in done}
        in_flight.discard(operation)
        if not possible:
            raise _not_explained(key, before, operations, f"operation {operation}")
    if not any(state == after for state, _ in _all_orders(possible, in_flight)):
        raise _not_explained(key, before, operations, f"the value {after!r} after them")


def _matters(operation: Operation) -> bool:
    return operation.fate is Fate.CERTIFIED or operation.kind is not Kind.GET


def _all_orders(
    possible: set[tuple[Stored, frozenset[Operation]]], in_flight: set[Operation]
) -> set[tuple[Stored, frozenset[Operation]]]:
    """What is possible when any of the operations in flight have their effect now, in any order."""
    reached, new = set(possible), list(possible)
    while new:
        state, done = new.pop()
        for operation in in_flight - done:
            fits, after = operation.apply(state)
            configuration = (after, done | {operation})
            if fits and configuration not in reached:
                reached.add(configuration)
                new.append(configuration)
    return reached


def _not_explained(key: bytes, before: Stored, operations: list[Operation], what: str) -> NotExplainedError:
    last = "\n  ".join(map(str, operations[-60:]))
    return NotExplainedError(f"key {key!r}, which was {before!r}: nothing explains {what}. The last of them:\n  {last}")
