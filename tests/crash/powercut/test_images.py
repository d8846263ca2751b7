"""The model of a power cut: what it must keep, and what it may lose."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.powercut.images import Cut, Disk, Style
from crash.powercut.trace import Change, Event, Root

ROOT = Root("/root", 1)
FILE, SYNC = 2, 7


def event(change: Change, file: int = FILE, offset: int = 0, data: bytes = b"", other: bytes = b"") -> Event:
    return Event(change, False, file, offset, data, other)


def write(data: bytes, offset: int = 0, *, durable: bool = False) -> Event:
    return Event(Change.WRITE, durable, FILE, offset, data, b"")


def synced(file: int = FILE) -> list[Event]:
    return [event(Change.SYNC_BEGUN, file, SYNC), event(Change.SYNCED, file, SYNC)]


CREATED = event(Change.CREATE, FILE, 0o600, b"/root/name")
DURABLE_NAME = [CREATED, *synced(ROOT.inode)]


def images(directory: Path, events: list[Event], *, ignores_syncs: bool = False) -> Iterator[dict[str, bytes]]:
    """What is found after many cuts at the end of these events."""
    disk = Disk(ROOT, ignores_syncs)
    disk.play(events)
    for seed in range(40):
        for style in Style:
            image = directory / f"{seed} {style.name}"
            image.mkdir()
            disk.write_image(Cut(len(events), style, 512, seed), image)
            yield {path.name: path.read_bytes() for path in image.iterdir()}


def contents(directory: Path, events: list[Event]) -> set[bytes]:
    return {image["name"] for image in images(directory, [*DURABLE_NAME, *events])}


def test_a_name_is_kept_only_by_a_sync_of_its_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert {} in images(tmp_path / "a", [CREATED, write(b"data"), *synced()])
    assert {} not in images(tmp_path / "b", [CREATED, write(b"data"), *synced(), *synced(ROOT.inode)])


def test_blocks_of_an_unsynced_write_are_lost_one_by_one(tmp_path: Path) -> None:
    found = contents(tmp_path, [write(b"a" * 1024), *synced(), write(b"b" * 1024)])
    assert found == {first * 512 + second * 512 for first in (b"a", b"b") for second in (b"a", b"b")}


def test_a_sync_keeps_what_was_written_before_it_began(tmp_path: Path) -> None:
    begun, ended = synced()
    assert contents(tmp_path, [write(b"1"), begun, write(b"2"), ended]) == {b"1", b"2"}


def test_a_sync_that_has_not_returned_promises_nothing(tmp_path: Path) -> None:
    begun, _ = synced()
    assert contents(tmp_path, [write(b"1"), begun]) == {b"1", b"", b"\0"}


def test_a_synchronous_write_keeps_its_block_and_no_other(tmp_path: Path) -> None:
    found = contents(
        tmp_path, [write(b"-" * 1024), *synced(), write(b"a", 600), write(b"b", 0), write(b"c", 1, durable=True)]
    )
    assert {content[:2] for content in found} == {b"bc"}
    assert {content[600:601] for content in found} == {b"-", b"a"}


def test_a_size_may_be_kept_without_the_data(tmp_path: Path) -> None:
    assert {b"", bytes(1000), b"x" * 1000} <= contents(tmp_path, [write(b"x" * 1000)])


def test_a_truncation_may_be_lost(tmp_path: Path) -> None:
    truncated = event(Change.TRUNCATE, offset=2)
    assert {b"12", b"1234"} <= contents(tmp_path, [write(b"1234"), *synced(), truncated])


def test_names_change_in_their_order(tmp_path: Path) -> None:
    """A file that is put in the place of another is whole, or the other is there."""
    new = event(Change.CREATE, 3, 0o600, b"/root/name.new")
    events = [*DURABLE_NAME, write(b"old"), *synced(), new, Event(Change.WRITE, False, 3, 0, b"new", b""), *synced(3)]
    events.append(event(Change.RENAME, 0, 0, b"/root/name.new", b"/root/name"))
    found = list(images(tmp_path, events))
    assert {image["name"] for image in found} == {b"old", b"new"}
    assert {"name": b"old", "name.new": b"new"} in found


def test_a_disk_that_ignores_syncs_keeps_nothing_for_certain(tmp_path: Path) -> None:
    assert {} in images(tmp_path, [*DURABLE_NAME, write(b"data", durable=True), *synced()], ignores_syncs=True)


def test_what_cannot_be_followed_is_not_passed_over() -> None:
    with pytest.raises(NotImplementedError, match="sendfile"):
        Disk(ROOT).play([event(Change.UNSUPPORTED, data=b"sendfile")])
