"""The trace of everything that a service did to its files, as `recorder.c` writes it, and the notes of its clients.

A client's note is appended to the same file, after the client knows what it notes: whatever the service did before that
is earlier in the trace, and so the trace alone says what was promised at each moment of it.
"""

import ast
import os
import struct
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from crash.history import History
from support.linearizability import Fate, Kind, Operation, Stored

_RECORD: Final = struct.Struct("<IIQQII")
_SOURCE: Final = Path(__file__).with_name("recorder.c")


class Change(IntEnum):
    """What a record of the trace is: the numbers of `recorder.c`, and the notes."""

    WRITE = 1
    TRUNCATE = 2
    ALLOCATE = 3
    SYNC_BEGUN = 4
    SYNCED = 5
    CREATE = 6
    MKDIR = 7
    SYMLINK = 8
    LINK = 9
    RENAME = 10
    UNLINK = 11
    UNSUPPORTED = 12
    NOTE = 100


@dataclass(frozen=True)
class Event:
    """One record. `recorder.c` says what the fields are for each kind."""

    change: Change
    durable: bool
    file: int
    offset: int
    data: bytes
    other: bytes


@dataclass(frozen=True)
class Root:
    """The directory below which everything is recorded. It is there, whatever happens."""

    path: str
    inode: int

    @classmethod
    def of(cls, directory: Path) -> "Root":
        return cls(os.path.realpath(directory), directory.stat().st_ino)


def build_recorder(directory: Path) -> Path:
    """The library to preload. Raises FileNotFoundError if there is no C compiler, CalledProcessError if it fails."""
    library = directory / "recorder.so"
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def recording(library: Path, trace: Path, root: Root) -> dict[str, str]:
    """The environment in which a process and its children record what they do below `root`."""
    return {"LD_PRELOAD": str(library), "ZETAKV_RECORD_TRACE": str(trace), "ZETAKV_RECORD_ROOT": root.path}


def read_trace(path: Path) -> list[Event]:
    trace, at, events = path.read_bytes(), 0, []
    while at < len(trace):
        change, durable, file, offset, first, second = _RECORD.unpack_from(trace, at)
        data = at + _RECORD.size
        other = data + first
        at = other + second
        events.append(Event(Change(change), bool(durable), file, offset, trace[data:other], trace[other:at]))
    return events


class NotedHistory(History):
    """Of clients that note in the trace what they ask for and are told."""

    def __init__(self, trace: Path, values: dict[bytes, Stored]) -> None:
        super().__init__(values)
        self._descriptor = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def call(self, key: bytes, kind: Kind, **arguments: Any) -> Operation:
        operation = super().call(key, kind, **arguments)
        self.note("call", operation.number, key, kind.value, arguments)
        return operation

    def result(self, operation: Operation, result: object) -> None:
        super().result(operation, result)
        self.note("answer", operation.number, result)

    def settle(self, operation: Operation, fate: Fate) -> None:
        super().settle(operation, fate)
        self.note("fate", operation.number, fate.value)

    def note(self, *what: Any) -> None:
        """Literals only."""
        data = repr(what).encode()
        os.write(self._descriptor, _RECORD.pack(Change.NOTE, 0, 0, 0, len(data), 0) + data)

    def close(self) -> None:
        os.close(self._descriptor)


def root_of(events: list[Event]) -> Root:
    """The first note of every trace."""
    what, path, inode = ast.literal_eval(events[0].data.decode())
    assert what == "root"
    return Root(path, inode)


@dataclass(frozen=True)
class Promise:
    """What was promised at a moment of the trace."""

    operations: list[Operation]
    """All that were called, with their fates so far."""
    identity: tuple[str, str] | None
    """Fingerprint and admin's key, once the operator was told that the service is ready."""


def promised(events: list[Event]) -> Promise:
    operations: dict[int, Operation] = {}
    identity = None
    answers_stand = False
    for place, event in enumerate(events):
        if event.change is not Change.NOTE:
            continue
        match ast.literal_eval(event.data.decode()):
            case "root", _, _:
                pass
            case "durability", which:
                answers_stand = which == "wal"
            case "ready", fingerprint, key:
                identity = (fingerprint, key)
            case "call", number, key, kind, arguments:
                operations[number] = Operation(number, key, Kind(kind), called=place, **arguments)
            case "answer", number, result:
                operations[number].answered, operations[number].result = place, result
                if answers_stand:
                    operations[number].fate = Fate.CERTIFIED  # it will be
            case "fate", number, fate:
                operations[number].fate = Fate(fate)
    return Promise(list(operations.values()), identity)
