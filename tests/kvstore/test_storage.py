"""The LMDB store: atomic writes, a map that grows under its readers, rows that survive packing."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest

from kvstore.limits import KIB
from kvstore.storage import (
    _READERS_MAX,
    LmdbReader,
    LmdbWriter,
    StorageError,
    certificate_key,
    pack_rows,
    unpack_rows,
)

MAP_BYTES = 64 * KIB


@pytest.fixture
def writer(tmp_path: Path) -> LmdbWriter:
    return LmdbWriter(tmp_path / "store", MAP_BYTES)


def reopened(tmp_path: Path, writer: LmdbWriter) -> LmdbReader:
    """A reader of the same store. One process may open it once only, so the writer is closed first."""
    writer.close()
    return LmdbReader(tmp_path / "store")


def test_what_was_written_is_read_in_the_order_of_the_question(tmp_path: Path, writer: LmdbWriter) -> None:
    writer.write([(b"ra", b"1"), (b"rb", b"2"), (b"rc", b"3")])
    writer.write([(b"rb", None), (b"rc", b"33")])
    assert writer.read([b"rc", b"rb", b"ra"]) == [b"33", None, b"1"]
    reader = reopened(tmp_path, writer)
    assert reader.read([b"rc", b"rb", b"ra", b"none"]) == [b"33", None, b"1", None]
    reader.close()


def test_scan_gives_the_half_open_range_in_order(tmp_path: Path, writer: LmdbWriter) -> None:
    writer.write([(bytes((byte,)), b"v%d" % byte) for byte in (9, 3, 5, 7)])
    reader = reopened(tmp_path, writer)
    assert list(reader.scan(b"\3", b"\7")) == [(b"\3", b"v3"), (b"\5", b"v5")]
    assert list(reader.scan(b"\x0a", b"p")) == []
    reader.close()


def test_ranges_are_read_until_they_have_enough_bytes(tmp_path: Path, writer: LmdbWriter) -> None:
    writer.write([(b"r%d" % number, bytes(100)) for number in range(9)])
    reader = reopened(tmp_path, writer)
    ranges = [(b"r0", b"r3"), (b"r3", b"r4"), (b"r4", b"s")]
    keys = [[key for key, _ in rows] for rows in reader.read_ranges(ranges, 4, 1_000)]
    assert keys == [[b"r0", b"r1", b"r2"], [b"r3"], [b"r4", b"r5", b"r6", b"r7"]]
    assert [len(rows) for rows in reader.read_ranges(ranges, 4, 400)] == [3, 1]
    assert [len(rows) for rows in reader.read_ranges(ranges, 4, 1)] == [3], "one is always read"
    reader.close()


def test_the_map_grows_and_nothing_is_lost(tmp_path: Path, writer: LmdbWriter) -> None:
    writer.write([(b"r-first", b"kept")])
    rows = [(b"r%06d" % number, bytes(100)) for number in range(20_000)]
    writer.write(rows)  # far more than the map at first
    reader = reopened(tmp_path, writer)
    assert reader.read([b"r-first", *(key for key, _ in rows)]) == [b"kept", *(row for _, row in rows)]
    reader.close()


def test_a_reader_follows_a_map_that_another_process_enlarged(tmp_path: Path, writer: LmdbWriter) -> None:
    writer.write([(b"ra", b"before")])
    reader = reopened(tmp_path, writer)
    assert reader.read([b"ra", b"r019999"]) == [b"before", None]
    script = (
        "import sys; from pathlib import Path; from kvstore.storage import LmdbWriter\n"
        f"LmdbWriter(Path(sys.argv[1]), {MAP_BYTES}).write([(b'r%06d' % n, bytes(100)) for n in range(20000)])"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "store")], check=True)
    assert reader.read([b"ra", b"r019999"]) == [b"before", bytes(100)]
    reader.close()


def test_a_write_that_fails_changes_nothing(writer: LmdbWriter) -> None:
    writer.write([(b"ra", b"old")])
    with pytest.raises(StorageError, match="store"):
        writer.write([(b"ra", b"new"), (b"r" + bytes(600), b"a key that LMDB does not take")])
    assert writer.read([b"ra"]) == [b"old"]


def test_a_reader_names_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        LmdbReader(tmp_path / "nowhere")


def test_the_writer_refuses_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.mkdir()
    (path / "data.mdb").write_bytes(b"not LMDB at all" * 1_000)
    with pytest.raises(StorageError, match="store"):
        LmdbWriter(path, MAP_BYTES)


def test_packed_rows_come_back() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    randomness = random.Random(seed)
    rows = [
        (randomness.randbytes(randomness.randrange(40)), randomness.choice([None, b"", randomness.randbytes(300)]))
        for _ in range(200)
    ]
    packed = pack_rows(rows)
    assert list(unpack_rows(packed)) == rows
    with pytest.raises(StorageError, match="middle of a row"):
        list(unpack_rows(packed + b"\5\0"))


def test_certificates_are_in_the_order_of_their_epochs() -> None:
    epochs = [1, 255, 256, 65_536, 2**32 - 1]
    assert sorted(map(certificate_key, reversed(epochs))) == [certificate_key(epoch) for epoch in epochs]


def test_a_store_whose_creation_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    unfinished = tmp_path / "store" / "data.mdb.new"
    unfinished.parent.mkdir()
    unfinished.write_bytes(bytes(8192))  # what a power cut can leave of LMDB's first pages
    writer = LmdbWriter(tmp_path / "store", MAP_BYTES)
    writer.write([(b"key", b"row")])
    assert writer.read([b"key"]) == [b"row"]
    assert not unfinished.exists()
    writer.close()


_KILLED_READER = """
import lmdb, os, signal, sys
transaction = lmdb.open(sys.argv[1], readonly=True, max_readers=int(sys.argv[2])).begin()
transaction.get(b"ra")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_reader_that_was_killed_does_not_make_the_store_grow(tmp_path: Path) -> None:
    writer = LmdbWriter(tmp_path / "store", MAP_BYTES)

    def write_all() -> None:
        writer.write([(b"r%04d" % number, bytes(1000)) for number in range(100)])

    for _ in range(4):
        write_all()
    before = writer.pages
    reader = [sys.executable, "-c", _KILLED_READER, str(tmp_path / "store"), str(_READERS_MAX)]
    assert subprocess.run(reader, check=False).returncode == -signal.SIGKILL
    for _ in range(20):
        write_all()
    assert writer.pages <= before + 40, "pages are used again"
    writer.close()


def test_what_cannot_be_opened_again_after_a_failure_says_so_until_it_can(
    tmp_path: Path, writer: LmdbWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise lmdb.Error("mdb_txn_commit: Input/output error")

    writer.append(0, 1, b"packed", [(b"ra", b"old")])
    monkeypatch.setattr("kvstore.failpoints.hit", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        writer.write([(b"ra", b"new")])
    monkeypatch.undo()
    (tmp_path / "store").rename(tmp_path / "away")
    asked: list[Callable[[], object]] = [
        lambda: writer.pages,
        lambda: writer.read([b"ra"]),
        lambda: writer.write([(b"ra", b"new")]),
        lambda: writer.pending_epoch(0),
        lambda: writer.pending_bytes(0),
        lambda: writer.pending_rows(0),
    ]
    for ask in 2 * asked:
        with pytest.raises(StorageError, match="No such file"):
            ask()
    (tmp_path / "away").rename(tmp_path / "store")
    assert writer.pages > 0
    assert writer.read([b"ra"]) == [b"old"]
    assert writer.pending_epoch(0) == 1


@pytest.mark.parametrize("free_bytes", [0, 10 << 20])
def test_a_write_that_a_full_disk_cut_short_is_called_so(
    writer: LmdbWriter, monkeypatch: pytest.MonkeyPatch, free_bytes: int
) -> None:
    def fail(_: str) -> None:
        raise lmdb.Error("mdb_txn_commit: Input/output error")

    monkeypatch.setattr("kvstore.failpoints.hit", fail)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free_bytes, f_frsize=1))
    with pytest.raises(StorageError, match="Input/output error") as found:
        writer.write([(b"ra", b"1")])
    assert ("No space left on device" in str(found.value)) == (free_bytes == 0)
