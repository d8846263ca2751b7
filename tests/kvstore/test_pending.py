"""Pending checkpoints: durable at once, applied in small transactions, and whole again after a crash at any point."""

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.limits import MIB
from kvstore.pending import PENDING_BYTES_MIN, PENDING_DIVISOR, ROWS_AT_ONCE_MIN, Pending
from kvstore.storage import LmdbReader, LmdbWriter, Row, StorageError, pack_rows

KEYS = 6 * ROWS_AT_ONCE_MIN
STATE = b"s"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbWriter]:
    with contextlib.closing(LmdbWriter(tmp_path / "store", MIB)) as store:
        yield store


def some_rows(randomness: random.Random, epoch: int, count: int) -> list[Row]:
    keys = randomness.sample(range(KEYS), count)
    return [(b"r%05d" % key, None if randomness.random() < 0.1 else b"%d of %d" % (key, epoch)) for key in keys]


def durable(pending: Pending, epoch: int, rows: list[Row]) -> None:
    pending.append(epoch, pack_rows(rows), [(STATE, b"%d" % epoch)])


def apply_all(pending: Pending) -> list[int]:
    applied = []
    while not pending.is_empty:
        if (epoch := pending.apply_some()) is not None:
            applied.append(epoch)
    return applied


def test_a_checkpoint_is_durable_before_its_rows_are_set_and_they_come_in_small_transactions(store: LmdbWriter) -> None:
    pending = Pending(store)
    assert pending.is_empty
    rows: list[Row] = [(b"r%05d" % key, b"1") for key in range(3 * ROWS_AT_ONCE_MIN)]
    durable(pending, 1, rows)
    assert not pending.is_empty
    assert store.read([STATE, rows[0][0]]) == [b"1", None]
    assert [pending.apply_some() for _ in range(3)] == [None, None, 1]
    assert pending.is_empty
    assert store.read([key for key, _ in rows]) == [row for _, row in rows]
    assert store.read([STATE]) == [b"1"]


def test_checkpoints_that_come_while_one_is_applied_wait_and_are_applied_together(store: LmdbWriter) -> None:
    pending = Pending(store)
    durable(pending, 1, [(b"r%05d" % key, b"1") for key in range(2 * ROWS_AT_ONCE_MIN)])
    assert pending.apply_some() is None
    durable(pending, 2, [(b"r00000", b"2"), (b"r00001", b"2")])
    durable(pending, 3, [(b"r00001", b"3"), (b"r00002", None)])
    assert store.read([STATE, b"r00000"]) == [b"3", b"1"]
    assert apply_all(pending) == [1, 3]
    assert store.read([b"r00000", b"r00001", b"r00002", b"r00003"]) == [b"2", b"3", None, b"1"]


def test_a_long_row_does_not_wait_for_a_thousand_others(store: LmdbWriter) -> None:
    pending = Pending(store)
    durable(pending, 1, [(b"r%05d" % key, bytes(2 * MIB)) for key in range(4)])
    assert [pending.apply_some() for _ in range(3)] == [None, None, None]
    assert pending.apply_some() == 1


def test_after_a_crash_at_any_point_what_was_durable_is_whole(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    randomness = random.Random(seed)
    path = tmp_path / "store"
    store = LmdbWriter(path, MIB)
    pending = Pending(store)
    expected: dict[bytes, bytes | None] = {}
    for epoch in range(1, 25):
        rows = some_rows(randomness, epoch, randomness.choice([0, 10, 3 * ROWS_AT_ONCE_MIN]))
        durable(pending, epoch, rows)
        expected |= dict(rows)
        for _ in range(randomness.randrange(4)):
            if not pending.is_empty:
                pending.apply_some()
        if randomness.random() < 0.3:
            crashed = tmp_path / f"crashed {epoch}"
            shutil.copytree(path, crashed)  # between two transactions: LMDB sees to the middle of one
            store.close()
            store = LmdbWriter(crashed, MIB)
            path, pending = crashed, Pending(store)
            assert store.read([STATE]) == [b"%d" % epoch]
            if randomness.random() < 0.7:
                apply_all(pending)
                assert store.read(list(expected)) == list(expected.values())
    apply_all(pending)
    assert store.read(list(expected)) == list(expected.values())
    store.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_write_that_fails_before_its_commit_is_made_whole_again(
    store: LmdbWriter, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    pending = Pending(store)
    rows: list[Row] = [(b"r%05d" % key, b"1") for key in range(2 * ROWS_AT_ONCE_MIN)]
    durable(pending, 1, rows)
    assert pending.apply_some() is None
    fails = True

    def fail(point: str) -> None:
        if fails and point == "checkpointer.before_commit":
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr("kvstore.failpoints.hit", fail)
    for _ in range(2):
        with pytest.raises(StorageError, match=os.strerror(code)):
            durable(pending, 2, [(b"r00000", b"2")])
        with pytest.raises(StorageError, match=os.strerror(code)):
            pending.apply_some()
    assert store.read([STATE, rows[-1][0]]) == [b"1", None]
    fails = False
    durable(pending, 2, [(b"r00000", b"2")])
    assert apply_all(pending) == [1, 2]
    assert store.read([STATE, *(key for key, _ in rows)]) == [b"2", b"2", *(b"1" for _ in rows[1:])]


def test_checkpoints_wait_while_much_is_pending(store: LmdbWriter) -> None:
    pending = Pending(store)
    assert pending.has_room(10 * PENDING_BYTES_MIN), "the first never waits: nothing would make room for it"
    rows: list[Row] = [(b"r%05d" % key, bytes(MIB)) for key in range(PENDING_BYTES_MIN // MIB)]
    durable(pending, 1, rows[:2])
    assert pending.has_room(PENDING_BYTES_MIN // 2)
    durable(pending, 2, rows[2:])
    assert not pending.has_room(1)
    assert not Pending(store).has_room(1), "what a crash left counts"
    apply_all(pending)
    assert pending.has_room(10 * PENDING_BYTES_MIN)
    store.write([(b"r1%07d" % key, bytes(PENDING_DIVISOR * MIB)) for key in range(10)])
    durable(pending, 3, rows)
    assert pending.has_room(MIB), "a larger store may have more"


def test_the_file_stays_near_its_live_pages_where_a_single_transaction_doubles_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.pending.ROWS_AT_ONCE_MIN", 1)  # the store is small, for the time of the test
    randomness = random.Random(1)
    keys = [b"r" + randomness.randbytes(32) for _ in range(20_000)]
    checkpoints = [keys[at : at + 2_000] for at in range(0, len(keys), 2_000)]
    checkpoints += [randomness.sample(keys, 4_000) for _ in range(5)]
    sizes = []
    for name, is_pending in (("single", False), ("pending", True)):
        with contextlib.closing(LmdbWriter(tmp_path / name, 64 * MIB)) as store:
            pending = Pending(store)
            for epoch, changed in enumerate(checkpoints, 1):
                rows: list[Row] = [(key, randomness.randbytes(120)) for key in changed]
                if is_pending:
                    durable(pending, epoch, rows)
                    apply_all(pending)
                else:
                    store.write(sorted(rows))
        sizes.append((tmp_path / name / "data.mdb").stat().st_size)
        with contextlib.closing(LmdbReader(tmp_path / name)) as reader:
            assert None not in reader.read(keys)
    assert sizes[1] < 0.75 * sizes[0], sizes
