"""The host lies about which requests ran when a client comes back: only the monitor's own answer counts."""

import pytest
from _harness.client_frames import RECEIPT, REJECTED, REQUEST, RESUMED, changing, flipped, rejection, untouched
from _harness.expect import unharmed
from _harness.service import Service
from kvstore_client import OutcomeUnknownError, ReceiptError
from support.frames import Frame, FrameProxy, Link

BAD_GENERATION = 4
_LAST_SEQUENCE, _TS, _MAC = 16, 24, -1


@pytest.mark.parametrize("place", [_LAST_SEQUENCE, _TS, _MAC])
async def test_changed_answer_to_a_resume(shared: Service, wire: FrameProxy, key: bytes, place: int) -> None:
    """The request ran, and the host says that it did not (or later, or not to whom)."""

    def lose(link: Link, frame: Frame) -> list[Frame]:
        if frame.kind != RECEIPT:
            return [frame]
        wire.to_down = changing(RESUMED, lambda resumed: Frame(RESUMED, flipped(resumed.body, place)))
        link.cut()
        return []

    async with shared.client(wire) as kv:
        before = await kv.put(key, b"1", certified=True)
        wire.to_down = lose
        with pytest.raises(ReceiptError) as caught:
            await kv.increment(key + b"/counter", 1)
        assert {"resume", "resumed"} <= caught.value.evidence.keys()
        await before.certified()
    async with shared.client() as honest:
        assert (await honest.increment(key + b"/counter", 0, certified=True)).value == 1


async def test_resume_is_said_to_be_rejected(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """Only the host says so, and it holds the request: the client does not believe that it will never run."""
    held: list[Frame] = []

    def hold(link: Link, frame: Frame) -> list[Frame]:
        if frame.kind != REQUEST:
            return [frame]
        held.append(frame)
        wire.to_up = untouched
        wire.to_down = changing(RESUMED, _as_rejected)
        link.cut()
        return []

    async with shared.client(wire) as kv:
        wire.to_up = hold
        with pytest.raises(OutcomeUnknownError):
            await kv.increment(key, 1)
        # The true resume has reached the monitor, so the request is dead; the client cannot know that.
        assert await rejection(shared.address, held[0]) == BAD_GENERATION
        assert (await kv.increment(key, 0, certified=True)).value == 0
    await unharmed(shared)


def _as_rejected(frame: Frame) -> Frame:
    session, thread = frame.body[:8], frame.body[12:14]
    return Frame(REJECTED, session + thread + bytes(8) + b"\x01")
