"""The host lies to the monitor on the control side: about durability, and with messages out of place."""

import asyncio
import contextlib
import struct
from collections.abc import Sequence

import pytest
from _harness.expect import EXIT_VIOLATION, caught, unharmed
from _harness.service import Launch, certified
from _harness.verifier_log import REJECTED, Output, Request
from support.frames import Frame, open_stream, read_frame

from kvstore.messages import Monitor
from kvstore.monitor_link import PROTOCOL_VERSION

_UNKNOWN_SESSION = b"\x01"


async def test_durable_before_it_is(launch: Launch) -> None:
    """The host says at once that the epoch is on disk, and never writes it: certified, then lost, but not unnoticed."""
    service = await launch(through_proxy=True)
    await certified(service, [(b"alice", b"1")])
    signed = asyncio.Event()

    def lie(frame: Frame) -> Sequence[Frame]:
        if frame.kind == Monitor.SEALED:
            service.proxy.send_control(Frame(Monitor.DURABLE, frame.body[:4]))
            return ()
        if frame.kind == Monitor.CERTIFICATE:
            signed.set()
            return ()
        return (frame,)

    service.proxy.to_host = lie
    async with service.client() as kv:
        await kv.put(b"alice", b"2")
        await asyncio.wait_for(signed.wait(), 10)
    service.server.kill()
    service.proxy.to_host = lambda frame: (frame,)
    result = await service.start_refused()
    assert result.code == EXIT_VIOLATION
    assert "rollback" in result.stderr


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Monitor.DURABLE, struct.pack("<I", 1_000_000)),
        Frame(Monitor.START, struct.pack("<HIB", 1, 1_024, 0)),
        Frame(0x7F, b""),
    ],
    ids=["durable", "start", "unknown"],
)
async def test_message_out_of_place(launch: Launch, frame: Frame) -> None:
    service = await launch(through_proxy=True)
    async with service.client() as kv:
        before = await kv.put(b"alice", b"1", certified=True)
        service.proxy.send_control(frame)
        await caught(service, kv, "bad_host_message", certified=[before])


async def test_request_made_up_in_the_log(launch: Launch) -> None:
    """An unauthenticated request is no violation: the host cannot know whether a client's MAC is right."""
    service = await launch(through_proxy=True)
    await certified(service, [(b"alice", b"1")])
    made_up = struct.pack("<QIHHQQ", 1 << 60, 1, 0, 1, 1, 0) + b"\x03" + bytes(32) + bytes(16)
    assert await service.proxy.inject(0, [Request(made_up)]) == [Output(REJECTED, _UNKNOWN_SESSION)]
    async with service.client() as kv:
        assert (await kv.get(b"alice", certified=True)).value == b"1"


async def test_session_is_closed_under_a_client(launch: Launch) -> None:
    """The client opens another one; what it was answered is certified all the same."""
    service = await launch(epoch_ms=500, through_proxy=True)
    async with service.client() as kv:
        await kv.put(b"alice", b"1", certified=True)
        answer = await kv.increment(b"counter", 1)
        current = kv._session._current
        assert current is not None
        service.proxy.send_control(Frame(Monitor.CLOSE_SESSION, current.turn.session.to_bytes(8, "little")))
        await answer.certified()
        assert (await kv.get(b"counter", certified=True)).value == (1).to_bytes(8, "little")
    await unharmed(service)


async def test_second_control_connection(launch: Launch) -> None:
    """Whoever else reaches the monitor's socket cannot take it over, and gets nobody accused."""
    service = await launch(through_proxy=True)
    reader, writer = await open_stream(service.proxy.monitor)
    writer.write(Frame(Monitor.CONTROL, struct.pack("<H", PROTOCOL_VERSION)).packed())
    writer.write(Frame(Monitor.START, struct.pack("<HIB", 1, 1_024, 0)).packed())
    refused = await read_frame(reader)
    assert refused is not None
    assert refused.kind == Monitor.NOT_STARTED
    writer.close()
    await writer.wait_closed()
    await unharmed(service)


async def test_second_log_connection(launch: Launch) -> None:
    service = await launch(through_proxy=True)
    reader, writer = await open_stream(service.proxy.monitor)
    status = await service.status()
    incarnation = bytes.fromhex(status.json()["incarnation"])
    writer.write(Frame(Monitor.LOG_OPEN, struct.pack("<HH", PROTOCOL_VERSION, 0) + incarnation).packed())
    writer.write(Frame(Monitor.LOG, b"\xff").packed())
    while (answer := await read_frame(reader)) is not None:
        assert answer.kind != Monitor.OUTPUTS
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await unharmed(service)
