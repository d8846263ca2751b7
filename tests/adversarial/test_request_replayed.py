"""The host runs a client's request a second time: the same bytes, at once or later, on any connection."""

import asyncio

from _harness.client_frames import REQUEST, recording, rejection
from _harness.service import Service
from support.frames import Frame, FrameProxy

BAD_SEQUENCE = 3


async def test_same_bytes_twice_run_once(shared: Service, wire: FrameProxy, key: bytes) -> None:
    async with shared.client(wire) as kv:
        wire.to_up = lambda _, frame: [frame, frame] if frame.kind == REQUEST else [frame]
        answer = await kv.increment(key, 5)
        assert answer.value == 5
        wire.to_up = lambda _, frame: [frame]
        await answer.certified()
    async with shared.client() as honest:
        assert (await honest.increment(key, 0, certified=True)).value == 5


async def test_recorded_request_is_rejected_later(shared: Service, wire: FrameProxy, key: bytes) -> None:
    recorded: list[Frame] = []

    wire.to_up = recording(REQUEST, recorded)
    async with shared.client(wire) as kv:
        for _ in range(3):
            await kv.increment(key, 1, certified=True)
        for frame in recorded:
            assert await rejection(shared.address, frame) == BAD_SEQUENCE
        await asyncio.sleep(0.2)
        assert (await kv.increment(key, 0, certified=True)).value == 3
