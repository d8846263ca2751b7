"""A checkpoint is written when, and only when, all of its parts are there; and a store names what cannot be served."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.checkpointer import Checkpointer, check_meta, opening
from kvstore.limits import MIB
from kvstore.pending import Pending
from kvstore.storage import SEALED_KEY, LmdbWriter, StorageError, certificate_key, pack_rows


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbWriter]:
    with contextlib.closing(LmdbWriter(tmp_path / "store", MIB)) as store:
        yield store


@pytest.mark.parametrize("order", [("a", "b", "s"), ("s", "b", "a"), ("b", "s", "a")])
def test_all_parts_in_any_order_make_a_checkpoint(store: LmdbWriter, order: tuple[str, ...]) -> None:
    checkpointer, pending = Checkpointer(workers=2, verified=True), Pending(store)
    parts = {
        "a": lambda: checkpointer.rows(7, 0, pack_rows([(b"ra", b"1")])),
        "b": lambda: checkpointer.rows(7, 1, pack_rows([(b"rb", b"2"), (b"rc", None)])),
        "s": lambda: checkpointer.store(7, b"certificate 6", b"sealed 7"),
    }
    for name in order:
        assert not checkpointer.is_complete
        parts[name]()
    assert checkpointer.is_complete
    assert checkpointer.write(pending) == 7
    assert not checkpointer.is_complete
    # Durable: the packed rows, and with them what a start needs. Not applied: the rows themselves.
    assert store.read([b"ra", SEALED_KEY, certificate_key(6)]) == [None, b"sealed 7", b"certificate 6"]
    assert opening(store, verified=True)["meta"] == {"format": 3, "verified": True, "epoch": 7, "threads": 2}
    assert pending.apply_some() == 7
    assert store.read([b"ra", b"rb", b"rc"]) == [b"1", b"2", None]


def test_rows_of_another_epoch_do_not_complete_a_checkpoint() -> None:
    checkpointer = Checkpointer(workers=2, verified=True)
    checkpointer.rows(6, 0, b"")
    checkpointer.rows(7, 1, b"")
    checkpointer.store(7, b"", b"sealed")
    assert not checkpointer.is_complete


def test_what_was_written_is_reported_at_the_next_opening(tmp_path: Path, store: LmdbWriter) -> None:
    assert opening(store, verified=True) == {"meta": None, "sealed": ""}
    checkpointer = Checkpointer(workers=1, verified=True)
    checkpointer.rows(1, 0, pack_rows([(b"ra", b"1")]))
    checkpointer.store(1, b"", b"sealed 1")
    checkpointer.write(Pending(store))
    store.close()
    with contextlib.closing(LmdbWriter(tmp_path / "store", MIB)) as again:
        answer = opening(again, verified=True)
    assert answer["sealed"] == b"sealed 1".hex()
    assert answer["meta"]["epoch"] == 1
    assert answer["meta"]["threads"] == 1


@pytest.mark.parametrize(
    ("meta", "verified", "message"),
    [
        ({"format": 9, "verified": True, "epoch": 1, "threads": 1}, True, "format 9, this release reads format 3"),
        ({"format": 3, "verified": True, "epoch": 1, "threads": 1}, False, "without --unverified"),
        ({"format": 3, "verified": False, "epoch": 1, "threads": 1}, True, "with --unverified"),
        ({"format": 1}, True, "cannot be read"),
        ([], True, "cannot be read"),
    ],
)
def test_a_store_that_cannot_be_served_is_refused_with_the_reason(meta: Any, verified: bool, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        check_meta(json.dumps(meta).encode(), verified=verified)
