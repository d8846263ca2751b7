"""Which sessions of the monitor live on a connection, and which to give up.

A client that loses its connection may come back and resume, so its session outlives it for a while. The monitor keeps
a bounded number; the ones idle longest make room. Sans-IO: times come in as arguments.
"""

from typing import Final

from kvstore import limits

# Room that hellos in flight may take before the next look.
_ROOM: Final = 64


class Sessions:
    """Counts connections per session; one without any is idle since a time, in seconds."""

    def __init__(
        self, sessions_max: int = limits.SESSIONS_MAX, idle_seconds: float = limits.SESSION_IDLE_SECONDS
    ) -> None:
        self._target = max(sessions_max - _ROOM, 1)
        self._idle_seconds = idle_seconds
        self._connections: dict[int, int] = {}
        self._idle_since: dict[int, float] = {}  # in the order of their times

    def __len__(self) -> int:
        return len(self._connections) + len(self._idle_since)

    def found(self, session: int) -> None:
        """A hello or a resume put the session on a connection."""
        self._idle_since.pop(session, None)
        self._connections[session] = self._connections.get(session, 0) + 1

    def lost(self, session: int, now: float) -> None:
        """One of its connections is gone."""
        count = self._connections.pop(session, 0) - 1
        if count > 0:
            self._connections[session] = count
        else:
            self._idle_since[session] = now

    def give_up(self, now: float) -> list[int]:
        """Sessions to close now, forgotten here."""
        closing: list[int] = []
        for session, since in self._idle_since.items():
            if now - since < self._idle_seconds and len(self) - len(closing) <= self._target:
                break
            closing.append(session)
        for session in closing:
            del self._idle_since[session]
        return closing
