"""The checker of histories finds what it must: each of these is a bug that a crash might cause."""

import pytest
from crash.history import History
from support.linearizability import Fate, Kind, NotExplainedError, Stored

KEY = b"key"


def number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def history(*fates: Fate, delta: int = 1) -> History:
    """Increments, one after the other."""
    made = History({KEY: None})
    for place, fate in enumerate(fates, 1):
        operation = made.call(KEY, Kind.INCREMENT, delta=delta)
        if fate is not Fate.OPEN:
            made.result(operation, place)
        operation.fate = fate
    return made


@pytest.mark.parametrize(
    ("fates", "after"),
    [
        ([Fate.CERTIFIED, Fate.CERTIFIED], number(2)),
        ([Fate.CERTIFIED, Fate.GONE], number(1)),
        ([Fate.CERTIFIED, Fate.OPEN], number(1)),
        ([Fate.CERTIFIED, Fate.OPEN], number(2)),
    ],
)
def test_what_was_told_may_be_true(fates: list[Fate], after: Stored) -> None:
    made = history(*fates)
    made.check({KEY: after})
    assert sum(made.fates.values()) == len(fates)


@pytest.mark.parametrize(
    ("fates", "after", "bug"),
    [
        ([Fate.CERTIFIED, Fate.CERTIFIED], number(1), "a certified operation is lost"),
        ([Fate.CERTIFIED, Fate.GONE], number(2), "a lost operation has come back"),
        ([Fate.CERTIFIED, Fate.OPEN], number(3), "an operation ran twice"),
        ([Fate.CERTIFIED], None, "everything is lost"),
        ([Fate.GONE, Fate.CERTIFIED], number(2), "an answer builds on what was lost"),
    ],
)
def test_what_was_told_is_not_true(fates: list[Fate], after: Stored, bug: str) -> None:
    with pytest.raises(NotExplainedError):
        history(*fates).check({KEY: after})


def test_an_old_value_that_is_read_after_a_newer_one_was_certified_is_found() -> None:
    made = History({KEY: b"old"})
    put = made.call(KEY, Kind.PUT, value=b"new")
    made.result(put, None)
    get = made.call(KEY, Kind.GET)
    made.result(get, b"old")
    put.fate = get.fate = Fate.CERTIFIED
    with pytest.raises(NotExplainedError):
        made.check({KEY: b"new"})


def test_operations_at_the_same_time_may_run_in_either_order() -> None:
    made = History({KEY: None})
    insert, put = made.call(KEY, Kind.INSERT, value=b"1"), made.call(KEY, Kind.PUT, value=b"2")
    made.result(put, None)
    made.result(insert, False)
    insert.fate = put.fate = Fate.CERTIFIED
    made.check({KEY: b"2"})
