"""Answers that wait until the records of their requests are durable: what was answered must survive a crash. Sans-IO.

Answers of one thread keep their order.
"""

from collections import deque

Answers = list[tuple[int, bytes]]


class Gate:
    def __init__(self) -> None:
        self._durable = 0
        self._held: deque[tuple[int, Answers]] = deque()

    def hold(self, number: int, answers: Answers) -> None:
        """Answers that may go out when the records with numbers up to `number` are durable."""
        self._held.append((number, answers))

    def give_up(self, frame: bytes) -> None:
        """`frame` goes out in place of every answer that is held."""
        self._held = deque([(0, [(origin, frame) for _, answers in self._held for origin, _ in answers])])

    def durable(self, number: int) -> None:
        self._durable = max(self._durable, number)

    def release(self) -> Answers:
        """The answers that may go out now, in order."""
        released: Answers = []
        while self._held and self._held[0][0] <= self._durable:
            released += self._held.popleft()[1]
        return released
