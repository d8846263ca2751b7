"""Finding a server on this machine: the record that `zetakv serve` leaves in `$ZETAKV_HOME/servers/<port>.json`.

The record is as trustworthy as the user's home directory; it is read only if nobody else could have written it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from kvstore_client._errors import StateError
from kvstore_client._files import read_private

FINGERPRINT_DIGITS = 64
INSTANCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class LocalServer:
    """What a running server says of itself. `fingerprint`: 64 hex digits; None for an unverified server."""

    address: str
    fingerprint: str | None
    key_file: str | None


def parse_address(address: str) -> tuple[str, int]:
    """`host:port` or `[host]:port`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not an address: expected host:port, as in 127.0.0.1:7717")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def parse_fingerprint(fingerprint: str) -> bytes:
    """The monitor's public key. Raises ValueError."""
    try:
        identity = bytes.fromhex(fingerprint)
    except ValueError:
        identity = b""
    if len(identity) != 32 or len(fingerprint) != FINGERPRINT_DIGITS:
        raise ValueError(f"a monitor's fingerprint has {FINGERPRINT_DIGITS} hex digits; `zetakv serve` prints it")
    return identity


def parse_instance(text: str) -> bytes:
    """An instance. Raises ValueError."""
    try:
        instance = bytes.fromhex(text)
    except ValueError:
        instance = b""
    if len(instance) != INSTANCE_BYTES:
        raise ValueError(f"an instance has {2 * INSTANCE_BYTES} hex digits, as the error of the override names it")
    return instance


def home() -> Path:
    """`$ZETAKV_HOME`, or `~/.zetakv`."""
    return Path(os.environ.get("ZETAKV_HOME") or Path.home() / ".zetakv")


def record_path(port: int) -> Path:
    return home() / "servers" / f"{port}.json"


def find_local(host: str, port: int) -> LocalServer | None:
    """The record of the local server at this address; None if there is none. Raises StateError if it is damaged."""
    if not is_loopback(host):
        return None
    path = record_path(port)
    try:
        record = json.loads(read_private(path))
        server = LocalServer(record["address"], record["fingerprint"], record["key_file"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path}: not the record of a server; start the server again to write it anew") from error
    for field in (server.address, server.fingerprint or "", server.key_file or ""):
        if not isinstance(field, str):
            raise StateError(f"{path}: not the record of a server; start the server again to write it anew")
    return server
