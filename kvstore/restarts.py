"""What a supervisor remembers of restarts: how many, why the last one, and whether it has become a crash loop.

Sans-IO: the caller has the clock. A run that certified an epoch has done its work, so what ends the next run is counted
from the beginning.
"""

from kvstore import limits
from kvstore.messages import Json


class CrashLoopError(Exception):
    """The service was restarted again and again, and got no further. The text says why the last run ended."""


class Restarts:
    """`count` and `reason` are for people, and for ever; what makes a crash loop is counted apart."""

    def __init__(self) -> None:
        self.count = 0
        self.reason: str | None = None
        self.gateway_count = 0
        self._fruitless: list[float] = []

    def certified(self) -> None:
        """A run has certified an epoch (without a monitor: made it durable)."""
        self._fruitless.clear()

    def add(self, reason: str, now: float) -> None:
        """A run has ended. Raises CrashLoopError if there should be no other."""
        self.reason = reason
        self._fruitless = [time for time in self._fruitless if now - time < limits.RESTARTS_SECONDS]
        if len(self._fruitless) >= limits.RESTARTS_MAX:
            raise CrashLoopError(
                f"{reason}; given up after {len(self._fruitless)} restarts within {limits.RESTARTS_SECONDS:g} s in "
                "which no epoch was certified: the log above says what ended each of them"
            )
        self._fruitless.append(now)
        self.count += 1

    def to_json(self) -> Json:
        return {"restarts": self.count, "last_restart": self.reason, "gateway_restarts": self.gateway_count}


class Pauses:
    """Pauses between attempts, each twice as long as the last one, up to a limit."""

    def __init__(self) -> None:
        self._next = limits.RETRY_SECONDS_MIN

    def next(self) -> float:
        pause, self._next = self._next, min(2 * self._next, limits.RETRY_SECONDS_MAX)
        return pause
