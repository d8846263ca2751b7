"""Certificates over HTTP: the newest one, and a stream of server-sent events of certificates and the violation."""

import asyncio
import json
from typing import Any, Final

from aiohttp import web

from kvstore.http_errors import ApiError

_KEEP_ALIVE_SECONDS: Final = 15.0
_BACKLOG_MAX: Final = 1_000
"""Events that a slow reader may be behind before it is dropped; it can ask for what it missed."""


class CertificateEvents:
    """What the supervisor tells of certificates and violations, for any number of readers. The signatures inside are
    the monitor's: whoever has its fingerprint can check them."""

    def __init__(self) -> None:
        self._latest: dict[str, Any] | None = None
        self._violation: dict[str, Any] | None = None
        self._readers: set[asyncio.Queue[bytes | None]] = set()

    def certificate(self, epoch: int, certificate: bytes) -> None:
        self._latest = {"epoch": epoch, "certificate": certificate.hex()}
        self._publish("certificate", self._latest)

    def violation(self, violation: dict[str, Any]) -> None:
        self._violation = violation
        self._publish("violation", violation)

    def close(self) -> None:
        """End all streams."""
        for queue in list(self._readers):
            self._drop(queue)

    async def latest(self, _request: web.Request) -> web.Response:
        if self._latest is None:
            raise ApiError(404, "not_found", "no epoch is certified yet")
        return web.json_response(self._latest)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_BACKLOG_MAX)
        self._readers.add(queue)
        try:
            await response.prepare(request)
            for name, content in (("certificate", self._latest), ("violation", self._violation)):
                if content is not None:
                    await response.write(_event(name, content))
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), _KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    event = b": still here\n\n"
                if event is None:
                    return response
                await response.write(event)
        except ConnectionError:
            return response
        finally:
            self._readers.discard(queue)

    def _publish(self, name: str, content: dict[str, Any]) -> None:
        event = _event(name, content)
        for queue in list(self._readers):
            if queue.full():
                self._drop(queue)
            else:
                queue.put_nowait(event)

    def _drop(self, queue: asyncio.Queue[bytes | None]) -> None:
        self._readers.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)


def _event(name: str, content: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n".encode()
