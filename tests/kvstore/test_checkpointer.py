"""A checkpoint is written when, and only when, all of its parts are there; and a store names what cannot be served."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvstore.checkpointer import Checkpointer, check_meta
from kvstore.limits import MIB
from kvstore.storage import META_KEY, SEALED_KEY, LmdbWriter, Row, StorageError, certificate_key, pack_rows


class MemoryStore:
    """A StoreWriter that counts its transactions."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.writes = 0

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def write(self, rows: list[Row]) -> None:
        self.writes += 1
        for key, row in rows:
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row

    def close(self) -> None:
        pass


@pytest.mark.parametrize("order", [("a", "b", "s"), ("s", "b", "a"), ("b", "s", "a")])
def test_all_parts_in_any_order_make_one_transaction(order: tuple[str, ...]) -> None:
    store = MemoryStore()
    checkpointer = Checkpointer(store, workers=2, verified=True)  # type: ignore[arg-type]
    parts = {
        "a": lambda: checkpointer.rows(7, 0, pack_rows([(b"ra", b"1")])),
        "b": lambda: checkpointer.rows(7, 1, pack_rows([(b"rb", b"2"), (b"rc", None)])),
        "s": lambda: checkpointer.store(7, b"certificate 6", b"sealed 7"),
    }
    assert [parts[name]() for name in order] == [None, None, 7]
    assert store.writes == 1
    assert store.rows == {
        b"ra": b"1",
        b"rb": b"2",
        SEALED_KEY: b"sealed 7",
        certificate_key(6): b"certificate 6",
        META_KEY: store.rows[META_KEY],
    }
    assert json.loads(store.rows[META_KEY]) == {"format": 1, "verified": True, "epoch": 7, "threads": 2}


def test_rows_of_another_epoch_do_not_complete_a_checkpoint() -> None:
    store = MemoryStore()
    checkpointer = Checkpointer(store, workers=2, verified=True)  # type: ignore[arg-type]
    checkpointer.rows(6, 0, b"")
    checkpointer.rows(7, 1, b"")
    assert checkpointer.store(7, b"", b"sealed") is None
    assert store.writes == 0


def test_what_was_written_is_reported_at_the_next_opening(tmp_path: Path) -> None:
    store = LmdbWriter(tmp_path / "store", MIB)
    first = Checkpointer(store, workers=1, verified=True)
    assert first.opening() == {"meta": None, "sealed": ""}
    first.rows(1, 0, pack_rows([(b"ra", b"1")]))
    assert first.store(1, b"", b"sealed 1") == 1
    store.close()
    again = LmdbWriter(tmp_path / "store", MIB)
    opening = Checkpointer(again, workers=4, verified=True).opening()
    assert opening["sealed"] == b"sealed 1".hex()
    assert opening["meta"]["epoch"] == 1
    assert opening["meta"]["threads"] == 1
    again.close()


@pytest.mark.parametrize(
    ("meta", "verified", "message"),
    [
        ({"format": 2, "verified": True, "epoch": 1, "threads": 1}, True, "format 2, this release reads format 1"),
        ({"format": 1, "verified": True, "epoch": 1, "threads": 1}, False, "without --unverified"),
        ({"format": 1, "verified": False, "epoch": 1, "threads": 1}, True, "with --unverified"),
        ({"format": 1}, True, "cannot be read"),
        ([], True, "cannot be read"),
    ],
)
def test_a_store_that_cannot_be_served_is_refused_with_the_reason(meta: Any, verified: bool, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        check_meta(json.dumps(meta).encode(), verified=verified)
