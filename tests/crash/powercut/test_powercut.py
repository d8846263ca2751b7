"""A few of the images that a power cut can leave. Hundreds of them: `make powercut`."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.powercut.check import check, plan, record
from crash.powercut.images import Cut, Disk, Style
from crash.powercut.trace import Event, build_recorder, root_of
from kvstore_client import RefusedError
from support.linearizability import Fate

IMAGES = int(os.environ.get("ZETAKV_IMAGES", "3"))


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zk-") as path:  # short: sockets are in it
        yield Path(path)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc), which builds the recorder of file changes")
@pytest.mark.timeout(120 + 10 * IMAGES)
@pytest.mark.parametrize("durability", ["epoch", "wal"])
async def test_what_clients_were_told_is_true_after_power_cuts(directory: Path, seed: int, durability: str) -> None:
    events = await record(directory, build_recorder(directory), seed, durability)
    assert image_of_all(events, directory / "all") == content(directory / "disk"), "the recorder misses changes"
    promises = 0
    for number in range(IMAGES):
        promise = await check(events, plan(events, seed, number), directory / str(number))
        promises += sum(operation.fate is Fate.CERTIFIED for operation in promise.operations)
    assert promises > 0
    # The canary: a disk that has not done what it said loses what was certified, and that is found.
    lying = Cut(len(events), Style.ALL_LOST, 512, seed)
    with pytest.raises(RefusedError, match="not signed by the client key"):
        await check(events, lying, directory / "canary", ignores_syncs=True)


def image_of_all(events: list[Event], directory: Path) -> dict[str, bytes]:
    disk = Disk(root_of(events))
    disk.play(events)
    directory.mkdir()
    disk.write_image(Cut(len(events), Style.ALL_KEPT, 512, 0), directory)
    return content(directory)


def content(directory: Path) -> dict[str, bytes]:
    """Of all files, but LMDB's lock file, which all processes map."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "lock.mdb")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}
