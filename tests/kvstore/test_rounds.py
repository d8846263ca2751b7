"""The rounds of a worker: when a log is written while another one is in flight."""

import asyncio
from typing import Any, cast

from kvstore.rounds import Rounds


class Engine:
    """Has batches to write, each of so many operations; two of them are worth a log while another is in flight."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.absorbed: list[bytes] = []

    @property
    def busy(self) -> bool:
        return bool(self.waiting)

    @property
    def full(self) -> bool:
        return sum(self.waiting) >= 2

    def reads(self) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
        return [], []

    def log(self) -> bytes:
        return bytes(self.waiting.pop(0))

    def absorb(self, outputs: bytes) -> list[tuple[int, bytes]]:
        self.absorbed.append(outputs)
        return [(1, outputs)]

    def handed_over(self) -> None:
        return None


class Link:
    """A monitor that checks nothing before it is told to."""

    def __init__(self) -> None:
        self.logs: list[bytes] = []
        self.outputs: list[bytes] = []
        self.in_flight = 0

    def on_news(self) -> None: ...

    def send(self, log: bytes) -> None:
        self.logs.append(log)
        self.in_flight += 1

    def receive(self) -> bytes | None:
        if not self.outputs:
            return None
        self.in_flight -= 1
        return self.outputs.pop(0)

    def answer(self, outputs: bytes) -> None:
        self.outputs.append(outputs)
        self.on_news()


async def test_a_log_is_written_while_another_is_in_flight_if_it_is_worth_its_message() -> None:
    engine, link, answers = Engine(), Link(), list[tuple[int, bytes]]()
    rounds = Rounds(
        cast(Any, engine), cast(Any, None), cast(Any, link), answers.extend, lambda: None, lambda _epoch: None
    )

    async def submit(operations: int) -> None:
        engine.waiting.append(operations)
        rounds.wake()
        await asyncio.sleep(0.01)

    async def answer(outputs: bytes) -> None:
        link.answer(outputs)
        await asyncio.sleep(0.01)

    running = asyncio.create_task(rounds.run())
    await submit(1)
    assert link.logs == [bytes(1)], "nothing else is in flight"
    await submit(1)
    assert link.logs == [bytes(1)], "too short while another is in flight"
    await answer(b"of the first")
    assert link.logs == [bytes(1), bytes(1)]
    await submit(2)
    assert link.logs == [bytes(1), bytes(1), bytes(2)], "worth its message"
    await submit(2)
    assert len(link.logs) == 3, "two in flight are enough"
    await answer(b"of the second")
    assert len(link.logs) == 4
    await answer(b"of the third")
    await answer(b"of the fourth")
    assert engine.absorbed == [b"of the first", b"of the second", b"of the third", b"of the fourth"]
    assert answers == [(1, outputs) for outputs in engine.absorbed]
    assert link.in_flight == 0
    running.cancel()
