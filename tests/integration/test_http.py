"""The HTTP gateway of a real service: its operations, its errors, its stream, and that its description is true."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kvstore_client import Head, Relation
from service import Service
from yarl import URL

from kvstore._prover import encode_record, store_key_of
from kvstore.config import ServeConfig
from kvstore.storage import LmdbWriter

KEYS = "/v1/keys/"


def session_of(service: Service, token: str | None = None) -> aiohttp.ClientSession:
    if token is None:
        token = (service.data / "http.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return aiohttp.ClientSession(service.http_url, headers=headers, timeout=aiohttp.ClientTimeout(20))


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with Service(tmp_path, workers=2, http=True) as running:
        yield running


async def test_put_get_delete_certified_with_receipts(service: Service) -> None:
    async with session_of(service) as http:
        path = KEYS + "a%2Fb%25%20%C3%BC"
        async with http.put(path, params={"certified": "true"}, json={"value": "100 coins"}) as response:
            assert response.status == 200
            written = await response.json()
            assert written["certified"] is True
            assert set(written["receipt"]) == {"epoch", "ts", "incarnation"}
            assert int(written["receipt"]["ts"]) >> 32 == written["receipt"]["epoch"]
        async with http.get(path) as response:
            read = await response.json()
            assert (read["value"], read["encoding"]) == ("100 coins", "utf-8")
        async with service.connected() as kv:
            assert (await kv.get("a/b% ü".encode())).value == b"100 coins"
        async with http.delete(path) as response:
            assert response.status == 200
        async with http.get(path, params={"certified": "true"}) as response:
            assert response.status == 404
            body = await response.json()
            assert body["error"]["code"] == "not_found"
            assert body["certified"] is True


async def test_bytes_that_are_no_text_travel_in_base64(service: Service) -> None:
    key, value = b"\xff\xfe\x00", bytes(range(256))
    path = KEYS + base64.urlsafe_b64encode(key).decode()
    async with session_of(service) as http:
        body = {"value": base64.b64encode(value).decode(), "encoding": "base64"}
        async with http.put(path, params={"encoding": "base64"}, json=body) as response:
            assert response.status == 200, await response.text()
        async with http.get(path, params={"encoding": "base64"}) as response:
            read = await response.json()
            assert read["encoding"] == "base64"
            assert base64.b64decode(read["value"]) == value


@pytest.mark.parametrize("key", ["%zz", "100%", "%ff"])
async def test_a_key_with_bad_escapes_is_refused_rather_than_taken_for_another(service: Service, key: str) -> None:
    async with session_of(service) as http:
        url = URL(service.http_url + KEYS + key, encoded=True)
        async with http.put(url, json={"value": "x"}) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "bad_request"


async def test_a_token_that_is_no_text_is_a_wrong_token(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.http_url.rpartition(":")[2]))
    writer.write(b"GET /v1/keys/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    await writer.wait_closed()


async def test_a_batch_answers_each_operation_in_order(service: Service) -> None:
    operations: list[dict[str, Any]] = [
        {"op": "put", "key": "a", "value": "1"},
        {"op": "insert", "key": "a", "value": "2"},
        {"op": "compare_and_set", "key": "a", "expected": "1", "value": "x"},
        {"op": "get", "key": "a"},
        {"op": "get", "key": "absent"},
        {"op": "increment", "key": "n", "delta": 7},
        {"op": "increment", "key": "a"},
        {"op": "delete", "key": "a"},
    ]
    async with session_of(service) as http:
        async with http.post("/v1/batch", params={"certified": "true"}, json={"operations": operations}) as response:
            results = (await response.json())["results"]
        assert [result.get("applied") for result in results[1:3]] == [False, True]
        assert results[3]["value"] == "x"
        assert results[4]["value"] is None
        assert results[5]["number"] == 7
        assert results[6]["error"]["code"] == "not_a_number"
        assert all(result["certified"] for result in results if "error" not in result)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("PUT", KEYS + "k", b"not json", 400, "bad_json"),
        ("PUT", KEYS + "k", b"[]", 400, "bad_json"),
        ("PUT", KEYS + "k", b"[" * 100_000, 400, "bad_json"),
        ("PUT", KEYS + "k", b'{"value": 5}', 400, "bad_request"),
        ("PUT", KEYS + "k", b'{"value": "!", "encoding": "base64"}', 400, "bad_request"),
        ("PUT", KEYS + "k", b'{"value": "x", "encoding": "latin-1"}', 400, "bad_request"),
        ("PUT", KEYS + "k", b'{"value": "\\ud800"}', 400, "bad_request"),
        ("PUT", KEYS + "k", json.dumps({"value": "x" * (1 << 20) + "x"}).encode(), 413, "too_long"),
        ("PUT", KEYS + "k", b" " * (33 << 20), 413, "request_entity_too_large"),
        ("GET", KEYS + "k" * 5_000, None, 413, "too_long"),
        ("GET", KEYS + "k?certified=maybe", None, 400, "bad_request"),
        ("GET", "/v1/nothing", None, 404, "not_found"),
        ("POST", "/v1/status", b"{}", 405, "method_not_allowed"),
        ("POST", "/v1/batch", b'{"operations": 1}', 400, "bad_request"),
        ("POST", "/v1/batch", b'{"operations": [{"op": "drop", "key": "k"}]}', 400, "bad_request"),
        ("POST", "/v1/batch", b'{"operations": [{"op": "increment", "key": "k", "delta": 1.5}]}', 400, "bad_request"),
    ],
)
async def test_what_cannot_be_done_is_a_named_error(
    service: Service, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    headers = {"Content-Type": "application/json"}
    async with (
        session_of(service) as http,
        http.request(method, path, data=body and io.BytesIO(body), headers=headers) as response,
    ):
        assert response.status == status
        assert (await response.json())["error"]["code"] == code


async def test_only_json_is_read_and_only_with_the_token(service: Service) -> None:
    async with session_of(service) as http, http.put(KEYS + "k", data=b'{"value": "x"}') as response:
        assert response.status == 415
    for token in ("", "wrong"):
        async with session_of(service, token) as http:
            for path in (KEYS + "k", "/v1/certificates/latest", "/v1/certificates/events"):
                async with http.get(path) as response:
                    assert response.status == 401
                    assert (await response.json())["error"]["code"] == "unauthorized"
            async with http.get("/v1/status") as response:
                assert (await response.json())["state"] == "ok"


async def test_certificates_are_streamed(service: Service) -> None:
    async with session_of(service) as http, http.get("/v1/certificates/events") as stream:
        assert stream.content_type == "text/event-stream"
        epochs = []
        for number in range(3):
            async with http.put(KEYS + "k", params={"certified": "true"}, json={"value": str(number)}) as response:
                assert response.status == 200
            name = (await stream.content.readline()).decode()
            event = json.loads((await stream.content.readline()).decode().removeprefix("data: "))
            await stream.content.readline()
            assert name == "event: certificate\n"
            assert bytes.fromhex(event["certificate"])[36:40] == event["epoch"].to_bytes(4, "little")
            epochs.append(event["epoch"])
        assert epochs == [1, 2, 3]
        async with http.get("/v1/certificates/latest") as response:
            assert (await response.json())["epoch"] == 3


async def test_the_description_names_exactly_what_there_is(service: Service) -> None:
    async with session_of(service, "") as http, http.get("/v1/openapi.json") as response:
        description = await response.json()
    described = {(path, method) for path, methods in description["paths"].items() for method in methods}
    assert described == {
        ("/v1/keys/{key}", "get"),
        ("/v1/keys/{key}", "put"),
        ("/v1/keys/{key}", "delete"),
        ("/v1/batch", "post"),
        ("/v1/head", "get"),
        ("/v1/certificates/latest", "get"),
        ("/v1/certificates/events", "get"),
        ("/v1/status", "get"),
        ("/v1/openapi.json", "get"),
    }
    async with session_of(service) as http:
        for path, method in described:
            body = {"value": "x"} if method == "put" else {"operations": []} if method == "post" else None
            async with http.request(method, path.replace("{key}", "k"), json=body) as response:
                assert response.status in (200, 404), (path, method)
                if response.status == 404:
                    assert (await response.json())["error"]["message"] != "404: Not Found"
    names = json.dumps(description).split("#/components/schemas/")[1:]
    assert {name.split('"')[0] for name in names} <= description["components"]["schemas"].keys()


async def test_a_violation_is_named_to_callers_and_streamed(tmp_path: Path) -> None:
    async with Service(tmp_path) as service, service.connected() as kv:
        await kv.put(b"k", b"honest", certified=True)
    config = ServeConfig(data=service.data)
    store = LmdbWriter(config.store_path, config.map_bytes_start)
    store.write([(store_key_of(b"k"), encode_record(b"k", b"forged"))])
    store.close()
    async with Service(tmp_path, http=True) as service:
        async with session_of(service) as http, http.get("/v1/certificates/events") as stream:
            async with http.get(KEYS + "k", params={"certified": "true"}) as response:
                assert response.status == 502
                assert (await response.json())["error"]["violation"] == "hash_mismatch"
            async with asyncio.timeout(10):
                while (await stream.content.readline()) != b"event: violation\n":
                    pass
            event = json.loads((await stream.content.readline()).decode().removeprefix("data: "))
            assert event["name"] == "hash_mismatch"
            assert event["key_hash"] == store_key_of(b"k", whole=True)[1:].hex()
            async with http.get("/v1/status") as response:
                assert (await response.json())["violation"]["name"] == "hash_mismatch"
        code, _ = await service.ends(terminate=True)
        assert code == 3


async def test_an_open_service_asks_for_no_token(tmp_path: Path) -> None:
    async with (
        Service(tmp_path, "--open", http=True) as service,
        session_of(service, "") as http,
        http.put(KEYS + "k", json={"value": "x"}) as response,
    ):
        assert response.status == 200


async def test_head(service: Service) -> None:
    async with session_of(service) as http:
        async with http.put(KEYS + "a", params={"certified": "true"}, json={"value": "1"}) as response:
            assert response.status == 200
        async with http.get("/v1/head") as response:
            assert response.status == 200
            found = await response.json()
    head = Head.parse(found["head"], service.fingerprint)
    assert (head.epoch, head.instance.hex()) == (found["epoch"], found["instance"])
    async with service.connected() as kv:
        assert await kv.compare(head) in (Relation.SAME, Relation.OLDER)
