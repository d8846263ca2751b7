"""The binding of the Rust engines: conversions, errors, and a stub that says what is there."""

import importlib.util
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from kvstore._prover import (
    FrameError,
    PlainEngine,
    Prover,
    ProverError,
    decode_record,
    encode_record,
    store_key_of,
)
from kvstore.storage import unpack_rows

LIMITS = {"key_bytes_max": 100, "value_bytes_max": 10_000, "response_bytes_max": 1_000_000}
GET, PUT = 1, 2
RECEIPT_FRAME = 0x82
RECEIPT_HEADER_BYTES, MAC_BYTES = 33, 16


def key_hash(key: bytes) -> bytes:
    return store_key_of(key, whole=True)[1:]


def request_body(*operations: tuple[int, bytes, bytes], key_bytes: bytes | None = None) -> bytes:
    """A request frame's body; the new values are short enough to be inline."""
    ops = b"".join(
        bytes((code,)) + key_hash(key) + (bytes((1, len(value))) + value if code == PUT else b"")
        for code, key, value in operations
    )
    header = bytes(8) + (1).to_bytes(4, "little") + bytes(2) + len(operations).to_bytes(2, "little")
    request = header + (7).to_bytes(8, "little") + bytes(8) + ops + bytes(MAC_BYTES)
    written = [key for code, key, _ in operations if code != GET]
    payload = b"".join(len(key).to_bytes(2, "little") + (key_bytes or key) for key in written)
    return len(request).to_bytes(4, "little") + request + payload


def plain_engine() -> PlainEngine:
    return PlainEngine(thread=0, threads=1, epoch=5, **LIMITS)


def prover(**changes: int) -> Prover:
    settings = {"thread": 0, "threads": 1, "previous_threads": 1, "epoch": 1, "slots": 128, "hot_records_max": 100}
    memory = {"hot_bytes_max": 100_000, "kept_value_bytes_max": 100, "warm_bytes_max": 10_000, "read_bytes_max": 10_000}
    return Prover(fresh=True, **{**settings, **changes}, **memory, **LIMITS)


def run(engine: PlainEngine, rows: dict[bytes, bytes]) -> list[tuple[int, bytes]]:
    while any(reads := engine.reads()):
        engine.supply([rows.get(key) for key in reads[0]], [])
    assert engine.log() == b""
    return engine.absorb(b"")


def results(frame: bytes) -> bytes:
    """What is between the header and the MAC of a receipt frame's receipt."""
    assert frame[4] == RECEIPT_FRAME
    length = int.from_bytes(frame[5:9], "little")
    return frame[9 : 9 + length][RECEIPT_HEADER_BYTES:-MAC_BYTES]


@pytest.mark.parametrize("value", [None, b"", b"x" * 100])
def test_records_survive_their_rows(value: bytes | None) -> None:
    assert decode_record(encode_record(b"key", value)) == (b"key", value)


def test_a_garbled_row_is_no_record() -> None:
    with pytest.raises(ValueError, match="not the row of a record"):
        decode_record(b"\x11\xff")


def test_the_plain_engine_answers_and_checkpoints() -> None:
    engine = plain_engine()
    engine.submit(42, request_body((PUT, b"a", b"new"), (GET, b"a", b""), (GET, b"b", b"")))
    assert engine.busy
    [(origin, frame)] = run(engine, {store_key_of(b"b", whole=True): encode_record(b"b", b"stored")})
    assert origin == 42
    assert results(frame) == b"\x00" + b"\x01\x01\x03new" + b"\x01\x01\x06stored"
    assert engine.active
    assert not engine.busy

    engine.start_cut(all_to_merkle=True)
    assert run(engine, {}) == []
    assert engine.handed_over() == 5
    assert engine.handed_over() is None
    assert list(unpack_rows(engine.take_checkpoint())) == [
        (store_key_of(b"a", whole=True), encode_record(b"a", b"new"))
    ]
    engine.release_checkpoint(5)
    assert not engine.active


def test_a_fresh_prover_writes_the_spine_first() -> None:
    engine = prover()
    assert engine.busy
    assert engine.reads() == ([], [])
    log = engine.log()
    assert log[0] == 1  # add_merkle
    assert engine.absorb(b"") == []
    assert not engine.busy
    stats = engine.stats()
    assert (stats["log_bytes"], stats["merkle_adds"], stats["hot"]) == (len(log), 62 + 64, 64)


def test_the_hot_ranges_of_all_threads_are_those_of_one() -> None:
    ranges = [prover(thread=thread, threads=4, previous_threads=4).hot_range() for thread in range(4)]
    assert all(end == first for (_, end), (first, _) in pairwise(ranges))
    assert (ranges[0][0], ranges[-1][1]) == prover().hot_range()


def test_a_frame_that_is_not_what_it_commits_to_names_its_code() -> None:
    with pytest.raises(FrameError) as malformed:
        prover().submit(1, b"\xff")
    assert malformed.value.args[0] == 1
    with pytest.raises(FrameError) as mismatch:
        prover().submit(1, request_body((PUT, b"a", b""), key_bytes=b"b"))
    assert mismatch.value.args[0] == 5
    with pytest.raises(FrameError) as sessionless:
        plain_engine().submit_resume(1, bytes(48))
    assert sessionless.value.args[0] == 7


def test_a_monitor_that_answers_out_of_order_stops_the_prover() -> None:
    engine = prover()
    engine.log()
    with pytest.raises(ProverError) as stopped:
        engine.absorb(b"\x01\x02")  # admitted, where nothing was asked
    text, store_key = stopped.value.args
    assert isinstance(text, str)
    assert store_key is None


def test_a_garbled_row_is_named() -> None:
    engine = plain_engine()
    engine.submit(1, request_body((GET, b"a", b"")))
    assert engine.reads() == ([store_key_of(b"a", whole=True)], [])
    with pytest.raises(ProverError) as stopped:
        engine.supply([b"garbled"], [])
    assert stopped.value.args[1] == store_key_of(b"a", whole=True)


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_the_stub_says_what_is_there(tmp_path: Path) -> None:
    # not from the checkout: there the package without its extension would hide the installed one
    checkout = Path(__file__).parents[2]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "kvstore._prover"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
