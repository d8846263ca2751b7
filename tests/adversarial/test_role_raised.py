"""A host that helps a reader to write: it takes the reader for a writer, and stores the value on its own."""

import pytest
from _harness.expect import attempted, caught
from _harness.service import Launch, Service
from _harness.verifier_log import ADMITTED, Output
from kvstore_client import KV, ClientKey, ForbiddenError, Role


async def _with_reader(launch: Launch) -> tuple[Service, ClientKey]:
    service = await launch("--hot-records", "0", through_proxy=True)
    reader = ClientKey.generate()
    async with service.client() as admin:
        await admin.put(b"alice", b"1", certified=True)
        await admin.clients.add("reader", reader.public_key, Role.READ)
    return service, reader


async def test_host_runs_the_readers_put(launch: Launch) -> None:
    service, reader = await _with_reader(launch)
    service.proxy.on_outputs = lambda _, outputs: [
        Output(ADMITTED, bytes((Role.WRITE,))) if output.kind == ADMITTED else output for output in outputs
    ]
    async with service.client(key=reader) as kv:
        _believe_to_be_a_writer(kv)
        with pytest.raises(ForbiddenError):
            await kv.put(b"alice", b"2")
    async with service.client() as kv:
        lied = await attempted(kv.get(b"alice", certified=True))
        assert lied is None or lied.value == b"1"


async def test_host_stores_the_readers_value(launch: Launch) -> None:
    service, _ = await _with_reader(launch)
    await service.stop()
    service.disk.write(b"alice", b"2")
    await service.start()
    async with service.client() as kv:
        lied = await attempted(kv.get(b"alice"))
        await caught(service, kv, "hash_mismatch", provisional=[lied], key=b"alice")


def _believe_to_be_a_writer(kv: KV) -> None:
    current = kv._session._current
    assert current is not None
    current.role = Role.WRITE
