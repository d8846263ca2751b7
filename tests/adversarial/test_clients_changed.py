"""The host meddles with administration: requests changed or repeated, answers changed, and who may do what."""

from dataclasses import replace

import pytest
from _harness.client_frames import ADMIN, ADMIN_ANSWER, RECEIPT, Receipt, changing, flipped, recording
from _harness.service import Interpose, Service
from kvstore_client import (
    ClientKey,
    ForbiddenError,
    OutcomeUnknownError,
    ReceiptError,
    Role,
    UnknownKeyError,
)
from support.frames import Frame, FrameProxy

_ROLE_IN_ADMIN_REQUEST = 17
_FORBIDDEN = b"\x04"


async def test_admin_request_comes_twice(shared: Service, wire: FrameProxy) -> None:
    laptop = ClientKey.generate()
    async with shared.client(wire) as kv:
        wire.to_up = lambda _, frame: [frame, frame] if frame.kind == ADMIN else [frame]
        await kv.clients.add("laptop", laptop.public_key, Role.READ)
    async with shared.client() as honest:
        listed = await honest.clients.list()
        assert [client.role for client in listed if client.public_key == laptop.public_key] == [Role.READ]


async def test_removed_client_is_added_again_by_replay(shared: Service, wire: FrameProxy, interpose: Interpose) -> None:
    """The recorded request of the addition does nothing after the removal."""
    laptop = ClientKey.generate()
    recorded: list[Frame] = []

    wire.to_up = recording(ADMIN, recorded)
    async with shared.client(wire) as kv:
        await (await kv.clients.add("laptop", laptop.public_key, Role.WRITE)).certified()
        await (await kv.clients.remove(laptop.public_key)).certified()
        replays = await interpose(shared)
        async with shared.client(replays) as other:
            replays.links[-1].send_up(recorded[0])
            assert laptop.public_key not in [client.public_key for client in await other.clients.list()]
    with pytest.raises(UnknownKeyError):
        async with shared.client(key=laptop):
            pass


async def test_reader_is_added_as_admin(shared: Service, wire: FrameProxy) -> None:
    """The role in the request is changed: the monitor rejects it, and the client is not told that it was done."""
    laptop = ClientKey.generate()

    def promote(frame: Frame) -> Frame:
        body = bytearray(frame.body)
        body[_ROLE_IN_ADMIN_REQUEST] = Role.ADMIN
        return Frame(ADMIN, bytes(body))

    async with shared.client(wire, timeout=2) as kv:
        wire.to_up = changing(ADMIN, promote)
        with pytest.raises(OutcomeUnknownError):
            await kv.clients.add("laptop", laptop.public_key, Role.READ)
    async with shared.client() as honest:
        assert laptop.public_key not in [client.public_key for client in await honest.clients.list()]


async def test_list_of_clients_is_changed(shared: Service, wire: FrameProxy) -> None:
    async with shared.client(wire) as kv:
        wire.to_down = changing(ADMIN_ANSWER, lambda frame: Frame(ADMIN_ANSWER, flipped(frame.body, 30)))
        with pytest.raises(ReceiptError) as caught:
            await kv.clients.list()
        assert {"admin_request", "admin_answer"} <= caught.value.evidence.keys()


async def test_reader_writes_with_the_hosts_help(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """A reader whose client program does not stop it, and a host that turns the monitor's *forbidden* into *done*."""
    reader = ClientKey.generate()
    async with shared.client() as admin:
        await admin.put(key, b"1", certified=True)
        await admin.clients.add("reader", reader.public_key, Role.READ)
    async with shared.client(wire, key=reader) as kv:
        assert kv.role is Role.READ
        with pytest.raises(ForbiddenError):
            await kv.put(key, b"2")
        _believe_to_be_a_writer(kv)
        with pytest.raises(ForbiddenError):
            await kv.put(key, b"2")
        wire.to_down = changing(RECEIPT, _as_if_done)
        with pytest.raises(ReceiptError):
            await kv.put(key, b"2")
    async with shared.client() as honest:
        assert (await honest.get(key, certified=True)).value == b"1"


def _believe_to_be_a_writer(kv: object) -> None:
    """Take the client's own check out of the way: what counts is the monitor's."""
    kv._session._current.role = Role.WRITE  # type: ignore[attr-defined]


def _as_if_done(frame: Frame) -> Frame:
    receipt = Receipt.of(frame)
    assert receipt.results == _FORBIDDEN
    return replace(receipt, results=b"\x00").frame()
