"""The host keeps a request, lets the client reconnect, and runs the request when the client has gone on."""

from _harness.client_frames import REQUEST, rejection
from _harness.service import Service
from support.frames import Frame, FrameProxy, Link

BAD_GENERATION = 4


async def test_held_back_request_never_runs(shared: Service, wire: FrameProxy, key: bytes) -> None:
    held: list[Frame] = []

    def hold_first(link: Link, frame: Frame) -> list[Frame]:
        if frame.kind != REQUEST or held:
            return [frame]
        held.append(frame)
        link.cut()
        return []

    async with shared.client(wire) as kv:
        await kv.put(key + b"/before", b"1")
        wire.to_up = hold_first
        # The resumed session has told the client that the held request did not run, so that it was sent again.
        assert (await kv.increment(key, 1, certified=True)).value == 1
        assert await rejection(shared.address, held[0]) == BAD_GENERATION
        assert (await kv.increment(key, 0, certified=True)).value == 1


async def test_held_back_request_after_other_writes(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """As above, where the late request would overwrite a newer value."""
    held: list[Frame] = []

    def hold_first(link: Link, frame: Frame) -> list[Frame]:
        if frame.kind != REQUEST or held:
            return [frame]
        held.append(frame)
        link.cut()
        return []

    async with shared.client(wire) as kv:
        wire.to_up = hold_first
        await kv.put(key, b"old", certified=True)
        await kv.put(key, b"new", certified=True)
        assert await rejection(shared.address, held[0]) == BAD_GENERATION
        assert (await kv.get(key, certified=True)).value == b"new"
