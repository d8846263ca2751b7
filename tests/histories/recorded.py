"""Recorded histories: their files, what must be true of each, and changes that make any of them false.

A file has one operation a line, as a Python literal. `called` and `answered` are nanoseconds of the machine's monotonic
clock, which all processes share; so histories of several clients are put together by reading their files.
"""

import ast
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from support.linearizability import Fate, Kind, Operation, explain_all

NEVER_WRITTEN = b"nobody wrote this"


def write(path: Path, operations: Iterable[Operation]) -> None:
    lines = (
        repr(dataclasses.asdict(operation) | {"kind": operation.kind.value, "fate": operation.fate.value})
        for operation in operations
    )
    path.write_text("".join(f"{line}\n" for line in lines))


def read(path: Path) -> list[Operation]:
    fields = map(ast.literal_eval, path.read_text().splitlines())
    return [Operation(**f | {"kind": Kind(f["kind"]), "fate": Fate(f["fate"])}) for f in fields]


class NotAPrefixError(AssertionError):
    """Something is certified, and something that its client was answered before is not."""


class AnswerLostError(AssertionError):
    """With a write-ahead log every answer survives what an honest host can survive."""


def judge(operations: Sequence[Operation], durability: str) -> None:
    """Whether what clients were told is true of an honest host. Raises AssertionError."""
    explain_all(operations)
    answered = [operation for operation in operations if operation.answered is not None]
    _timestamps_grow(answered)
    if durability == "wal":
        for operation in answered:
            if operation.fate is Fate.GONE:
                raise AnswerLostError(f"it was answered and logged, and is lost: {operation}")
    else:
        _certified_come_first(answered)


def _timestamps_grow(answered: Iterable[Operation]) -> None:
    """What a client called after an answer has a later timestamp than that, in one incarnation."""
    for of_client in _grouped(answered, lambda operation: (operation.client, operation.incarnation)):
        by_answer = sorted(of_client, key=lambda operation: operation.answered or 0)
        seen_ts, at = 0, 0
        for operation in sorted(of_client, key=lambda operation: operation.called):
            while (by_answer[at].answered or 0) < operation.called:
                seen_ts, at = max(seen_ts, by_answer[at].ts), at + 1
            if operation.ts <= seen_ts:
                raise NotAPrefixError(f"its client had seen timestamp {seen_ts} before: {operation}")


def _certified_come_first(answered: Iterable[Operation]) -> None:
    """Of an incarnation, by timestamps: what is certified, then what is lost. So, for a client, too (see above)."""
    for of_incarnation in _grouped(answered, lambda operation: operation.incarnation):
        certified = (operation for operation in of_incarnation if operation.fate is Fate.CERTIFIED)
        lost = (operation for operation in of_incarnation if operation.fate is Fate.GONE)
        last = max(certified, key=lambda operation: operation.ts, default=None)
        first = min(lost, key=lambda operation: operation.ts, default=None)
        if last is not None and first is not None and first.ts >> 32 <= last.ts >> 32:
            raise NotAPrefixError(f"certified at {last.ts}: {last}\nlost at {first.ts}: {first}")


def _grouped(
    operations: Iterable[Operation], key: Callable[[Operation], tuple[object, ...] | str]
) -> Iterator[list[Operation]]:
    for _, group in itertools.groupby(sorted(operations, key=key), key=key):  # type: ignore[arg-type]
        yield list(group)


# --- changes that make a history false ---

Change = Callable[[list[Operation]], list[Operation] | None]


def invent(operations: list[Operation]) -> list[Operation] | None:
    """A certified get read what nobody wrote."""
    for operation in operations:
        if operation.kind is Kind.GET and operation.fate is Fate.CERTIFIED:
            return _exchanged(operations, operation, result=NEVER_WRITTEN)
    return None


def lose(operations: list[Operation]) -> list[Operation] | None:
    """A certified get read what was lost."""
    for put, _ in _reads(operations):
        return _exchanged(operations, put, fate=Fate.GONE)
    return None


def foresee(operations: list[Operation]) -> list[Operation] | None:
    """A certified get was answered before the put that it read was called."""
    for put, get in _reads(operations):
        return _exchanged(operations, get, called=put.called - 2, answered=put.called - 1)
    return None


def come_back(operations: list[Operation]) -> list[Operation] | None:
    """A value that was written once is read, then another one, then the first again: it was stale, or ran twice."""
    end = max(operation.answered or operation.called for operation in operations) + 1
    for put, first in _reads(operations):
        for second in operations:
            is_read = second.kind is Kind.GET and second.fate is Fate.CERTIFIED and second.key == put.key
            if is_read and second.called > (first.answered or end) and second.result != put.value:
                third = dataclasses.replace(first, called=end, answered=end + 1)
                return [*operations, third]
    return None


CHANGES: tuple[Change, ...] = (invent, lose, foresee, come_back)


def _reads(operations: list[Operation]) -> Iterator[tuple[Operation, Operation]]:
    """Certified puts of values that nothing else writes, with a certified get that read them."""
    writers: dict[tuple[bytes, bytes | None], list[Operation]] = {}
    for operation in operations:
        writers.setdefault((operation.key, operation.value), []).append(operation)
    for get in operations:
        if get.kind is Kind.GET and get.fate is Fate.CERTIFIED and get.result is not None:
            wrote = writers.get((get.key, get.result), [])
            if len(wrote) == 1 and wrote[0].kind is Kind.PUT and wrote[0].fate is Fate.CERTIFIED:
                yield wrote[0], get


def _exchanged(operations: list[Operation], changed: Operation, **fields: object) -> list[Operation]:
    other = dataclasses.replace(changed, **fields)  # type: ignore[arg-type]
    return [other if operation is changed else operation for operation in operations]
