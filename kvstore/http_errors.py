"""Errors of the HTTP interface: every one is a status and `{"error": {"code", "message"}}`, never a traceback."""

import re
from typing import Any, Final

from aiohttp import web
from kvstore_client import (
    CertificateTimeoutError,
    ForbiddenError,
    IntegrityError,
    KeyRequiredError,
    KVStoreError,
    NotANumberError,
    NumberOverflowError,
    OperationError,
    ProtocolError,
    TooLongError,
    UnknownKeyError,
    ViolationError,
)

# The first class that fits decides.
_STATUSES: Final[list[tuple[type[KVStoreError], int]]] = [
    (IntegrityError, 502),
    (ProtocolError, 502),
    (CertificateTimeoutError, 504),
    (KeyRequiredError, 403),
    (UnknownKeyError, 403),
    (ForbiddenError, 403),
    (TooLongError, 413),
    (NotANumberError, 409),
    (NumberOverflowError, 409),
    (OperationError, 400),
    (KVStoreError, 503),
]


class ApiError(Exception):
    """A request that cannot be answered as asked."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def error_body(error: Exception) -> tuple[int, dict[str, Any]]:
    """HTTP status and JSON body of an ApiError or a KVStoreError."""
    if isinstance(error, ApiError):
        return error.status, {"error": {"code": error.code, "message": str(error)}}
    assert isinstance(error, KVStoreError), "nothing else is caught"
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    content = {"code": _snake_case(type(error).__name__), "message": str(error)}
    if isinstance(error, ViolationError):
        content["violation"] = error.violation.name
    return status, {"error": content}


def error_response(error: Exception) -> web.Response:
    status, body = error_body(error)
    return web.json_response(body, status=status)


def _snake_case(class_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name.removesuffix("Error")).lower()
