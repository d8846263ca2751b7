"""A node of the Merkle tree is changed in the store: its parent's hash names another value."""

from _harness.client_frames import flipped
from _harness.expect import attempted, caught
from _harness.service import Launch, certified

_RECORDS = [(b"%d" % i, b"1") for i in range(300)]
"""Enough that there are nodes below the partitions."""


async def test_hash_in_a_node_is_changed(launch: Launch) -> None:
    service = await launch()
    await certified(service, _RECORDS)
    await service.stop()
    nodes = service.disk.rows(b"n")
    assert nodes
    for store_key, row in nodes.items():
        service.disk.set_row(store_key, flipped(row, -1))
    await service.start()
    async with service.client() as kv:
        lied = [await attempted(kv.get(key)) for key, _ in _RECORDS[:20]]
        found = await caught(service, kv, "hash_mismatch", provisional=lied)
        assert found.violation.key_depth <= 256
