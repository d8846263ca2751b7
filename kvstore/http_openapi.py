"""The description of the HTTP interface that `/v1/openapi.json` serves. A test compares its paths with the routes."""

from typing import Any

from kvstore import __version__
from kvstore.http_api import BATCH_OPERATIONS_MAX

_TEXT = {"type": "string"}
_ENCODING = {"type": "string", "enum": ["utf-8", "base64"], "default": "utf-8"}
_FLAG = {"type": "boolean"}
_NUMBER = {"type": "integer"}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {kind: {"schema": schema}}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "200": {"description": description, "content": _content(schema)},
        "default": {"description": "An error.", "content": _content(_reference("Error"))},
    }


_SCHEMAS: dict[str, Any] = {
    "Receipt": _object(
        ["epoch", "ts", "incarnation"],
        epoch=_NUMBER | {"description": "The epoch whose certificate certifies this answer."},
        ts=_TEXT | {"description": "The verifier's clock, epoch << 32 | counter, in decimal."},
        incarnation=_TEXT | {"description": "Of the monitor, hex."},
    ),
    "Answer": _object(["receipt", "certified"], receipt=_reference("Receipt"), certified=_FLAG),
    "Value": _object(
        ["value", "encoding", "receipt", "certified"],
        value=_TEXT,
        encoding=_ENCODING,
        receipt=_reference("Receipt"),
        certified=_FLAG,
    ),
    "NewValue": _object(["value"], value=_TEXT, encoding=_ENCODING),
    "Operation": _object(
        ["op", "key"],
        op={"type": "string", "enum": ["get", "put", "delete", "insert", "compare_and_set", "increment"]},
        key=_TEXT,
        key_encoding=_ENCODING,
        value=_TEXT | {"nullable": True},
        expected=_TEXT | {"nullable": True},
        encoding=_ENCODING | {"description": "Of value and expected."},
        delta=_NUMBER | {"default": 1},
    ),
    "Batch": _object(
        ["operations"],
        operations={"type": "array", "items": _reference("Operation"), "maxItems": BATCH_OPERATIONS_MAX},
    ),
    "Result": _object(
        [],
        value=_TEXT | {"nullable": True},
        encoding=_ENCODING,
        applied=_FLAG,
        number=_NUMBER,
        receipt=_reference("Receipt"),
        certified=_FLAG,
        error={"type": "object"},
    ),
    "Results": _object(["results"], results={"type": "array", "items": _reference("Result")}),
    "Certificate": _object(["epoch", "certificate"], epoch=_NUMBER, certificate=_TEXT | {"description": "Hex."}),
    "Head": _object(
        ["epoch", "head", "instance", "incarnation"],
        epoch=_NUMBER,
        head=_TEXT | {"description": "The short form that `zetakv head --compare` and the SDK take."},
        instance=_TEXT,
        incarnation=_TEXT,
    ),
    "Error": _object(["error"], error=_object(["code", "message"], code=_TEXT, message=_TEXT, violation=_TEXT)),
}

_CERTIFIED = {
    "name": "certified",
    "in": "query",
    "description": "Answer only when the monitor has certified the epoch.",
    "schema": _FLAG | {"default": False},
}
_KEY = [
    {"name": "key", "in": "path", "required": True, "description": "Percent-encoded.", "schema": _TEXT},
    {"name": "encoding", "in": "query", "description": "Of the key.", "schema": _ENCODING},
    _CERTIFIED,
]


def openapi(*, token_needed: bool) -> dict[str, Any]:
    """The OpenAPI 3.0 document of this gateway."""
    stream = _answer("Events `certificate` and `violation`.", _TEXT)
    stream["200"]["content"] = _content(_TEXT, "text/event-stream")
    body = {"required": True, "content": _content(_reference("NewValue"))}
    batch = {"required": True, "content": _content(_reference("Batch"))}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "ZetaKV gateway",
            "version": __version__,
            "description": "The gateway verifies on behalf of its callers, who thus trust it.",
        },
        "security": [{"token": []}] if token_needed else [],
        "paths": {
            "/v1/keys/{key}": {
                "get": {
                    "summary": "The value of a key; 404 if it has none.",
                    "parameters": _KEY,
                    "responses": _answer("The value.", _reference("Value")),
                },
                "put": {
                    "summary": "Set the value of a key.",
                    "parameters": _KEY,
                    "requestBody": body,
                    "responses": _answer("Done.", _reference("Answer")),
                },
                "delete": {
                    "summary": "Take the value of a key away.",
                    "parameters": _KEY,
                    "responses": _answer("Done.", _reference("Answer")),
                },
            },
            "/v1/batch": {
                "post": {
                    "summary": "Many operations, each atomic by itself.",
                    "parameters": [_CERTIFIED],
                    "requestBody": batch,
                    "responses": _answer("One result per operation, in order.", _reference("Results")),
                }
            },
            "/v1/head": {
                "get": {
                    "summary": "The end of the chain of certificates, for comparing with other clients.",
                    "responses": _answer("It.", _reference("Head")),
                }
            },
            "/v1/certificates/latest": {
                "get": {
                    "summary": "The newest epoch certificate.",
                    "responses": _answer("It.", _reference("Certificate")),
                }
            },
            "/v1/certificates/events": {
                "get": {"summary": "Certificates and violations, as server-sent events.", "responses": stream}
            },
            "/v1/status": {
                "get": {
                    "summary": "The service's account of itself. Not verified.",
                    "security": [],
                    "responses": _answer("Status.", {"type": "object"}),
                }
            },
            "/v1/openapi.json": {
                "get": {"summary": "This.", "security": [], "responses": _answer("This.", {"type": "object"})}
            },
        },
        "components": {"schemas": _SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }
