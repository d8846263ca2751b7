"""The disk as a power cut leaves it: all that was synced, and any part of what was not.

What a disk and its file system promise is POSIX's minimum, and no more:

- Data of a file is kept if a sync of the file began after it was written and has returned, or if the write itself was
  synchronous (O_DSYNC). Of other writes each *block* (512 or 4,096 bytes) is kept or lost by itself, in any order; a
  block that was written several times may be there as any of the writes left it. The size may be any that the file had
  since the last sync, and what was not written within it is zero.
- Names (made, renamed, removed) are kept if a sync of their directory began afterwards and has returned. Of others any
  first part is kept, in each directory: a file system keeps their order. A rename is whole.
- A sync of a file does not keep its name, nor one of a directory the directory's own name.

The model knows no bad sectors: what was kept stays readable.
"""

import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Final

from crash.powercut.trace import Change, Event, Root

BLOCK_BYTES: Final = (512, 4096)
_LUCK: Final = (0.05, 0.5, 0.95)


class Style(Enum):
    """What becomes of what was not synced."""

    ALL_LOST = "all is lost"
    ALL_KEPT = "all is kept"
    NAMES_ONLY = "names are kept, data is lost"
    SIZES_ONLY = "names and sizes are kept, data is lost"
    DATA_ONLY = "data is kept, names are lost"
    MIXED = "each block by chance"


@dataclass
class _Piece:
    """What one write changed in one block."""

    start: int
    data: bytes
    durable: bool


@dataclass
class File:
    mode: int
    changes: list[Event] = field(default_factory=list)
    synced: int = 0
    """So many of the changes are on disk, whatever happens."""

    def image(self, cut: "Cut") -> bytes:
        content = bytearray()
        for change in self.changes[: self.synced]:
            _apply(content, change)
        sizes, certain_size = [len(content)], 0
        pieces: dict[int, list[_Piece]] = {}
        for change in self.changes[self.synced :]:
            size = max(sizes[-1], change.offset + len(change.data))
            start, data = change.offset, change.data
            if change.change is Change.TRUNCATE:
                size, data = change.offset, bytes(max(sizes[-1] - change.offset, 0))
            sizes.append(size)
            if change.durable:
                certain_size = len(sizes) - 1
            for at in range(start - start % cut.block_bytes, start + len(data), cut.block_bytes):
                first, end = max(at, start), min(at + cut.block_bytes, start + len(data))
                piece = _Piece(first, data[first - start : end - start], change.durable)
                pieces.setdefault(at, []).append(piece)
        for versions in pieces.values():
            certain = max((number for number, piece in enumerate(versions, 1) if piece.durable), default=0)
            for piece in versions[: cut.data_kept(certain, len(versions))]:
                _put(content, piece.start, piece.data)
        size = sizes[cut.sizes_kept(certain_size, len(sizes) - 1)]
        return bytes(content[:size].ljust(size, b"\0"))


def _apply(content: bytearray, change: Event) -> None:
    if change.change is Change.WRITE:
        _put(content, change.offset, change.data)
    elif change.change is Change.ALLOCATE:
        content.extend(bytes(max(change.offset - len(content), 0)))
    else:
        content[:] = content[: change.offset].ljust(change.offset, b"\0")


def _put(content: bytearray, start: int, data: bytes) -> None:
    content.extend(bytes(max(start - len(content), 0)))
    content[start : start + len(data)] = data


@dataclass
class Link:
    target: str


@dataclass
class Directory:
    mode: int
    names: dict[str, "Node"] = field(default_factory=dict)
    """As the running system sees them."""
    changes: list[tuple[str | None, str | None, "Node | None"]] = field(default_factory=list)
    """(name that goes, name that comes, what it stands for). One of the names may be None."""
    synced: int = 0

    def change(self, goes: str | None, comes: str | None, node: "Node | None") -> None:
        self.changes.append((goes, comes, node))
        _rename(self.names, goes, comes, node)

    def image(self, cut: "Cut") -> dict[str, "Node"]:
        names: dict[str, Node] = {}
        for change in self.changes[: cut.names_kept(self.synced, len(self.changes))]:
            _rename(names, *change)
        return names


Node = File | Directory | Link


def _rename(names: dict[str, Node], goes: str | None, comes: str | None, node: Node | None) -> None:
    if goes is not None:
        del names[goes]
    if comes is not None:
        assert node is not None
        names[comes] = node


@dataclass
class Cut:
    """How one power cut ends. The same seed makes the same image."""

    position: int
    """Events of the trace that have happened."""
    style: Style
    block_bytes: int
    seed: int
    _chance: random.Random = field(init=False, repr=False, compare=False)
    _luck: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._luck = self._chance.choice(_LUCK)

    def data_kept(self, certain: int, all_of_them: int) -> int:
        return self._kept(certain, all_of_them, self.style in (Style.ALL_KEPT, Style.DATA_ONLY))

    def sizes_kept(self, certain: int, all_of_them: int) -> int:
        return self._kept(certain, all_of_them, self.style in (Style.ALL_KEPT, Style.DATA_ONLY, Style.SIZES_ONLY))

    def names_kept(self, certain: int, all_of_them: int) -> int:
        return self._kept(certain, all_of_them, self.style in (Style.ALL_KEPT, Style.NAMES_ONLY, Style.SIZES_ONLY))

    def _kept(self, certain: int, all_of_them: int, keeps: bool) -> int:
        if self.style is not Style.MIXED:
            return all_of_them if keeps else certain
        return all_of_them if self._chance.random() < self._luck else self._chance.randint(certain, all_of_them)


class Disk:
    """Plays a trace. `ignores_syncs` is the canary: a disk that says it has synced and has not."""

    def __init__(self, root: Root, ignores_syncs: bool = False) -> None:
        self._root_path = PurePosixPath(root.path)
        self._root = Directory(0o755)
        self._ignores_syncs = ignores_syncs
        self._nodes: dict[int, Node] = {root.inode: self._root}
        """By inode. A number is used again once its file is gone."""
        self._begun: dict[tuple[int, int], tuple[Node, int]] = {}

    def play(self, events: Iterable[Event]) -> None:
        for event in events:
            self._play(event)

    def write_image(self, cut: Cut, directory: Path) -> None:
        """Make the image in this directory, which is empty."""
        self._write(self._root, cut, directory)

    def _write(self, node: Directory, cut: Cut, directory: Path) -> None:
        for name, child in node.image(cut).items():
            path = directory / name
            match child:
                case Link(target):
                    path.symlink_to(target)
                case Directory():
                    path.mkdir()
                    self._write(child, cut, path)
                    path.chmod(child.mode)
                case File():
                    path.write_bytes(child.image(cut))
                    path.chmod(child.mode)

    def _play(self, event: Event) -> None:
        match event.change:
            case Change.NOTE:
                pass
            case Change.UNSUPPORTED:
                raise NotImplementedError(f"the recorder cannot follow: {event.data!r} {event.other!r}")
            case Change.WRITE | Change.TRUNCATE | Change.ALLOCATE:
                file = self._nodes[event.file]
                assert isinstance(file, File)
                durable = event.durable and not self._ignores_syncs
                file.changes.append(Event(event.change, durable, 0, event.offset, event.data, b""))
            case Change.SYNC_BEGUN:
                node = self._nodes[event.file]
                assert not isinstance(node, Link)
                self._begun[event.file, event.offset] = (node, len(node.changes))
            case Change.SYNCED:
                node, count = self._begun.pop((event.file, event.offset))
                if not self._ignores_syncs:
                    node.synced = max(node.synced, count)
            case _:
                self._change_names(event)

    def _change_names(self, event: Event) -> None:
        directory, name = self._place(event.data)
        match event.change:
            case Change.CREATE:
                self._make(event.file, File(event.offset), directory, name)
            case Change.MKDIR:
                self._make(event.file, Directory(event.offset), directory, name)
            case Change.SYMLINK:
                self._make(event.file, Link(event.other.decode()), directory, name)
            case Change.LINK:
                to_directory, to_name = self._place(event.other)
                to_directory.change(None, to_name, directory.names[name])
            case Change.RENAME:
                to_directory, to_name = self._place(event.other)
                if to_directory is not directory:
                    raise NotImplementedError(f"a rename to another directory: {event.other!r}")
                directory.change(name, to_name, directory.names[name])
            case Change.UNLINK:
                directory.change(name, None, None)

    def _make(self, file: int, node: Node, directory: Directory, name: str) -> None:
        self._nodes[file] = node
        directory.change(None, name, node)

    def _place(self, path: bytes) -> tuple[Directory, str]:
        *parents, name = PurePosixPath(os.fsdecode(path)).relative_to(self._root_path).parts
        directory = self._root
        for parent in parents:
            below = directory.names[parent]
            assert isinstance(below, Directory)
            directory = below
        return directory, name
