"""Clients that do everything a client can do, on few keys, and note what they were told."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Sequence

from crash.history import History
from kvstore_client import (
    KV,
    Answer,
    IntegrityError,
    KVStoreError,
    NotAppliedError,
    ProvisionalLostError,
)
from support.linearizability import Fate, Kind, Operation, Stored

COUNTERS = [f"counter {i}".encode() for i in range(4)]
REGISTERS = [f"register {i}".encode() for i in range(4)]
KEYS = COUNTERS + REGISTERS
PAUSE_SECONDS_MAX = 0.03
_LONG_VALUE_BYTES = 3_000


BULK = [b"bulk %d" % i for i in range(3_000)]
_BULK_PAUSE_SECONDS = 0.05


class Bulk:
    """Puts so many records at once that their checkpoint is applied in several transactions (at least 1,000 rows each).

    All get the number of the attempt as their value. So each must have that of the last certified attempt, or of a
    later one.
    """

    def __init__(self, kv: KV) -> None:
        self._kv = kv
        self._attempted = 0
        self._certified = 0

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            self._attempted += 1
            attempt = self._attempted
            try:
                await self._kv.put_many(dict.fromkeys(BULK, b"%d" % attempt), certified=True)
                self._certified = attempt
            except IntegrityError:
                raise  # nobody lies here
            except KVStoreError:
                pass
            await asyncio.sleep(_BULK_PAUSE_SECONDS)

    async def check(self) -> None:
        """Nothing is in flight. Raises AssertionError."""
        for key, value in zip(BULK, await certified_values(self._kv, BULK), strict=True):
            assert self._certified <= int(value or b"0") <= self._attempted, (
                f"{key!r} has {value!r}; attempt {self._certified} was certified, {self._attempted} the last"
            )


async def certified_values(kv: KV, keys: Sequence[bytes]) -> list[Stored]:
    while True:
        # What was read just before a crash is lost with it: that says nothing, and is asked again.
        with contextlib.suppress(ProvisionalLostError):
            return [answer.value for answer in await kv.get_many(keys, certified=True)]


class Client:
    """One line of calls, each after the answer of the one before; whether they are certified is noted beside them."""

    def __init__(self, kv: KV, history: History, chance: random.Random) -> None:
        self._kv = kv
        self._history = history
        self._chance = chance

    async def run(self, over: asyncio.Event) -> None:
        """Until it is over, and the fate of every operation is known as well as it will be."""
        async with asyncio.TaskGroup() as fates:
            while not over.is_set():
                await self._some_operations(fates)
                await asyncio.sleep(self._chance.uniform(0, PAUSE_SECONDS_MAX))

    async def _some_operations(self, fates: asyncio.TaskGroup) -> None:
        kv, history, chance = self._kv, self._history, self._chance
        counter, register = chance.choice(COUNTERS), chance.choice(REGISTERS)
        certified = chance.random() < 0.2
        made: list[Operation]
        call: Awaitable[Answer | Sequence[Answer]]
        match chance.randrange(9):
            case 0 | 1 | 2:
                delta = chance.randint(-5, 10)
                made = [history.call(counter, Kind.INCREMENT, delta=delta)]
                call = kv.increment(counter, delta, certified=certified)
            case 3:
                value = self._value()
                made = [history.call(register, Kind.PUT, value=value)]
                call = kv.put(register, value, certified=certified)
            case 4:
                value = self._value()
                made = [history.call(register, Kind.INSERT, value=value)]
                call = kv.insert(register, value, certified=certified)
            case 5:
                known, new = self._last_known(register), chance.choice([None, self._value()])
                made = [history.call(register, Kind.COMPARE_AND_SET, expected=known, value=new)]
                call = kv.compare_and_set(register, known, new, certified=certified)
            case 6:
                key = chance.choice(KEYS)
                made = [history.call(key, Kind.DELETE)]
                call = kv.delete(key, certified=certified)
            case 7:
                keys = chance.sample(KEYS, 3)
                made = [history.call(key, Kind.GET) for key in keys]
                call = kv.get_many(keys, certified=certified)
            case _:
                # They share a request if they share a thread. `put_many` would tell only the first of their errors.
                values = {key: self._value() for key in chance.sample(REGISTERS, 2)}
                async with asyncio.TaskGroup() as puts:
                    for key, value in values.items():
                        put = history.call(key, Kind.PUT, value=value)
                        puts.create_task(self._note([put], kv.put(key, value, certified=certified), fates))
                return
        await self._note(made, call, fates)

    async def _note(
        self, made: list[Operation], call: Awaitable[Answer | Sequence[Answer]], fates: asyncio.TaskGroup
    ) -> None:
        try:
            answered = await call
        except (NotAppliedError, ProvisionalLostError):
            # Of several operations the first error is raised: the others may have had another fate.
            if len(made) == 1:
                self._history.settle(made[0], Fate.GONE)
            return
        except IntegrityError:
            raise  # nobody lies here
        except KVStoreError:
            return
        answers = [answered] if isinstance(answered, Answer) else answered
        for operation, answer in zip(made, answers, strict=True):
            self._history.answer(operation, answer)
            fates.create_task(self._note_fate(operation, answer))

    async def _note_fate(self, operation: Operation, answer: Answer) -> None:
        try:
            await answer.certified()
            self._history.settle(operation, Fate.CERTIFIED)
        except (NotAppliedError, ProvisionalLostError):
            self._history.settle(operation, Fate.GONE)
        except IntegrityError:
            raise
        except KVStoreError:
            pass

    def _value(self) -> bytes:
        """A value that no other operation writes, sometimes one that the monitor knows by its hash only."""
        value = self._chance.randbytes(12).hex().encode()
        return value.ljust(_LONG_VALUE_BYTES, b".") if self._chance.random() < 0.2 else value

    def _last_known(self, key: bytes) -> Stored:
        for operation in reversed(self._history.operations):
            if operation.key == key and operation.kind is Kind.PUT:
                return operation.value
        return self._history.values[key]
