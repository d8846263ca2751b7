"""What must be seen after a lie was caught: by the client that was lied to, and by the operator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import pytest
from blake3 import blake3
from kvstore_client import KV, Answer, KVStoreError, ViolationError

from _harness.service import Service

EXIT_VIOLATION = 3
"""Of `zetakv`: whenever something was changed that only a lie, or somebody else's hand, can have changed."""

_LEAF_DEPTH = 256
_LEARN_SECONDS = 25.0
"""A verifier thread waits 10 s for another thread's clock before it gives up."""


AnswerT = TypeVar("AnswerT")


async def attempted(call: Awaitable[AnswerT]) -> AnswerT | None:
    """An operation during an attack: the host may answer it, provisionally, or the lie is caught before it can."""
    try:
        return await call
    except KVStoreError:
        return None


async def learned(kv: KV) -> KVStoreError:
    """What every call of a client raises as soon as it has learned of a lie."""
    async with asyncio.timeout(_LEARN_SECONDS):
        while True:
            try:
                await kv.put(b"a call that raises what the client has learned", b"")
            except KVStoreError as error:
                return error
            await asyncio.sleep(0.02)


async def caught(
    service: Service,
    kv: KV,
    name: str,
    *,
    provisional: Sequence[Answer | None] = (),
    certified: Sequence[Answer] = (),
    key: bytes | None = None,
    is_stored: bool = True,
) -> ViolationError:
    """The monitor has found the violation `name`, everybody learns of it, none of the `provisional` answers is or will
    be certified, and what was `certified` stays so.

    `key`: of the record at which it was found, if that can be known. If its row `is_stored`, the host adds the key to
    the hash that the monitor names.
    """
    found = await learned(kv)
    assert isinstance(found, ViolationError), repr(found)
    assert found.violation.name == name, found
    assert found.evidence["violation"]
    if key is not None:
        assert found.violation.key_depth == _LEAF_DEPTH
        assert found.violation.key_bits == blake3(key).digest()
        assert (repr(key)[1:] in found.violation.host_finding) == is_stored
    for answer in provisional:
        if answer is not None:
            with pytest.raises(ViolationError):
                await answer.certified()
            assert not answer.is_certified
    for answer in certified:
        await answer.certified()
    await reported(service, name, key, is_stored=is_stored)
    return found


async def reported(service: Service, name: str, key: bytes | None = None, *, is_stored: bool = True) -> None:
    """The operator, too, is told: by the status, and by whatever is called next."""
    result = await service.status()
    assert result.code == EXIT_VIOLATION, result
    status = result.json()
    assert status["state"] == "failed"
    assert status["violation"]["name"] == name
    if key is not None:
        assert status["violation"]["key_hash"] == blake3(key).hexdigest()
        assert (repr(key)[1:] in status["violation"]["host_finding"]) == is_stored
    result = await service.command("get", "any")
    assert result.code == EXIT_VIOLATION, result
    assert name in result.stderr


async def unharmed(service: Service) -> None:
    """Nobody was accused, and the service goes on."""
    async with service.client() as kv:
        await kv.put(b"still served", b"1", certified=True)
    result = await service.status()
    assert (result.code, result.json()["state"], result.json()["violation"]) == (0, "ok", None)
