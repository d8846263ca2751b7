"""A record's value is changed in the store: while the server runs, or while it is off.

The monitor names the record, or the node that vouches for it and at most 15 others; the host adds their keys, and by
the checksums of rows which of them it was. Who makes a checksum that fits is found just as surely.
"""

import asyncio

import pytest
from _harness.expect import attempted, caught
from _harness.service import Launch, Service, certified

SHORT, LONG = b"100 coins", b"a long value, of which the monitor sees the hash only" * 3
NOTHING_HOT = ("--hot-records", "0")
"""Every record goes to Merkle at each cut: a get of one that is not in memory has to read the store."""


async def _store_and_wait(service: Service, key: bytes, value: bytes) -> None:
    async with service.client() as kv:
        # Two cuts: after the first the row is on disk, after the second the worker reads it from there.
        await kv.put(key, value, certified=True)
        await kv.put(b"another", b"1", certified=True)


@pytest.mark.parametrize("value", [SHORT, LONG], ids=["inline", "digest"])
async def test_while_the_server_runs(launch: Launch, value: bytes) -> None:
    service = await launch(*NOTHING_HOT)
    await _store_and_wait(service, b"alice", value)
    await service.stop()
    await service.start()  # with nothing in memory
    async with service.client() as kv:
        before = await kv.put(b"bob", b"1", certified=True)
        assert service.disk.read(b"alice") == value
        service.disk.write(b"alice", value[:-1] + b"!")
        await asyncio.sleep(0.3)
        # The worker's view of the store is renewed by a checkpoint.
        await attempted(kv.put(b"bob", b"2", certified=True))
        lied = await attempted(kv.get(b"alice"))
        await caught(service, kv, "hash_mismatch", provisional=[lied], certified=[before], key=b"alice")


@pytest.mark.parametrize("value", [SHORT, LONG], ids=["inline", "digest"])
async def test_while_the_server_is_off(launch: Launch, value: bytes) -> None:
    service = await launch()
    await _store_and_wait(service, b"alice", value)
    await service.stop()
    service.disk.write(b"alice", value[:-1] + b"!")
    await service.start()
    async with service.client() as kv:
        before = await kv.put(b"bob", b"1", certified=True)
        lied = await attempted(kv.get(b"alice"))
        await caught(service, kv, "hash_mismatch", provisional=[lied], certified=[before], key=b"alice")


async def test_value_is_taken_away(launch: Launch) -> None:
    """The row says that the key has no value: a put is lost."""
    service = await launch()
    await _store_and_wait(service, b"alice", SHORT)
    await service.stop()
    service.disk.write(b"alice", None)
    await service.start()
    async with service.client() as kv:
        lied = await attempted(kv.get(b"alice"))
        await caught(service, kv, "hash_mismatch", provisional=[lied], key=b"alice")


async def test_values_of_two_keys_are_swapped(launch: Launch) -> None:
    service = await launch()
    async with service.client() as kv:
        await kv.put_many({b"alice": b"100 coins", b"bob": b"5 coins"}, certified=True)
    await service.stop()
    service.disk.write(b"alice", b"5 coins")
    service.disk.write(b"bob", b"100 coins")
    await service.start()
    async with service.client() as kv:
        lied = await attempted(kv.get(b"bob"))
        await caught(service, kv, "hash_mismatch", provisional=[lied], key=b"bob")


_MANY = [(b"key %d" % i, b"100 coins") for i in range(600)]
"""So many that every record is below a node without a row."""


@pytest.mark.parametrize("checksum_fits", [False, True], ids=["by_hand", "checksum_fits"])
async def test_below_a_node_without_a_row(launch: Launch, checksum_fits: bool) -> None:
    service = await launch()
    await certified(service, _MANY)
    await service.stop()
    if checksum_fits:
        service.disk.write(b"key 7", b"999 coins")
    else:
        service.disk.flip(b"key 7")
    await service.start()
    async with service.client() as kv:
        lied = await attempted(kv.get(b"key 7"))
        found = await caught(service, kv, "hash_mismatch", provisional=[lied])
    assert 6 < found.violation.key_depth < 256
    suspected, _, others = found.violation.host_finding.rpartition("; ")
    assert suspected == ("" if checksum_fits else "changed on disk, by their checksums: 'key 7'")
    named = others.removeprefix("it is one or more of these records, or one that is missing among them: ").split(", ")
    assert "'key 7'" in named
    assert 2 <= len(named) <= 16
    assert (await service.status()).json()["violation"]["host_finding"] == found.violation.host_finding
    assert found.violation.host_finding in str(found)


async def test_row_of_a_record_in_use(launch: Launch) -> None:
    """It is served from memory, and so rightly; what is on disk is found out when it is read."""
    service = await launch()
    await _store_and_wait(service, b"alice", SHORT)
    service.disk.flip(b"alice")
    async with service.client() as kv:
        assert (await kv.get(b"alice", certified=True)).value == SHORT
    await service.stop()
    await service.start()
    async with service.client() as kv:
        lied = await attempted(kv.get(b"alice"))
        found = await caught(service, kv, "hash_mismatch", provisional=[lied], key=b"alice")
        assert "changed on disk, by their checksums: 'alice'" in found.violation.host_finding
