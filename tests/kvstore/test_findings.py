"""What the host adds to a violation: keys in place of hashes, and rows that look wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from kvstore._prover import encode_record, store_key_of
from kvstore.findings import find, sentence
from kvstore.storage import LmdbReader, LmdbWriter
from kvstore.violation import Violation

MAP_BYTES = 1 << 20
KEYS = [b"key %d" % number for number in range(200)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbReader]:
    writer = LmdbWriter(tmp_path / "store", MAP_BYTES)
    writer.write(sorted((store_key_of(key), encode_record(key, b"1")) for key in KEYS))
    writer.close()
    reader = LmdbReader(tmp_path / "store")
    yield reader
    reader.close()


def at(bits: bytes, depth: int) -> Violation:
    return Violation(
        10, "hash_mismatch", "it is wrong", 0, 1, 0, f"{bits[: (depth + 7) // 8].hex()}/{depth}", signed="00"
    )


@pytest.mark.parametrize("depth", [6, 7, 8, 11, 64, 200, 256])
def test_the_records_below_a_node_are_named(store: LmdbReader, depth: int) -> None:
    path = blake3(b"key 7").digest()
    prefix = int.from_bytes(path, "big") >> (256 - depth) << (256 - depth)
    below = {
        key for key in KEYS if int.from_bytes(blake3(key).digest(), "big") >> (256 - depth) == prefix >> (256 - depth)
    }
    found = find(store, at(prefix.to_bytes(32, "big"), depth), [])
    assert set(found["keys"]) == {repr(key)[1:] for key in below}
    assert "'key 7'" in found["keys"]


def test_a_row_that_cannot_be_used_is_named_by_its_key(store: LmdbReader) -> None:
    violation = Violation.found_by_host(0, "a row is missing", store_key_of(b"key 7"))
    assert find(store, violation, []) == {"keys": ["'key 7'"], "suspects": []}
    assert find(store, Violation.found_by_host(0, "a row is missing", b"r" + bytes(8)), [])["keys"] == []
    assert find(store, Violation.found_by_host(0, "it has stopped", None), [])["keys"] == []


def test_what_the_workers_have_found_is_one_sentence(store: LmdbReader) -> None:
    suspects = [(b"rx", b"alice"), (b"n\x80\x07", None), (b"ry", b"\x1b[2J" + b"z" * 100)]
    found = [find(store, None, suspects), {}, find(store, None, suspects[:1])]
    assert sentence(found) == (
        f"changed on disk, by their checksums: 'alice', row 6e8007, '\\x1b[2J{'z' * 52}\N{HORIZONTAL ELLIPSIS}"
    )
    assert sentence([]) == sentence([{}]) == ""
    assert sentence([{"keys": ["'a'"]}]) == "the record is that of key 'a'"
    assert sentence([{"keys": ["'a'", "'b'"], "suspects": ["'b'"]}]) == (
        "changed on disk, by their checksums: 'b'; "
        "it is one or more of these records, or one that is missing among them: 'a', 'b'"
    )
