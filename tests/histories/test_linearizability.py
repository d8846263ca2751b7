"""The checker itself: it refuses histories that are known to be bad, takes those that are known to be good, and on
random small ones says what trying every order says.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.linearizability import (
    NOT_A_NUMBER,
    Fate,
    Kind,
    NotExplainedError,
    Operation,
    Stored,
    explain,
    explain_all,
    values_after,
)

KEY = b"key"


def number(value: int) -> bytes:
    return value.to_bytes(8, "little", signed=True)


def put(called: int, answered: int | None, value: Stored, fate: Fate = Fate.CERTIFIED) -> Operation:
    return Operation(called, KEY, Kind.PUT, value=value, called=called, answered=answered, fate=fate)


def get(called: int, answered: int, result: Stored, fate: Fate = Fate.CERTIFIED) -> Operation:
    return Operation(called, KEY, Kind.GET, called=called, answered=answered, result=result, fate=fate)


def increment(called: int, answered: int | None, result: object, fate: Fate = Fate.CERTIFIED) -> Operation:
    return Operation(called, KEY, Kind.INCREMENT, delta=1, called=called, answered=answered, result=result, fate=fate)


def cas(called: int, answered: int, expected: Stored, new: Stored, result: object) -> Operation:
    return Operation(
        called,
        KEY,
        Kind.COMPARE_AND_SET,
        value=new,
        expected=expected,
        called=called,
        answered=answered,
        result=result,
        fate=Fate.CERTIFIED,
    )


BAD = {
    "stale read": [put(0, 1, b"1"), put(2, 3, b"2"), get(4, 5, b"1")],
    "read of what nobody wrote": [put(0, 1, b"1"), get(2, 3, b"2")],
    "read of null after a put": [put(0, 1, b"1"), get(2, 3, None)],
    "lost update: both increments give 1": [increment(0, 3, 1), increment(1, 2, 1)],
    "lost update: both compare-and-sets apply": [
        cas(0, 3, None, b"1", (True, None)),
        cas(1, 2, None, b"2", (True, None)),
    ],
    "a compare-and-set names a value that is not there": [
        put(0, 1, b"1"),
        cas(2, 3, b"0", b"2", (False, b"3")),
    ],
    "read of a lost put": [put(0, 1, b"1", Fate.GONE), get(2, 3, b"1")],
    "increment on top of a lost one": [increment(0, 1, 1, Fate.GONE), increment(2, 3, 2)],
    "two orders: a put of later is read before one of earlier": [
        put(0, 9, b"1"),
        put(1, 9, b"2"),
        get(2, 3, b"1"),
        get(4, 5, b"2"),
        get(6, 7, b"1"),
    ],
    "reordered across real time: a put that was answered comes after a later one": [
        put(0, 1, b"1"),
        put(2, 3, b"2"),
        get(4, 5, b"1"),
        get(6, 7, b"2"),
    ],
    "read before it was called": [get(0, 1, b"1"), put(2, 3, b"1")],
    "two readers see two orders": [
        put(0, 9, b"1"),
        put(0, 9, b"2"),
        get(1, 2, b"1"),
        get(3, 4, b"2"),
        get(5, 6, b"1"),
    ],
    "one increment ran twice": [increment(0, 1, 1), increment(2, 3, 3)],
    "an open increment ran twice": [increment(0, None, None, Fate.OPEN), increment(1, 2, 3)],
    "an open put took effect after its answer": [
        put(0, 1, b"1", Fate.OPEN),
        get(2, 3, None),
        get(4, 5, b"1"),
    ],
    "an open put comes and goes": [put(0, None, b"1", Fate.OPEN), get(1, 2, b"1"), get(3, 4, None)],
}

GOOD = {
    "one after the other": [put(0, 1, b"1"), get(2, 3, b"1"), put(4, 5, b"2"), get(6, 7, b"2")],
    "a read beside a put sees either": [put(0, 1, b"1"), put(2, 7, b"2"), get(3, 4, b"1"), get(5, 6, b"2")],
    "two puts at once, in either order": [put(0, 3, b"1"), put(1, 2, b"2"), get(4, 5, b"1")],
    "a lost put is not seen": [put(0, 1, b"1", Fate.GONE), get(2, 3, None)],
    "a lost read says nothing": [get(0, 1, b"never written", Fate.GONE), get(2, 3, None)],
    "an open put is seen late": [put(0, None, b"1", Fate.OPEN), get(1, 2, None), get(3, 4, b"1")],
    "an open put is never seen": [put(0, None, b"1", Fate.OPEN), get(1, 2, None), get(3, 4, None)],
    "an open increment counts": [increment(0, None, None, Fate.OPEN), increment(1, 2, 2)],
    "increments at once": [increment(0, 3, 2), increment(1, 2, 1)],
    "what is not a number": [put(0, 1, b"1"), increment(2, 3, NOT_A_NUMBER), get(4, 5, b"1")],
    "two compare-and-sets": [cas(0, 3, None, b"1", (True, None)), cas(1, 2, None, b"2", (False, b"1"))],
}


@pytest.mark.parametrize("bug", BAD)
def test_known_bad_histories_are_refused(bug: str) -> None:
    with pytest.raises(NotExplainedError):
        explain_all(BAD[bug])


@pytest.mark.parametrize("case", GOOD)
def test_known_good_histories_are_explained(case: str) -> None:
    explain_all(GOOD[case])


def test_a_history_is_judged_by_each_key() -> None:
    stale = [replace(operation, key=b"other") for operation in BAD["stale read"]]
    explain_all(GOOD["one after the other"])
    with pytest.raises(NotExplainedError, match="other"):
        explain_all(GOOD["one after the other"] + stale)


def test_many_open_operations_cost_little() -> None:
    """Each may or may not have had its effect: 2^40 possibilities, if they were all kept."""
    operations = [put(place, None, b"%d" % place, Fate.OPEN) for place in range(40)]
    operations += [get(1000 + 2 * place, 1001 + 2 * place, b"%d" % place) for place in range(0, 40, 2)]
    explain(KEY, None, operations, b"39")


def tried(operations: list[Operation]) -> set[Stored]:
    """The definition: every order of every choice of open ones, each operation upon the value before it."""
    certified = [operation for operation in operations if operation.fate is Fate.CERTIFIED]
    optional = [operation for operation in operations if operation.fate is Fate.OPEN]
    choices = itertools.chain.from_iterable(
        itertools.combinations(optional, count) for count in range(len(optional) + 1)
    )
    orders = (order for chosen in choices for order in itertools.permutations([*certified, *chosen]))
    return {end.value for order in orders if in_real_time(order) and (end := run(order)) is not None}


def in_real_time(order: tuple[Operation, ...]) -> bool:
    return not any(
        later.answered is not None and later.answered < earlier.called
        for earlier, later in itertools.combinations(order, 2)
    )


@dataclass
class End:
    value: Stored


def run(order: Iterable[Operation]) -> End | None:
    state: Stored = None
    for operation in order:
        fits, state = operation.apply(state)
        if not fits:
            return None
    return End(state)


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    count = draw(st.integers(1, 5))
    places = draw(st.permutations(range(2 * count)))
    values = st.sampled_from([None, b"1", b"2", number(1), number(2)])
    operations = []
    for at in range(count):
        called, answered = sorted(places[2 * at : 2 * at + 2])
        kind = draw(st.sampled_from(Kind))
        operation = Operation(at, KEY, kind, called=called, fate=draw(st.sampled_from(Fate)), delta=1)
        if kind not in (Kind.GET, Kind.DELETE, Kind.INCREMENT):
            operation.value = draw(values)
        operation.expected = draw(values)
        if operation.fate is Fate.CERTIFIED or draw(st.booleans()):
            operation.answered = answered
            # What it would say upon some value, so that many histories are good and many nearly so.
            operation.result = operation.run(draw(values))[0]
        operations.append(operation)
    return operations


@given(histories())
def test_it_says_what_trying_every_order_says(operations: list[Operation]) -> None:
    possible = tried(operations)
    if possible:
        assert values_after(KEY, None, operations) == possible
    else:
        with pytest.raises(NotExplainedError):
            values_after(KEY, None, operations)
