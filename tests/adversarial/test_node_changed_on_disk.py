"""A node of the Merkle tree is changed in the store: its parent's hash names another value."""

from _harness.client_frames import flipped
from _harness.expect import attempted, caught
from _harness.service import Launch, certified

_RECORDS = [(b"%d" % i, b"1") for i in range(300)]
"""Enough that there are nodes below the partitions; derived ones, whose hashes are in the rows of partition nodes."""


_SIDES_AT = 5
"""Kind and flags, checksum: then the sides, each with its depth, key suffix, and hash (docs/storage-format.md)."""
_NO_SIDE, _HASH = 0, 1


def with_other_hashes(store_key: bytes, row: bytes) -> bytes:
    """A node's row with one bit changed in each hash."""
    shared = store_key[-1] // 8
    at = _SIDES_AT
    for flag in (row[0] & 3, row[0] >> 2 & 3):
        if flag == _NO_SIDE:
            continue
        depth = row[at] or 256
        at += 1 + (depth + 7) // 8 - shared
        if flag == _HASH:
            row = flipped(row, at)
            at += 32
    assert at == len(row)
    return row


async def test_hash_in_a_node_is_changed(launch: Launch) -> None:
    service = await launch()
    await certified(service, _RECORDS)
    await service.stop()
    nodes = service.disk.rows(b"n")
    assert nodes
    for store_key, row in nodes.items():
        service.disk.set_row(store_key, with_other_hashes(store_key, row))
    await service.start()
    async with service.client() as kv:
        lied = [await attempted(kv.get(key)) for key, _ in _RECORDS[:20]]
        found = await caught(service, kv, "hash_mismatch", provisional=lied)
        assert found.violation.key_depth <= 256
