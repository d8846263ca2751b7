"""Keeps one HTTP gateway process alive, beside the runs: it is a client, and finds the way back to each by itself.

Its listening socket stays open, so callers wait while the process is started again. It is told once which monitor to
trust, which no restart changes, and then of every certificate and of the violation.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Protocol

from kvstore import limits
from kvstore.children import Child, Children, ServiceError
from kvstore.config import ChildConfig, ServeConfig
from kvstore.data_directory import address_text, bind_ports, http_token
from kvstore.framing import pack_frame
from kvstore.messages import EPOCH, TOKEN, FromChild, Json, Server, ToChild
from kvstore.monitor_control import Started
from kvstore.restarts import Pauses, Restarts
from kvstore.violation import Violation

logger = logging.getLogger(__name__)


class StatusSource(Protocol):
    async def status(self) -> Json: ...


class GatewayKeeper:
    """`start_process`, then `begin` whenever a run serves; `end` last."""

    def __init__(
        self,
        config: ServeConfig,
        runtime: Path,
        lock: int,
        children: Children,
        address: str,
        source: StatusSource,
        restarts: Restarts,
    ) -> None:
        """`address`: that of the service, on this machine. Raises ServiceError."""
        assert config.http_port is not None, "without a port there is no gateway"
        http_token(config.http_token_path)
        (self._listener,) = bind_ports(config.host, config.http_port, 1)
        self.http_address = address_text(self._listener)
        self._config = ChildConfig(
            serve=config, runtime=runtime, listen_descriptor=self._listener.fileno(), address=_reachable(address)
        )
        self._descriptors = [lock, self._listener.fileno()]
        self._children = children
        self._source = source
        self._restarts = restarts
        self._child: Child | None = None
        self._begin: Json | None = None
        self._certificate: tuple[int, bytes] | None = None
        self._violation: Violation | None = None
        self._served = False
        self._pauses = Pauses()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    async def start_process(self) -> None:
        """Start it; it serves no one before `begin`."""
        self._child = await self._children.start(self, "kvstore.gateway", "gateway", self._config, self._descriptors)

    async def begin(self, started: Started | None) -> None:
        """A run serves. The first time, wait until the gateway does, too. Raises ServiceError."""
        if started is not None and started.certificate:
            self.certificate(started.epoch - 1, started.certificate)
        if self._begin is None:
            self._begin = {"fingerprint": None if started is None else started.fingerprint}
            ready = asyncio.ensure_future(self._begin_process())
            watched: set[asyncio.Future[Any]] = {ready, self._failed}
            done, _ = await asyncio.wait(watched, timeout=limits.START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ready not in done:
                ready.cancel()
                if self._failed in done:
                    self._failed.result()
                raise ServiceError("the gateway did not become ready in time")

    def certificate(self, epoch: int, certificate: bytes) -> None:
        self._certificate = (epoch, certificate)
        if self._served and self._child is not None:
            self._child.send(ToChild.CERTIFICATE, EPOCH.pack(epoch), certificate)

    def violation(self, violation: Violation) -> None:
        self._violation = violation
        if self._served and self._child is not None:
            self._child.send_json(ToChild.VIOLATION, violation.to_json())

    async def end(self) -> None:
        """Let it answer what is in flight, and end it."""
        self._ended = True
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        if self._child is not None:
            await self._children.end([self._child])
        if self._failed.done():
            self._failed.exception()  # seen

    async def _begin_process(self) -> None:
        child = self._child
        assert child is not None, "it is started before"
        await child.attached.wait()
        child.send_json(ToChild.BEGIN, self._begin or {})
        if self._certificate is not None:
            child.send(ToChild.CERTIFICATE, EPOCH.pack(self._certificate[0]), self._certificate[1])
        if self._violation is not None:
            child.send_json(ToChild.VIOLATION, self._violation.to_json())
        self._served = True
        await child.ready()

    async def _start_again(self, pause: float) -> None:
        await asyncio.sleep(pause)
        await self.start_process()
        if self._begin is not None:
            await self._begin_process()
            logger.info("the gateway serves again")

    # --- ChildOwner ---

    def child_message(self, child: Child, kind: int, body: bytes) -> None:
        assert kind == FromChild.CLIENT, "a gateway asks for nothing but the status"
        self._spawn(self._answer_status(child, body[: TOKEN.size]))

    def child_ended(self, child: Child, text: str, *, explained: bool) -> None:
        first_start = not self._served
        self._served = False
        if explained and first_start and not self._restarts.gateway_count:
            if not self._failed.done():
                self._failed.set_exception(ServiceError(text))
        elif not self._ended:
            self._restarts.gateway_count += 1
            pause = self._pauses.next()
            logger.error("%s; it alone is started again in %.1f s", text, pause)
            self._spawn(self._start_again(pause))

    async def _answer_status(self, child: Child, token: bytes) -> None:
        frame = pack_frame(Server.STATUS, json.dumps(await self._source.status()).encode())
        child.send(ToChild.ANSWER, token, frame)

    def _spawn(self, step: Awaitable[None]) -> None:
        task = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _reachable(address: str) -> str:
    """The same port on this machine, where the service listens on all interfaces."""
    return address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
