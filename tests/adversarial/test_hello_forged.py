"""The host changes the monitor's hello, or answers in its place: identity, role, threads, session, head."""

import pytest
from _harness.client_frames import HELLO, HELLO_OK, changing, flipped
from _harness.service import Service
from kvstore_client import IdentityError, RefusedError
from support.frames import Frame, FrameProxy

# Places in a server hello: instance, incarnation, session, epoch, head, ephemeral, signature (protocol section 4).
PLACES = [8, 24, 40, 48, 52, 84, -1]


@pytest.mark.parametrize("place", PLACES)
async def test_changed_server_hello(shared: Service, wire: FrameProxy, place: int) -> None:
    wire.to_down = changing(HELLO_OK, lambda frame: Frame(HELLO_OK, flipped(frame.body, place)))
    with pytest.raises(IdentityError) as caught:
        async with shared.client(wire):
            pass
    assert {"client_hello", "server_hello"} <= caught.value.evidence.keys()


@pytest.mark.parametrize(("place", "value"), [(2, 2), (4, 1)], ids=["role", "threads"])
async def test_server_hello_with_other_allowed_values(
    shared: Service, wire: FrameProxy, place: int, value: int
) -> None:
    """The admin is told that it may only write; the client of two threads is told that there is one."""

    def change(frame: Frame) -> Frame:
        assert frame.body[place] != value
        return Frame(HELLO_OK, frame.body[:place] + bytes((value,)) + frame.body[place + 1 :])

    wire.to_down = changing(HELLO_OK, change)
    with pytest.raises(IdentityError):
        async with shared.client(wire):
            pass


async def test_server_hello_of_another_handshake(shared: Service, wire: FrameProxy) -> None:
    """A replayed hello is true, but does not answer this client's."""
    seen: list[Frame] = []

    def replay(frame: Frame) -> Frame:
        seen.append(frame)
        return seen[0]

    wire.to_down = changing(HELLO_OK, replay)
    async with shared.client(wire):
        pass
    with pytest.raises(IdentityError):
        async with shared.client(wire):
            pass


async def test_server_of_another_monitor(shared: Service) -> None:
    """The pinned fingerprint is another monitor's. (The key is unknown there too, but nothing signed can say so.)"""
    with pytest.raises((IdentityError, RefusedError)):
        async with shared.client(monitor="ab" * 32, key=None):
            pass


async def test_client_key_is_exchanged(shared: Service, wire: FrameProxy) -> None:
    """The host puts its own ephemeral key into the client's hello, to share the session's keys with the monitor."""
    wire.to_up = changing(HELLO, lambda frame: Frame(HELLO, flipped(frame.body, 4)))
    with pytest.raises(RefusedError) as caught:
        async with shared.client(wire):
            pass
    assert caught.value.code == 2
