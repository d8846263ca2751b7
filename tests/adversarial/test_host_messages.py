"""The host lies to the monitor on the control side: about durability, and with messages out of place."""

import asyncio
import struct
from collections.abc import Sequence

import pytest
from _harness.expect import EXIT_VIOLATION, caught
from _harness.service import Launch, certified
from _harness.verifier_log import REJECTED, Output, Request
from support.frames import Frame

from kvstore.messages import Monitor

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
        Frame(Monitor.START, struct.pack("<HI", 1, 1_024)),
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
