"""What the host can add to a violation from its own store: the application's keys. Unproved, and always marked so.

The monitor knows records by hashes, and a small subtree by its topmost node. Whoever reads the rows there knows their
keys. And where the monitor names no place (`epoch_mismatch`), rows whose checksums did not fit when they were read are
the ones to look at.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from blake3 import blake3

from kvstore._prover import RANGE_ROWS_MAX, decode_record, rows_below
from kvstore.limits import MIB
from kvstore.messages import Json
from kvstore.storage import StoreReader
from kvstore.violation import Violation

_KEY_CHARS_MAX: Final = 60
"""Of a key in a message; a longer one is cut off."""
_RANGE_BYTES_MAX: Final = 64 * MIB

Suspects = Sequence[tuple[bytes, bytes | None]]
"""Store keys of rows, and the application keys of those that are records."""


def find(store: StoreReader, violation: Violation | None, suspects: Suspects) -> Json:
    """What one worker knows: `keys` of the records that the violation may be about, and `suspects`, as text.

    `violation`: None if it is another worker's.
    """
    return {
        "keys": [] if violation is None else [_name(key) for key in _keys_at(store, violation)],
        "suspects": [f"row {row.hex()}" if key is None else _name(key) for row, key in suspects],
    }


def sentence(found: Sequence[Json]) -> str:
    """What all workers have found, in words; empty if that is nothing."""
    keys = _distinct(name for one in found for name in one.get("keys", ()))
    suspects = _distinct(name for one in found for name in one.get("suspects", ()))
    said = []
    if suspects:
        said.append(f"changed on disk, by their checksums: {', '.join(suspects)}")
    if len(keys) == 1:
        said.append(f"the record is that of key {keys[0]}")
    elif keys:
        said.append(f"it is one or more of these records, or one that is missing among them: {', '.join(keys)}")
    return "; ".join(said)


def _keys_at(store: StoreReader, violation: Violation) -> list[bytes]:
    if violation.key is None:
        return []
    if not violation.signed:
        (row,) = store.read([bytes.fromhex(violation.key)])
        return _keys_of([row])
    bits, _, depth = violation.key.partition("/")
    return _keys_below(store, bytes.fromhex(bits), int(depth))


def _keys_below(store: StoreReader, bits: bytes, depth: int) -> list[bytes]:
    """Of the record, or of those below a node, unless that node has a row of its own: then they are too many."""
    node, of_records = rows_below(bits.ljust(32, b"\0"), depth)
    if node is not None and store.read([node])[0] is not None:
        return []
    (found,) = store.read_ranges([of_records], RANGE_ROWS_MAX, _RANGE_BYTES_MAX)
    wanted = _path(bits.ljust(32, b"\0"), depth)
    return [key for key in _keys_of([row for _, row in found]) if _path(blake3(key).digest(), depth) == wanted]


def _keys_of(rows: Sequence[bytes | None]) -> list[bytes]:
    keys = []
    for row in rows:
        try:
            keys.append(decode_record(row or b"")[0])
        except ValueError:
            continue  # not a record, or so garbled that it has no key
    return keys


def _path(bits: bytes, depth: int) -> int:
    return int.from_bytes(bits, "big") >> (8 * len(bits) - depth)


def _name(key: bytes) -> str:
    name = repr(key)[1:]
    return name if len(name) <= _KEY_CHARS_MAX else f"{name[:_KEY_CHARS_MAX]}…"


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
