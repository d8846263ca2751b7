"""What clients did between two quiet moments, and whether one order of it explains what they were told.

At the quiet moments nothing is in flight and the certified value of every key is known: the order that is looked for
(`support/linearizability.py`) leads from the value before to the value after.
"""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kvstore_client import Answer, Attempt, Number, Value
from support.linearizability import Fate, Kind, Operation, Stored, explain


@dataclass
class History:
    """Operations since the last quiet moment."""

    values: dict[bytes, Stored]
    """Of all keys at that moment."""
    operations: list[Operation] = field(default_factory=list)
    fates: Counter[Fate] = field(default_factory=Counter)
    """Of all operations that were checked."""
    order: Iterable[int] = field(default_factory=itertools.count)
    """Grows with every call and answer."""
    _numbers: Iterable[int] = field(default_factory=itertools.count)

    def call(self, key: bytes, kind: Kind, **arguments: Any) -> Operation:
        operation = Operation(next(self._numbers), key, kind, called=next(self.order), **arguments)  # type: ignore[call-overload]
        self.operations.append(operation)
        return operation

    def answer(self, operation: Operation, answer: Answer) -> None:
        self.result(operation, result_of(answer, operation.kind))
        operation.ts, operation.incarnation = answer.ts, answer.receipt.incarnation.hex()

    def result(self, operation: Operation, result: object) -> None:
        operation.answered, operation.result = next(self.order), result  # type: ignore[call-overload]

    def settle(self, operation: Operation, fate: Fate) -> None:
        """Its fate is known for good."""
        operation.fate = fate

    def check(self, values: dict[bytes, Stored]) -> None:
        """Nothing is in flight, and these are the certified values of all keys. Raises NotExplainedError."""
        for key, before in self.values.items():
            operations = [operation for operation in self.operations if operation.key == key]
            explain(key, before, operations, values[key])
        self.fates.update(operation.fate for operation in self.operations)
        self.operations.clear()
        self.values = values


def result_of(answer: Answer, kind: Kind) -> object:
    """What `Operation.result` has of an answer."""
    match answer:
        case Value(value=value) | Number(value=value):
            return value
        case Attempt(applied=applied, value=value):
            return (applied, value) if kind is Kind.COMPARE_AND_SET else applied
    return None
