"""The host changes a request under way, or makes one up: the monitor rejects it, and its state does not change."""

import struct

import pytest
from _harness.client_frames import REQUEST, flipped, recording, rejection
from _harness.expect import unharmed
from _harness.service import Service
from kvstore_client import ConnectionLostError
from support.frames import Frame, FrameProxy, Link

UNKNOWN_SESSION, BAD_MAC = 1, 2
_MAC_BYTES = 16


def _request_frame(request: bytes, payload: bytes) -> Frame:
    return Frame(REQUEST, struct.pack("<I", len(request)) + request + payload)


def _taken_apart(frame: Frame) -> tuple[bytes, bytes]:
    end = 4 + struct.unpack_from("<I", frame.body)[0]
    return frame.body[4:end], frame.body[end:]


async def test_changed_put_is_rejected(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """The last byte before the MAC is the last of the inline value: the host writes another value than was put."""

    def change(_: Link, frame: Frame) -> list[Frame]:
        if frame.kind != REQUEST:
            return [frame]
        request, payload = _taken_apart(frame)
        return [_request_frame(flipped(request, -_MAC_BYTES - 1), payload)]

    async with shared.client(wire, timeout=0.5) as kv:
        wire.to_up = change
        with pytest.raises(ConnectionLostError):
            await kv.put(key, b"honest")
    async with shared.client() as honest:
        assert (await honest.get(key, certified=True)).value is None


async def test_put_that_nobody_sent(shared: Service, wire: FrameProxy, key: bytes) -> None:
    """Requests that the host makes up for a session that it has seen, and for one that it has not."""
    seen: list[Frame] = []

    wire.to_up = recording(REQUEST, seen)
    async with shared.client(wire) as kv:
        await kv.put(key, b"honest", certified=True)
        request, payload = _taken_apart(seen[-1])
        next_sequence = int.from_bytes(request[16:24], "little") + 1
        forged = request[:16] + struct.pack("<Q", next_sequence) + request[24:-_MAC_BYTES]
        assert await rejection(shared.address, _request_frame(forged + bytes(_MAC_BYTES), payload)) == BAD_MAC
        stranger = struct.pack("<Q", 1 << 60) + forged[8:] + bytes(_MAC_BYTES)
        assert await rejection(shared.address, _request_frame(stranger, payload)) == UNKNOWN_SESSION
        assert (await kv.get(key, certified=True)).value == b"honest"
    await unharmed(shared)
