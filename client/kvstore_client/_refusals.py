"""What the host says on its own word when it will not serve, and what that means for the client.

A TransportError: the connection is of no use, another may be. A RefusedError or ProtocolError: trying again is useless.
An UnavailableError: requests of this connection were refused because they change something. A NoAnswersError: the
connection is of no use, and neither is another for now: who waits had better be told so.
None of it is proof of anything.
"""

from __future__ import annotations

from kvstore_client._errors import (
    ConnectionLostError,
    KeyRequiredError,
    KVStoreError,
    ProtocolError,
    RefusedError,
    TransportError,
    UnavailableError,
    UnknownKeyError,
)
from kvstore_client._frames import decode_error

TEXT_MAX = 2_000
"""Characters of the host's text that get into a message: enough to name sixteen keys."""

_HELLO_REFUSED, _NOT_NOW, _MONITOR_FAILED, _CHANGES_REFUSED, _NO_ANSWER_NOW = 4, 6, 8, 9, 10
_UNKNOWN_KEY, _KEY_REQUIRED, _TOO_MANY_SESSIONS = 3, 4, 5
UNKNOWN_SESSION = 1
"""Reason of a rejection."""
_REJECTIONS = {
    UNKNOWN_SESSION: "unknown session",
    2: "bad mac",
    3: "bad sequence",
    4: "bad generation",
    5: "wrong thread",
}


class NoAnswersError(ConnectionLostError):
    """The server can give no answers now: its write-ahead log takes nothing."""


def rejection_from_host(reason: int) -> TransportError:
    """For a rejected request. An honest host has none for an honest client, unless the session has ended."""
    name = _REJECTIONS.get(reason, f"reason {reason}")
    return ConnectionLostError(f"the server says that the monitor rejected a request: {name}")


def error_from_host(body: bytes) -> KVStoreError:
    """For an error frame. Raises ProtocolError if it is malformed."""
    code, text = decode_error(body)
    said = f"the server says: {text[:TEXT_MAX]!r} (error {code})"
    if code == _HELLO_REFUSED:
        return _refusal(said, text)
    if code == _NOT_NOW:
        return ConnectionLostError(said)
    if code == _NO_ANSWER_NOW:
        return NoAnswersError(said)
    if code == _CHANGES_REFUSED:
        return UnavailableError(said)
    if code == _MONITOR_FAILED:
        return RefusedError(f"{said}, but showed no violation that the monitor signed", code)
    return ProtocolError(said)


def _refusal(said: str, text: str) -> KVStoreError:
    """Of a hello: the text starts with the refusal's code (protocol section 4)."""
    digits = text[: len(text) - len(text.lstrip("0123456789"))][:3]
    refusal = int(digits) if digits else 0
    if refusal == _TOO_MANY_SESSIONS:
        return ConnectionLostError(said)
    if refusal == _UNKNOWN_KEY:
        return UnknownKeyError(said, refusal)
    if refusal == _KEY_REQUIRED:
        return KeyRequiredError(said, refusal)
    return RefusedError(said, refusal)
