"""`zetakv verify`: honest stores are whole, and every kind of edit is found and named."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import pytest
from kvstore_client import connect
from support.server import Server
from typer.testing import CliRunner

from kvstore._prover import encode_record, store_key_of
from kvstore.cli import application
from kvstore.limits import MIB
from kvstore.storage import LmdbWriter, Row, StorageError, pack_rows
from kvstore.verify import Report, verify

RECORDS = {b"key %d" % number: b"value %d" % number for number in range(3_000)}
"""Enough that there are nodes with rows below the partition nodes, and subtrees without."""
LONG = b"long"
DELETED = b"key 7"
VICTIM = b"key 42"


async def _look(server: Server) -> None:
    async with connect(server.address, server.fingerprint, key=server.admin_key) as kv:
        assert (await kv.get(VICTIM, certified=True)).value is None


async def _put_again(server: Server) -> None:
    async with connect(server.address, server.fingerprint, key=server.admin_key) as kv:
        await kv.put(VICTIM, RECORDS[VICTIM], certified=True)


async def _fill(server: Server) -> None:
    async with connect(server.address, server.fingerprint, key=server.admin_key) as kv:
        for _ in range(2):
            await kv.put_many(RECORDS, certified=True)  # what is used twice becomes hot
        await kv.put(LONG, b"long " * 50_000)
        await kv.delete(DELETED, certified=True)


@dataclass
class Stores:
    """Data directories of stopped servers."""

    clean: Path
    killed: Path
    backup: Path


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with tempfile.TemporaryDirectory(prefix="zk-") as name:
        directory = Path(name)
        server = Server(directory, ["--workers", "2", "--epoch-ms", "50"])
        try:
            server.start()
            asyncio.run(_fill(server))
            backup = directory / "backup"
            made = server.offline_command("backup", str(backup), "--data", str(server.data))
            assert made.code == 0, made.stderr
            server.kill()
            killed = directory / "killed"
            shutil.copytree(server.data, killed, symlinks=True)
            server.start()
            asyncio.run(_put_again(server))  # so that there is something to stop
            server.stop()
        finally:
            server.close()
        yield Stores(server.data, killed, backup)


@pytest.fixture
def copy(stores: Stores, tmp_path: Path) -> Path:
    shutil.copytree(stores.clean, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def checked(directory: Path, monitor_state: Path | None = None) -> Report:
    return verify(directory, monitor_state, None, lambda _done, _all: None)


@contextlib.contextmanager
def edited(directory: Path) -> Iterator[lmdb.Transaction]:
    with (
        lmdb.open(str(directory / "store"), map_size=64 * MIB, max_dbs=2) as environment,
        environment.begin(write=True) as transaction,
    ):
        yield transaction


def rows_of(directory: Path, prefix: bytes) -> list[tuple[bytes, bytes]]:
    with edited(directory) as transaction, transaction.cursor() as cursor:
        return [(key, row) for key, row in cursor if key.startswith(prefix)]


def assert_whole(report: Report) -> None:
    assert report.findings == []
    assert report.is_whole
    assert report.unproved == 0
    assert report.root_checked
    assert report.blum_matches
    assert report.not_checked == []


# --- honest stores ---


def test_a_store_after_a_clean_stop_after_a_crash_and_a_backup(stores: Stores) -> None:
    before = (stores.clean / "store" / "data.mdb").read_bytes()
    clean = checked(stores.clean)
    assert_whole(clean)
    assert (clean.records, clean.in_blum, clean.standing) == (len(RECORDS) + 1, 64, "latest")
    assert (stores.clean / "store" / "data.mdb").read_bytes() == before
    killed = checked(stores.killed)
    assert_whole(killed)
    assert killed.standing in ("latest", "next")
    assert killed.in_blum > 64
    assert killed.records == len(RECORDS) + 1
    before_names = sorted(path.name for path in stores.backup.rglob("*"))
    backup = checked(stores.backup, stores.clean / "monitor")
    assert_whole(backup)
    assert backup.standing == "rolled_back"
    assert sorted(path.name for path in stores.backup.rglob("*")) == before_names


def test_an_older_store_in_the_place_of_the_latest(stores: Stores, copy: Path) -> None:
    shutil.copyfile(stores.killed / "store" / "data.mdb", copy / "store" / "data.mdb")
    report = checked(copy)
    assert report.findings == []
    assert report.is_rolled_back
    assert not report.is_whole


def test_a_store_without_records(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="zk-") as name:
        server = Server(Path(name))
        server.start()
        try:
            asyncio.run(_look(server))
            server.stop()
        finally:
            server.close()
        report = checked(server.data)
        assert_whole(report)
        assert (report.records, report.in_blum) == (0, 64)
    with contextlib.closing(LmdbWriter(tmp_path / "store", MIB)):
        pass
    report = checked(tmp_path)
    assert report.is_whole
    assert "no checkpoint" in report.not_checked[0]
    with pytest.raises(StorageError, match="is no store"):
        checked(tmp_path / "nothing")


def test_pending_checkpoints_are_part_of_the_store(copy: Path) -> None:
    rows = [pair for prefix in (b"r", b"n") for pair in rows_of(copy, prefix)]
    older: list[Row] = [(key, b"older") for key, _ in rows[:200]]
    newer: list[Row] = [*rows[:100], (rows[100][0], None), *rows[101:200], (b"r" + bytes(8), None)]
    with contextlib.closing(LmdbWriter(copy / "store", MIB)) as store:
        # the main rows are garbled, missing or too many; what is pending says how they are to be
        store.write([*((key, None if number % 2 else b"garbled") for number, (key, _) in enumerate(rows[:200]))])
        store.write([(b"r" + bytes(8), b"to be deleted")])
        store.append(1, 5, pack_rows(older), [])
        store.append(0, 6, pack_rows(newer), [])
        store.append(0, 7, pack_rows([rows[100]]), [])
    before = (copy / "store" / "data.mdb").read_bytes()
    assert_whole(checked(copy))
    assert (copy / "store" / "data.mdb").read_bytes() == before
    with contextlib.closing(LmdbWriter(copy / "store", MIB)) as store:
        store.append(0, 8, pack_rows([(store_key_of(VICTIM), encode_record(VICTIM, b"forged"))]), [])
    assert VICTIM in checked(copy).findings[0].keys


# --- edits ---

Edit = Callable[[lmdb.Transaction], bytes]
"""Changes something; returns the store key that must be named."""


def forge_value(transaction: lmdb.Transaction) -> bytes:
    transaction.put(store_key_of(VICTIM), encode_record(VICTIM, b"forged"))
    return store_key_of(VICTIM)


def forge_deletion(transaction: lmdb.Transaction) -> bytes:
    transaction.put(store_key_of(VICTIM), encode_record(VICTIM, None))
    return store_key_of(VICTIM)


def flip_a_byte(transaction: lmdb.Transaction) -> bytes:
    row = transaction.get(store_key_of(VICTIM))
    transaction.put(store_key_of(VICTIM), row[:-1] + bytes((row[-1] ^ 1,)))
    return store_key_of(VICTIM)


def exchange_rows(transaction: lmdb.Transaction) -> bytes:
    transaction.put(store_key_of(VICTIM), transaction.get(store_key_of(b"key 1")))
    return store_key_of(VICTIM)


def remove_record(transaction: lmdb.Transaction) -> bytes:
    transaction.delete(store_key_of(VICTIM))
    return store_key_of(VICTIM)


def add_record(transaction: lmdb.Transaction) -> bytes:
    transaction.put(store_key_of(b"never put"), encode_record(b"never put", b"forged"))
    return store_key_of(b"never put")


def a_node(transaction: lmdb.Transaction, *, deep: bool = True) -> tuple[bytes, bytes]:
    with transaction.cursor() as cursor:
        nodes = [(key, row) for key, row in cursor if key[:1] == b"n" and (key[-1] > 6) is deep]
    assert len(nodes) > 30
    return nodes[len(nodes) // 2]


def remove_node(transaction: lmdb.Transaction) -> bytes:
    key, _ = a_node(transaction)
    transaction.delete(key)
    return key


def change_node(transaction: lmdb.Transaction) -> bytes:
    key, row = a_node(transaction)
    transaction.put(key, row[:-1] + bytes((row[-1] ^ 1,)))
    return key


def garble_node(transaction: lmdb.Transaction) -> bytes:
    key, row = a_node(transaction)
    transaction.put(key, row[:-1])
    return key


def remove_spine_node(transaction: lmdb.Transaction) -> bytes:
    key, _ = a_node(transaction, deep=False)
    transaction.delete(key)
    return key


def add_node(transaction: lmdb.Transaction) -> bytes:
    _, row = a_node(transaction)
    transaction.put(b"n" + bytes((0xA5, 0xA5, 16)), row)
    return b"n" + bytes((0xA5, 0xA5, 16))


def add_marker(transaction: lmdb.Transaction) -> bytes:
    transaction.put(b"h" + bytes((0xA5, 0xA5, 16)), b"")
    return b"h" + bytes((0xA5, 0xA5, 16))


def remove_marker(transaction: lmdb.Transaction) -> bytes:
    transaction.delete(b"h" + bytes((0x04, 6)))
    return b"h" + bytes((0x04, 6))


def move_to_the_long_key(transaction: lmdb.Transaction) -> bytes:
    row = transaction.get(store_key_of(VICTIM))
    transaction.delete(store_key_of(VICTIM))
    transaction.put(store_key_of(VICTIM, whole=True), row)
    return store_key_of(VICTIM)


def add_the_long_key(transaction: lmdb.Transaction) -> bytes:
    transaction.put(store_key_of(VICTIM, whole=True), transaction.get(store_key_of(VICTIM)))
    return store_key_of(VICTIM, whole=True)


def change_sealed_state(transaction: lmdb.Transaction) -> bytes:
    sealed = transaction.get(b"s")
    transaction.put(b"s", sealed[:-1] + bytes((sealed[-1] ^ 1,)))
    return b"s"


def remove_sealed_state(transaction: lmdb.Transaction) -> bytes:
    transaction.delete(b"s")
    return b"s"


def change_meta(transaction: lmdb.Transaction) -> bytes:
    meta = json.loads(transaction.get(b"m"))
    transaction.put(b"m", json.dumps(meta | {"epoch": meta["epoch"] + 1}).encode())
    return b"m"


def add_unknown_row(transaction: lmdb.Transaction) -> bytes:
    transaction.put(b"x", b"")
    return b"x"


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (flip_a_byte, "changed"),
        (exchange_rows, "garbled"),
        (change_node, "changed"),
        (garble_node, "garbled"),
        (remove_node, "missing"),
        (remove_spine_node, "missing"),
        (add_node, "extra"),
        (add_marker, "extra"),
        (remove_marker, "missing"),
        (move_to_the_long_key, "missing"),
        (add_the_long_key, "extra"),
        (change_sealed_state, "changed"),
        (remove_sealed_state, "missing"),
        (change_meta, "changed"),
        (add_unknown_row, "extra"),
    ],
)
def test_a_row_that_was_edited_is_the_one_finding(copy: Path, edit: Edit, kind: str) -> None:
    with edited(copy) as transaction:
        store_key = edit(transaction)
    report = checked(copy)
    assert [(finding.kind, finding.store_key) for finding in report.findings] == [(kind, store_key)]
    assert not report.is_whole


@pytest.mark.parametrize("edit", [forge_value, forge_deletion, remove_record, add_record])
def test_records_that_were_forged_with_checksums_are_named_among_few(copy: Path, edit: Edit) -> None:
    with edited(copy) as transaction:
        store_key = edit(transaction)
    (finding,) = checked(copy).findings
    key = b"never put" if edit is add_record else VICTIM
    if finding.store_key == store_key:  # its parent has a row, so the record is known
        assert finding.kind in ("changed", "missing", "extra")
        return
    assert finding.kind == "subtree_changed"
    assert len(finding.keys) <= 16
    assert (key in finding.keys) is (edit is not remove_record)


def test_all_edits_at_once_are_all_named(copy: Path) -> None:
    victims = [b"key %d" % number for number in range(0, 3_000, 100)]
    with edited(copy) as transaction:
        for victim in victims:
            row = transaction.get(store_key_of(victim))
            transaction.put(store_key_of(victim), row[:-1] + bytes((row[-1] ^ 1,)))
    report = checked(copy)
    assert sorted(key for finding in report.findings for key in finding.keys) == sorted(victims)


def test_what_is_in_blum_is_summed_up_by_the_monitor(stores: Stores, tmp_path: Path) -> None:
    """It is pinned by no hash: a row with a true checksum is found to be wrong by the sum alone."""
    copy = tmp_path / "copy"
    shutil.copytree(stores.killed, copy, symlinks=True)
    with edited(copy) as transaction:
        forge_value(transaction)
    report = checked(copy)
    assert report.findings == []
    assert report.blum_matches is False
    assert not report.is_whole
    with edited(copy) as transaction:
        flip_a_byte(transaction)
    assert checked(copy).findings[0].keys == (VICTIM,)


def test_another_number_of_threads_does_not_fit_the_sum(copy: Path) -> None:
    with edited(copy) as transaction:
        meta = json.loads(transaction.get(b"m"))
        transaction.put(b"m", json.dumps(meta | {"threads": 1}).encode())
    assert checked(copy).blum_matches is False


def test_without_the_monitor_it_is_said_what_was_not_checked(stores: Stores, copy: Path) -> None:
    report = checked(stores.backup)
    assert report.is_whole
    assert not report.root_checked
    assert report.blum_matches is None
    assert len(report.not_checked) == 2
    shutil.rmtree(copy / "monitor")
    with edited(copy) as transaction:
        flip_a_byte(transaction)
    assert checked(copy).findings[0].keys == (VICTIM,)


# --- the command ---


def test_the_command(stores: Stores, copy: Path) -> None:
    def zetakv(*arguments: str | Path) -> Any:
        return CliRunner().invoke(application, ["verify", *map(str, arguments)])

    whole = zetakv(stores.clean)
    assert (whole.exit_code, whole.stdout.splitlines()[-1].endswith("everything fits")) == (0, True), whole.output
    with edited(copy) as transaction:
        flip_a_byte(transaction)
    wrong = zetakv(copy)
    assert wrong.exit_code == 3
    assert "changed: record 'key 42', row" in wrong.stdout
    found = json.loads(zetakv(copy, "--json").stdout)
    assert (found["whole"], found["findings_total"], found["findings"][0]["keys"]) == (False, 1, ["key 42"])
    nothing = zetakv(copy.parent)
    assert nothing.exit_code == 1
    assert nothing.stderr.startswith("error: ")
