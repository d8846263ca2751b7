"""The operations of the HTTP interface, over one client of the SDK that verifies every answer.

The gateway verifies on behalf of its callers, who thus trust it (and the host that it runs on): it is a convenience for
curl and dashboards on one's own machine. Whoever does not trust the host uses the SDK.
"""

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web
from kvstore_client import KV, Answer, Attempt, KVStoreError, Number, Value

from kvstore.http_errors import ApiError, error_body

BATCH_OPERATIONS_MAX: Final = 1_000
"""Operations in one batch: a bound on the work of one HTTP request."""

_BAD_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")

Connect = Callable[[AsyncExitStack], Awaitable[KV]]
JsonObject = dict[str, Any]


class KeyValueApi:
    """Handlers of `/v1/keys`, `/v1/batch`, `/v1/head`. Connects when first needed; the SDK reconnects by itself."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._stack = AsyncExitStack()
        self._kv: KV | None = None
        self._connecting = asyncio.Lock()

    async def close(self) -> None:
        await self._stack.aclose()

    async def kv(self) -> KV:
        """The connected client. Raises KVStoreError, ApiError."""
        async with self._connecting:
            if self._kv is None:
                self._kv = await self._connect(self._stack)
            return self._kv

    async def get(self, request: web.Request) -> web.Response:
        key, certified = _path_key(request), _certified(request)
        answer = await (await self.kv()).get(key, certified=certified)
        if answer.value is None:
            status, body = error_body(ApiError(404, "not_found", "the key has no value"))
            return web.json_response(body | _receipt(answer), status=status)
        return web.json_response(_encoded(answer.value) | _receipt(answer))

    async def put(self, request: web.Request) -> web.Response:
        key, certified = _path_key(request), _certified(request)
        value = _decoded(await json_object(request), "value", "encoding")
        return web.json_response(_receipt(await (await self.kv()).put(key, value, certified=certified)))

    async def delete(self, request: web.Request) -> web.Response:
        key, certified = _path_key(request), _certified(request)
        return web.json_response(_receipt(await (await self.kv()).delete(key, certified=certified)))

    async def head(self, _request: web.Request) -> web.Response:
        """As the gateway's own client has it, which has checked and followed it."""
        head = (await self.kv()).head()
        if head is None:
            raise ApiError(404, "not_found", "no epoch is certified yet")
        names = {"instance": head.instance.hex(), "incarnation": head.incarnation.hex()}
        return web.json_response({"epoch": head.epoch, "head": str(head)} | names)

    async def batch(self, request: web.Request) -> web.Response:
        certified = _certified(request)
        operations = (await json_object(request)).get("operations")
        if not isinstance(operations, list) or len(operations) > BATCH_OPERATIONS_MAX:
            raise ApiError(400, "bad_request", f"operations: a list of at most {BATCH_OPERATIONS_MAX} is needed")
        kv = await self.kv()
        # All are checked before the first is sent: a request that is not understood changes nothing.
        calls = [_call(kv, operation, certified) for operation in operations]
        results = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
        return web.json_response({"results": [_result(result) for result in results]})


async def json_object(request: web.Request) -> JsonObject:
    """The request's body. Raises ApiError."""
    if request.content_type != "application/json":
        # Also keeps web pages of others from sending it: a browser asks before it sends this type.
        raise ApiError(415, "unsupported_media_type", "the body must be application/json")
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise ApiError(400, "bad_json", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "bad_json", "the body is not a JSON object")
    return body


def _call(kv: KV, operation: Any, certified: bool) -> Callable[[], Awaitable[Answer]]:
    if not isinstance(operation, dict):
        raise ApiError(400, "bad_request", "each operation is a JSON object")
    key = _decoded(operation, "key", "key_encoding")
    match operation.get("op"):
        case "get":
            return lambda: kv.get(key, certified=certified)
        case "delete":
            return lambda: kv.delete(key, certified=certified)
        case "put":
            value = _decoded(operation, "value", "encoding")
            return lambda: kv.put(key, value, certified=certified)
        case "insert":
            value = _decoded(operation, "value", "encoding")
            return lambda: kv.insert(key, value, certified=certified)
        case "compare_and_set":
            expected = _decoded_or_null(operation, "expected", "encoding")
            new = _decoded_or_null(operation, "value", "encoding")
            return lambda: kv.compare_and_set(key, expected, new, certified=certified)
        case "increment":
            delta = operation.get("delta", 1)
            if not isinstance(delta, int) or isinstance(delta, bool):
                raise ApiError(400, "bad_request", "delta: an integer is needed")
            return lambda: kv.increment(key, delta, certified=certified)
        case _:
            raise ApiError(400, "bad_request", "op: get, put, delete, insert, compare_and_set or increment is needed")


def _result(result: Answer | BaseException) -> JsonObject:
    match result:
        case KVStoreError():
            return error_body(result)[1]
        case BaseException():
            raise result
        case Value(value=None):
            return {"value": None} | _receipt(result)
        case Value(value=bytes(value)):
            return _encoded(value) | _receipt(result)
        case Attempt(applied=applied, value=found):
            shown = {} if applied or found is None else _encoded(found)
            return {"applied": applied} | shown | _receipt(result)
        case Number(value=number):
            return {"number": number} | _receipt(result)
        case _:
            return _receipt(result)


def _receipt(answer: Answer) -> JsonObject:
    # ts as text: a JSON number above 2^53 is not exact everywhere.
    receipt = {
        "epoch": answer.epoch,
        "ts": str(answer.ts),
        "incarnation": answer.receipt.incarnation.hex(),
    }
    return {"receipt": receipt, "certified": answer.is_certified}


def _path_key(request: web.Request) -> bytes:
    # From what was sent: the router leaves escapes that are no UTF-8, or none at all, in the key as text.
    escaped = request.raw_path.partition("/v1/keys/")[2].partition("?")[0]
    if _BAD_ESCAPE.search(escaped):
        raise ApiError(400, "bad_request", "the key has a % that is no escape: write %25")
    try:
        text = unquote(escaped, errors="strict")
    except UnicodeDecodeError:
        raise ApiError(400, "bad_request", "the key is not valid utf-8: send it with encoding=base64") from None
    return _bytes(text, request.query.get("encoding", "utf-8"), "the key")


def _certified(request: web.Request) -> bool:
    text = request.query.get("certified", "false")
    if text not in ("true", "false"):
        raise ApiError(400, "bad_request", "certified: true or false is needed")
    return text == "true"


def _decoded(body: JsonObject, name: str, encoding_name: str) -> bytes:
    text = body.get(name)
    if not isinstance(text, str):
        raise ApiError(400, "bad_request", f"{name}: a string is needed")
    return _bytes(text, body.get(encoding_name, "utf-8"), name)


def _decoded_or_null(body: JsonObject, name: str, encoding_name: str) -> bytes | None:
    return None if body.get(name) is None else _decoded(body, name, encoding_name)


def _bytes(text: str, encoding: Any, what: str) -> bytes:
    try:
        if encoding == "utf-8":
            return text.encode()
        if encoding == "base64":
            # Both alphabets: keys in URLs use the second one.
            return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise ApiError(400, "bad_request", f"{what} is not valid {encoding}") from None
    raise ApiError(400, "bad_request", "the encoding is utf-8 or base64")


def _encoded(value: bytes) -> JsonObject:
    try:
        return {"value": value.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"value": base64.b64encode(value).decode(), "encoding": "base64"}
