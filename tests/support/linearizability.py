"""Whether one order of the operations on a key explains what clients were told.

Every operation has a *fate*: certified (the monitor said so), gone (the SDK said, for good, that it has no effect), or
open (neither). A history is explained if its operations can be put into an order that keeps real time (what was
answered before another was called comes first), in which certified ones gave the answers that they gave, gone ones do
not occur, and open ones occur or not. One key at a time suffices: a history is linearizable if that of every key is
(Herlihy and Wing 1990, theorem 1).

The search is "just in time" (Lowe 2017): it walks through calls and answers in order, and keeps every configuration
(value, calls in flight that have had their effect) that is possible at that moment. Of two that differ only in open
operations, the one in which fewer have had their effect can go on in every way that the other can; so only that is
kept, and open operations, which may stay in flight for ever, do not double the configurations each.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

Stored = bytes | None
NOT_A_NUMBER = "not a number"
OVERFLOW = "overflow"
"""Results of an increment that cannot be done."""

_NUMBER_BYTES = 8


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
    """The value read; whether an insert applied; for a compare-and-set that did not, the value instead; the number."""
    fate: Fate = Fate.OPEN
    client: int = 0
    ts: int = 0
    incarnation: str = ""
    """Of the monitor that answered."""

    def apply(self, state: Stored) -> tuple[bool, Stored]:
        """Whether its answer is right if it comes upon `state`, and the state after it."""
        expected, after = self.run(state)
        return self.answered is None or self.result == expected, after

    def run(self, state: Stored) -> tuple[Any, Stored]:
        """Its answer upon `state`, and the state after it."""
        match self.kind:
            case Kind.GET:
                return state, state
            case Kind.PUT | Kind.DELETE:
                return None, self.value
            case Kind.INSERT:
                return (True, self.value) if state is None else (False, state)
            case Kind.COMPARE_AND_SET:
                return ((True, None), self.value) if state == self.expected else ((False, state), state)
            case Kind.INCREMENT:
                return _incremented(state, self.delta)

    def __str__(self) -> str:
        what = {name: value for name in ("value", "expected", "delta") if (value := getattr(self, name))}
        return f"{self.called}-{self.answered} {self.kind.value} {what} = {self.result!r}: {self.fate.value}"


def _incremented(state: Stored, delta: int) -> tuple[Any, Stored]:
    if state is not None and len(state) != _NUMBER_BYTES:
        return NOT_A_NUMBER, state
    number = int.from_bytes(state or b"", "little", signed=True) + delta
    try:
        return number, number.to_bytes(_NUMBER_BYTES, "little", signed=True)
    except OverflowError:
        return OVERFLOW, state


class NotExplainedError(AssertionError):
    """No order of the operations on a key explains what clients were told."""


def explain_all(operations: Iterable[Operation]) -> None:
    """A whole history, from an empty store on. Raises NotExplainedError."""
    by_key: dict[bytes, list[Operation]] = {}
    for operation in operations:
        by_key.setdefault(operation.key, []).append(operation)
    for key, of_key in by_key.items():
        values_after(key, None, of_key)


_Configuration = tuple[Stored, frozenset[Operation]]


def explain(key: bytes, before: Stored, operations: list[Operation], after: Stored) -> None:
    """Raises NotExplainedError if no order as the module says leads from the value before to the value after."""
    if after not in values_after(key, before, operations):
        raise _not_explained(key, before, operations, f"the value {after!r} after them")


def values_after(key: bytes, before: Stored, operations: list[Operation]) -> set[Stored]:
    """What the key may hold after them. Raises NotExplainedError if there is no order as the module says."""
    relevant = [operation for operation in operations if operation.fate is not Fate.GONE and _matters(operation)]
    events = [(operation.called, operation, True) for operation in relevant]
    events += [(operation.answered, operation, False) for operation in relevant if operation.answered is not None]
    events.sort(key=lambda event: event[0])
    in_flight: set[Operation] = set()
    possible: set[_Configuration] = {(before, frozenset())}
    for _, operation, is_call in events:
        if is_call:
            in_flight.add(operation)
            continue
        possible = _all_orders(possible, in_flight)
        if operation.fate is Fate.CERTIFIED:
            possible = {(state, done) for state, done in possible if operation in done}
        # An open one came before its answer, or not at all.
        possible = {(state, done - {operation}) for state, done in possible}
        in_flight.discard(operation)
        if not possible:
            raise _not_explained(key, before, operations, f"operation {operation}")
    return {state for state, _ in _all_orders(possible, in_flight)}


def _matters(operation: Operation) -> bool:
    return operation.fate is Fate.CERTIFIED or operation.kind is not Kind.GET


def _all_orders(possible: set[_Configuration], in_flight: set[Operation]) -> set[_Configuration]:
    """What is possible when any of the operations in flight have their effect now, in any order."""
    reached = _Reached()
    # The ones with the fewest effects first: they make others needless before these are gone on from.
    new = deque(sorted(possible, key=lambda configuration: len(configuration[1])))
    while new:
        state, done = new.popleft()
        if reached.add(state, done):
            for operation in in_flight - done:
                fits, after = operation.apply(state)
                if fits:
                    new.append((after, done | {operation}))
    return reached.configurations()


class _Reached:
    """Configurations, without those that can only do what another can do, too."""

    def __init__(self) -> None:
        self._sets: dict[_Configuration, list[frozenset[Operation]]] = {}
        """By state and certified operations."""

    def add(self, state: Stored, done: frozenset[Operation]) -> bool:
        """Whether it was not needless."""
        certified = frozenset(operation for operation in done if operation.fate is Fate.CERTIFIED)
        sets = self._sets.setdefault((state, certified), [])
        if any(other <= done for other in sets):
            return False
        sets[:] = [other for other in sets if not done < other]
        sets.append(done)
        return True

    def configurations(self) -> set[_Configuration]:
        return {(state, done) for (state, _), sets in self._sets.items() for done in sets}


def _not_explained(key: bytes, before: Stored, operations: list[Operation], what: str) -> NotExplainedError:
    last = "\n  ".join(map(str, operations[-60:]))
    return NotExplainedError(f"key {key!r}, which was {before!r}: nothing explains {what}. The last of them:\n  {last}")
