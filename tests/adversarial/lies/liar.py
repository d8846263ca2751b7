"""Where a host lies: every message between two parties, and every row, passes through here.

A `Lie` waits for its moment: it lets `skip` messages (or rows, or checkpoints) of its layer pass, and is told about the
next one that it fits. What it then does is in `catalogue.py`, by layer and name. One that never found its moment was
not told.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from _harness.verifier_log import Entry, Output
from support.frames import Frame

from kvstore.messages import Monitor, Server

if TYPE_CHECKING:
    from lies.host import Stored

T = TypeVar("T")


class Layer(Enum):
    """Where a lie is told."""

    TO_SERVER = "frames to the server"
    TO_CLIENT = "frames to a client"
    CERTIFICATES = "certificates to a client"
    LOG = "verifier log"
    OUTPUTS = "outputs of the monitor"
    TO_MONITOR = "control messages to the monitor"
    TO_HOST = "control messages to the host"
    ROW_READ = "rows as they are read"
    CHECKPOINT = "checkpoints as they are stored"
    STORE = "the store between two steps"
    REPLAY = "write-ahead log as it is replayed"
    TICKETS = "tickets as they are offered"


@dataclass(frozen=True)
class Lie:
    """`pick`: a number that decides what of a message is changed, and how."""

    layer: Layer
    name: str
    skip: int
    pick: int

    def __str__(self) -> str:
        return f"{self.layer.value}: {self.name} (skip {self.skip}, pick {self.pick})"


@dataclass
class Armed:
    lie: Lie
    skip: int


@dataclass
class Memory:
    """What the liar has seen and kept back, of one layer."""

    seen: list[Any] = field(default_factory=list)
    held: list[Any] = field(default_factory=list)
    """Goes out behind the next message of this layer."""
    kept: list[Any] = field(default_factory=list)
    """Goes out when the script says so."""


Action = Callable[[Any, random.Random, Memory], Any | None]
"""What is sent in place of a message; None: this one cannot be lied about so."""


class Liar:
    """Honest until something is armed. `told`: what was."""

    def __init__(self, catalogue: dict[Layer, dict[str, Action]]) -> None:
        self.told: list[Lie] = []
        self._catalogue = catalogue
        self._armed: list[Armed] = []
        self._memories: dict[Layer, Memory] = defaultdict(Memory)

    def arm(self, lie: Lie) -> None:
        self._armed.append(Armed(lie, lie.skip))

    def disarm(self) -> None:
        """Honest from now on, but for what is kept back: that may come yet."""
        self._armed.clear()

    def released(self, layer: Layer) -> list[Any]:
        """What was kept back goes out now."""
        memory = self._memories[layer]
        kept, memory.kept = memory.kept, []
        return kept

    # --- moments ---

    def to_server(self, who: Any, frame: Frame) -> list[tuple[Any, Frame]]:
        return self._messages(Layer.TO_SERVER, (who, frame))

    def to_client(self, who: Any, frame: Frame) -> list[tuple[Any, Frame]]:
        layer = Layer.CERTIFICATES if frame.kind == Server.CERTIFICATE else Layer.TO_CLIENT
        return self._messages(layer, (who, frame))

    def log(self, thread: int, entries: list[Entry]) -> list[Entry]:
        return self._one(Layer.LOG, entries)

    def outputs(self, thread: int, outputs: list[Output]) -> list[Output]:
        return self._one(Layer.OUTPUTS, outputs)

    def to_monitor(self, frame: Frame) -> list[Frame]:
        return self._messages(Layer.TO_MONITOR, frame)

    def to_host(self, frame: Frame) -> list[Frame]:
        # Before anything has started there is nothing to lie about; what it has failed with is its last word.
        if frame.kind in (Monitor.STARTED, Monitor.NOT_STARTED, Monitor.FAILED):
            return [frame]
        return self._messages(Layer.TO_HOST, frame)

    def row_read(self, key: bytes, row: bytes | None) -> bytes | None:
        changed: tuple[bytes, bytes | None] = self._one(Layer.ROW_READ, (key, row))
        return changed[1]

    def store(self, stored: "Stored", rows: Iterable[tuple[bytes, bytes | None]], sealed: bytes) -> None:
        """An honest host stores rows and sealed state."""
        rows, sealed = self._one(Layer.CHECKPOINT, (list(rows), sealed))
        for key, row in rows:
            if row is None:
                stored.rows.pop(key, None)
            else:
                stored.rows[key] = row
        stored.sealed = sealed

    def replayed(self, records: list[bytes]) -> list[bytes]:
        """Of one thread's write-ahead log."""
        return self._one(Layer.REPLAY, records)

    def tickets(self, tickets: list[bytes]) -> list[bytes]:
        return self._one(Layer.TICKETS, tickets)

    def between(self, stored: "Stored", snapshots: "list[Stored]") -> None:
        """Lies about the store itself."""
        self._one(Layer.STORE, (stored, snapshots))

    # --- inside ---

    def _messages(self, layer: Layer, message: T) -> list[T]:
        memory = self._memories[layer]
        held, memory.held = memory.held, []
        sent = self._lied(layer, message, memory)
        memory.seen.append(message)
        return ([message] if sent is None else list(sent)) + held

    def _one(self, layer: Layer, message: Any) -> Any:
        memory = self._memories[layer]
        changed = self._lied(layer, message, memory)
        memory.seen.append(message)
        return message if changed is None else changed

    def _lied(self, layer: Layer, message: Any, memory: Memory) -> Any | None:
        for armed in self._armed:
            lie = armed.lie
            if lie.layer is not layer:
                continue
            if armed.skip:
                armed.skip -= 1
                continue
            lied = self._catalogue[layer][lie.name](message, random.Random(lie.pick), memory)
            if lied is None:
                continue
            self._armed.remove(armed)
            self.told.append(lie)
            return lied
        return None
