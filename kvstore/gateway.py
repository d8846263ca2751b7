"""The HTTP gateway process (`python -m kvstore.gateway CONFIG`): the same operations over HTTP/JSON.

It is a client of the service like any other, with a key of its own, and verifies every answer on behalf of its callers,
who thus trust it. Callers show the bearer token of the data directory, unless the service is open.
"""

import asyncio
import hmac
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from aiohttp import web
from kvstore_client import KV, ClientKey, KVStoreError, connect

from kvstore.child import Control, run_child
from kvstore.config import ChildConfig
from kvstore.data_directory import http_token
from kvstore.framing import HEADER_BYTES
from kvstore.http_api import KeyValueApi
from kvstore.http_errors import ApiError, error_response
from kvstore.http_events import CertificateEvents
from kvstore.http_openapi import openapi
from kvstore.limits import MIB
from kvstore.messages import EPOCH, TOKEN, Client, FromChild, Json, ToChild

logger = logging.getLogger(__name__)

_BODY_BYTES_MAX: Final = 32 * MIB
"""The largest value in base64, with its JSON."""
_PUBLIC_PATHS: Final = frozenset({"/v1/status", "/v1/openapi.json"})
_CONNECT_SECONDS: Final = 10.0
_SHUTDOWN_SECONDS: Final = 2.0
"""How long requests in flight may take at the end: less than the supervisor waits for this process."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    def __init__(self, config: ChildConfig, control: Control) -> None:
        self._config = config
        self._control = control
        self._fingerprint: str | None = None
        self._token = None if config.serve.open else http_token(config.serve.http_token_path)
        self._api = KeyValueApi(self._connect)
        self._events = CertificateEvents()
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._tokens = 0
        self._runner: web.AppRunner | None = None
        self._task: asyncio.Task[None] | None = None

    def control_message(self, kind: int, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        match kind:
            case ToChild.BEGIN:
                self._task = loop.create_task(self._begin(json.loads(body)))
            case ToChild.CERTIFICATE:
                self._events.certificate(EPOCH.unpack_from(body)[0], body[EPOCH.size :])
            case ToChild.VIOLATION:
                self._events.violation(json.loads(body))
            case ToChild.ANSWER:
                waiting = self._asked.pop(TOKEN.unpack_from(body)[0])
                if not waiting.done():
                    waiting.set_result(body[TOKEN.size + HEADER_BYTES :])
            case ToChild.END:
                self._task = loop.create_task(self._end())

    async def _begin(self, begin: Json) -> None:
        self._fingerprint = begin["fingerprint"]
        self._runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await self._runner.setup()
        await web.SockSite(self._runner, socket.socket(fileno=self._config.listen_descriptor)).start()
        self._control.send_json(FromChild.READY, {})

    async def _end(self) -> None:
        self._events.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._api.close()
        self._control.end()

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_errors, self._authorize], client_max_size=_BODY_BYTES_MAX)
        application.add_routes(
            [
                web.get("/v1/keys/{key:.+}", self._api.get),
                web.put("/v1/keys/{key:.+}", self._api.put),
                web.delete("/v1/keys/{key:.+}", self._api.delete),
                web.post("/v1/batch", self._api.batch),
                web.get("/v1/head", self._api.head),
                web.get("/v1/certificates/latest", self._events.latest),
                web.get("/v1/certificates/events", self._events.stream),
                web.get("/v1/status", self._status),
                web.get("/v1/openapi.json", self._openapi),
            ]
        )
        return application

    async def _status(self, _request: web.Request) -> web.Response:
        """Asked of the supervisor, not of the SDK: after a violation its client says nothing but that."""
        self._tokens = (self._tokens + 1) % 2**32
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[self._tokens] = answer
        self._control.send(FromChild.CLIENT, TOKEN.pack(self._tokens), bytes((Client.STATUS,)))
        return web.Response(body=await answer, content_type="application/json")

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.json_response(openapi(token_needed=self._token is not None))

    async def _connect(self, stack: AsyncExitStack) -> KV:
        key = self._client_key()
        return await stack.enter_async_context(
            connect(
                self._config.address,
                monitor=self._fingerprint,
                key=key,
                timeout=_CONNECT_SECONDS,
                unverified=not self._config.serve.verified,
            )
        )

    def _client_key(self) -> ClientKey | None:
        serve = self._config.serve
        path: Path = serve.http_key or serve.admin_key_path
        if not serve.verified or (serve.http_key is None and serve.open and not path.exists()):
            return None
        if serve.http_key is None and not path.exists():
            raise ApiError(503, "no_client_key", "the gateway has no client key: start the server with --http-key FILE")
        return ClientKey.load(path)

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._token is not None and request.path not in _PUBLIC_PATHS:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                token.encode(errors="surrogateescape"), self._token.encode()
            ):
                raise ApiError(401, "unauthorized", "send `Authorization: Bearer TOKEN`, with the token in http.token")
        return await handler(request)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (ApiError, KVStoreError) as error:
        return error_response(error)
    except web.HTTPException as error:
        response = error_response(
            ApiError(error.status, error.reason.lower().replace(" ", "_"), error.text or error.reason)
        )
        if "Allow" in error.headers:  # which a 405 must have (RFC 9110, 15.5.6)
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception:
        logger.exception("unexpected fault")
        return error_response(ApiError(500, "internal", "unexpected fault; the server's log says more"))


async def main(config: ChildConfig, control: Control) -> None:
    # It reports every request that is no HTTP with a traceback; faults of ours are logged by `_errors`.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    gateway = Gateway(config, control)
    await control.connect(config, gateway.control_message)


if __name__ == "__main__":
    run_child("gateway", main)
