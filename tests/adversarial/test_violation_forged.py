"""The host claims that the monitor has failed: the client does not take its word for the monitor's."""

import struct

from _harness.client_frames import ERROR, VIOLATION
from _harness.expect import learned
from _harness.service import Service
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kvstore_client import ProtocolError, RefusedError
from support.frames import Frame, FrameProxy

_EPOCH_MISMATCH = 40
_MONITOR_FAILED = 8


async def test_violation_signed_by_somebody_else(shared: Service, wire: FrameProxy, key: bytes) -> None:
    body = struct.pack("<4s16s16sHHIQH32s", b"ZKV1", bytes(16), bytes(16), _EPOCH_MISMATCH, 0, 1, 0, 0, bytes(32))
    forged = body + Ed25519PrivateKey.generate().sign(body)
    async with shared.client(wire) as kv:
        answer = await kv.put(key, b"1", certified=True)
        wire.links[-1].send_down(Frame(VIOLATION, forged))
        error = await learned(kv)
        assert isinstance(error, ProtocolError)
        assert "did not sign" in str(error)
        await answer.certified()


async def test_failure_without_any_signature(shared: Service, wire: FrameProxy, key: bytes) -> None:
    async with shared.client(wire) as kv:
        await kv.put(key, b"1", certified=True)
        wire.links[-1].send_down(Frame(ERROR, struct.pack("<H", _MONITOR_FAILED) + b"the monitor has found you"))
        error = await learned(kv)
        assert isinstance(error, RefusedError)
        assert "no violation that the monitor signed" in str(error)
