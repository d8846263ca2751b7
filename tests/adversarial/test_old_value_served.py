"""The host serves what was true once: an old row, an old row with all tree nodes above it, or an old answer."""

import pytest
from _harness.client_frames import RECEIPT, changing, recording
from _harness.expect import attempted, caught
from _harness.service import Launch, Service, certified
from kvstore_client import ReceiptError
from support.frames import Frame, FrameProxy


async def test_old_row_on_disk(launch: Launch) -> None:
    service = await launch()
    await certified(service, [(b"alice", b"old")])
    await service.stop()
    await service.start()
    await certified(service, [(b"alice", b"new")])
    await service.stop()
    assert service.disk.read(b"alice") == b"new"
    service.disk.write(b"alice", b"old")
    await service.start()
    async with service.client() as kv:
        lied = await attempted(kv.get(b"alice"))
        await caught(service, kv, "hash_mismatch", provisional=[lied], key=b"alice")


@pytest.mark.parametrize("prefixes", [(b"r", b"n"), (b"r", b"n", b"h")], ids=["merkle", "merkle and hot"])
async def test_old_rows_of_the_whole_tree(launch: Launch, prefixes: tuple[bytes, ...]) -> None:
    """Every record and node is put back, which fits together, and only the sealed state stays: the sums tell."""
    service = await launch()
    await certified(service, [(b"alice", b"old")])
    await service.stop()
    old = {prefix: service.disk.rows(prefix) for prefix in prefixes}
    await service.start()
    await certified(service, [(b"alice", b"new")])
    await service.stop()
    for prefix in prefixes:
        for store_key in service.disk.rows(prefix).keys() - old[prefix].keys():
            service.disk.set_row(store_key, None)
        for store_key, row in old[prefix].items():
            service.disk.set_row(store_key, row)
    await service.start()
    async with service.client() as kv:
        lied = await attempted(kv.get(b"alice"))
        found = await caught(service, kv, "epoch_mismatch", provisional=[lied])
        assert found.violation.thread is None


async def test_old_receipt_for_a_new_request(shared: Service, wire: FrameProxy, key: bytes) -> None:
    old: list[Frame] = []
    async with shared.client(wire) as kv:
        await kv.put(key, b"old")
        wire.to_down = recording(RECEIPT, old)
        assert (await kv.get(key)).value == b"old"
        wire.to_down = lambda _, frame: [frame]
        await kv.put(key, b"new", certified=True)
        wire.to_down = changing(RECEIPT, lambda _: old[0])
        with pytest.raises(ReceiptError):
            await kv.get(key)
