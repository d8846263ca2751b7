"""A whole service under attack: the server, its store, and the man in the middle before its monitor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from kvstore_client import KV, connect
from support.frames import FrameProxy
from support.server import CommandResult, Server

from _harness.disk import Disk
from _harness.monitor_proxy import MonitorProxy

EPOCH_MS = 100

CERTIFICATE_SECONDS = 10.0
"""Far more than an epoch of these tests takes, on a busy machine."""


class Service:
    """`server` with its own monitor, or with one that only `proxy` leads to."""

    def __init__(self, server: Server, proxy: MonitorProxy | None = None) -> None:
        self.server = server
        self.disk = Disk(server.store)
        self._proxy = proxy

    @property
    def proxy(self) -> MonitorProxy:
        assert self._proxy is not None, "this service has its monitor for itself"
        return self._proxy

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.server.port

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def start_refused(self) -> CommandResult:
        return await asyncio.to_thread(self.server.start_refused)

    async def command(self, *arguments: str) -> CommandResult:
        """`zetakv ARGUMENTS`, as a person would call it, past every proxy."""
        return await asyncio.to_thread(self.server.command, *arguments)

    async def status(self) -> CommandResult:
        return await asyncio.to_thread(self.server.status)

    def client(self, through: FrameProxy | None = None, **options: Any) -> AbstractAsyncContextManager[KV]:
        """A client that pins the monitor, and is its admin unless it gets another `key`."""
        port = self.server.port if through is None else through.port
        defaults: dict[str, Any] = {
            "monitor": self.server.fingerprint,
            "key": self.server.admin_key,
            "certificate_timeout": CERTIFICATE_SECONDS,
        }
        return connect(f"127.0.0.1:{port}", **defaults | options)


class Interpose(Protocol):
    async def __call__(self, service: Service) -> FrameProxy:
        """A man in the middle before a service, which listens, and ends with the test."""


class Launch(Protocol):
    async def __call__(
        self, *options: str, workers: int = 1, epoch_ms: int = EPOCH_MS, through_proxy: bool = False, start: bool = True
    ) -> Service:
        """A service of its own, ended with the test. `through_proxy`: the attack stands between host and monitor."""


async def certified(service: Service, records: Sequence[tuple[bytes, bytes]]) -> None:
    """Put the records, honestly, and wait for their certificate."""
    async with service.client() as kv:
        answers = [await kv.put(key, value) for key, value in records]
        for answer in answers:
            await answer.certified()


async def hot(service: Service, records: Sequence[tuple[bytes, bytes]]) -> None:
    """The same twice: what is used twice in a short time is in Blum from then on."""
    for _ in range(2):
        await certified(service, records)
