"""The client for programs without asyncio: the same calls, blocking. An event loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any, TypeVar

from kvstore_client._client import KV, connect
from kvstore_client._errors import ConnectionLostError
from kvstore_client._heads import Head, Relation
from kvstore_client._keys import ClientKey
from kvstore_client._messages import AuthorizedClient, Role
from kvstore_client._overrides import Override
from kvstore_client._receipts import Answer, Attempt, Number, Value, Written

T = TypeVar("T")

END_SECONDS = 5.0
"""For calls of other threads to end, when the client is closed: they have failed already."""


@contextmanager
def connect_sync(
    address: str,
    monitor: str | None = None,
    *,
    key: ClientKey | str | PathLike[str] | None = None,
    state: str | PathLike[str] | None = None,
    timeout: float = 30.0,
    certificate_timeout: float = 60.0,
    tls: ssl.SSLContext | None = None,
    unverified: bool = False,
    accept_override: str | None = None,
) -> Iterator[SyncKV]:
    """As `connect`, for `with` instead of `async with`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="zetakv-client", daemon=True)
    thread.start()
    connecting = connect(
        address,
        monitor,
        key=key,
        state=state,
        timeout=timeout,
        certificate_timeout=certificate_timeout,
        tls=tls,
        unverified=unverified,
        accept_override=accept_override,
    )
    try:
        kv = _wait(loop, connecting.__aenter__())
        try:
            yield SyncKV(kv, loop)
        finally:
            _wait(loop, connecting.__aexit__(None, None, None))
    finally:
        _wait(loop, _end_calls())
        _wait(loop, loop.shutdown_asyncgens())
        _wait(loop, loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _wait(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    if loop.is_closed():
        coroutine.close()
        raise ConnectionLostError("the client is closed")
    waiting = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return waiting.result()
    except BaseException:
        # An interrupted call (Ctrl-C) must not be sent behind the caller's back.
        waiting.cancel()
        raise


async def _end_calls() -> None:
    """Let the calls of other threads, which have failed by now, tell so before the loop stops."""
    calls = asyncio.all_tasks() - {asyncio.current_task()}
    if calls:
        _, unfinished = await asyncio.wait(calls, timeout=END_SECONDS)
        for call in unfinished:
            call.cancel()


class SyncKV:
    """As `KV`, blocking; may be used from several threads. Errors are the same."""

    def __init__(self, kv: KV, loop: asyncio.AbstractEventLoop) -> None:
        self._kv = kv
        self._loop = loop
        self.clients = SyncAuthorizedClients(kv, loop)

    def get(self, key: bytes, *, certified: bool = False) -> Value:
        return self._wait(self._kv.get(key, certified=certified))

    def put(self, key: bytes, value: bytes, *, certified: bool = False) -> Written:
        return self._wait(self._kv.put(key, value, certified=certified))

    def delete(self, key: bytes, *, certified: bool = False) -> Written:
        return self._wait(self._kv.delete(key, certified=certified))

    def insert(self, key: bytes, value: bytes, *, certified: bool = False) -> Attempt:
        return self._wait(self._kv.insert(key, value, certified=certified))

    def compare_and_set(
        self, key: bytes, expected: bytes | None, new: bytes | None, *, certified: bool = False
    ) -> Attempt:
        return self._wait(self._kv.compare_and_set(key, expected, new, certified=certified))

    def increment(self, key: bytes, delta: int = 1, *, certified: bool = False) -> Number:
        return self._wait(self._kv.increment(key, delta, certified=certified))

    def get_many(self, keys: Iterable[bytes], *, certified: bool = False) -> list[Value]:
        return self._wait(self._kv.get_many(keys, certified=certified))

    def put_many(
        self, items: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], *, certified: bool = False
    ) -> list[Written]:
        return self._wait(self._kv.put_many(items, certified=certified))

    def wait_certified(self, answer: Answer, timeout: float | None = None) -> None:
        """As `await answer.certified(timeout)`."""
        self._wait(answer.certified(timeout))

    def barrier(self, timeout: float | None = None) -> None:
        self._wait(self._kv.barrier(timeout))

    @property
    def role(self) -> Role:
        return self._kv.role

    @property
    def epoch(self) -> int:
        return self._kv.epoch

    def head(self) -> Head | None:
        return self._kv.head()

    def compare(self, head: Head | str, timeout: float | None = None) -> Relation:
        return self._wait(self._kv.compare(head, timeout))

    @property
    def overrides(self) -> tuple[Override, ...]:
        return self._kv.overrides

    def status(self) -> dict[str, Any]:
        return self._wait(self._kv.status())

    def keys(self) -> Iterator[bytes]:
        keys = self._kv.keys()

        async def next_key() -> bytes | None:
            return await anext(keys, None)

        while (key := self._wait(next_key())) is not None:
            yield key

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return _wait(self._loop, coroutine)


class SyncAuthorizedClients:
    """As `AuthorizedClients`, blocking."""

    def __init__(self, kv: KV, loop: asyncio.AbstractEventLoop) -> None:
        self._clients = kv.clients
        self._loop = loop

    def add(self, name: str, public_key: bytes, role: Role) -> Written:
        return _wait(self._loop, self._clients.add(name, public_key, role))

    def remove(self, public_key: bytes) -> Written:
        return _wait(self._loop, self._clients.remove(public_key))

    def list(self) -> list[AuthorizedClient]:
        return _wait(self._loop, self._clients.list())
