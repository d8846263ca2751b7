"""Which value or MAC a name in the bytes of a log stands for: one that was hashed or authenticated before."""

from __future__ import annotations

from .macs import Mac
from .values import NO_HASH, Unknown, Value


class Book:
    def __init__(self) -> None:
        self._hashes: dict[bytes, Value] = {}
        self._macs: dict[bytes, Mac] = {}
        self._made_up: set[bytes] = set()

    def hash(self, value: Value) -> Value:
        """The hash of a value: itself. From now on its name is known."""
        assert value.name not in self._made_up, "this name was read before it had a meaning"
        return self._hashes.setdefault(value.name, value)

    def mac(self, key: bytes, domain: str, *parts: bytes | Mac) -> Mac:
        """The MAC of these parts: they themselves. From now on its name is known."""
        mac = Mac(key, domain, parts)
        assert mac.name not in self._made_up, "this name was read before it had a meaning"
        return self._macs.setdefault(mac.name, mac)

    def hash_named(self, name: bytes) -> Value | Unknown:
        return self._hashes.get(name) or self._unknown(name)

    def mac_named(self, name: bytes) -> Mac | Unknown:
        return self._macs.get(name) or self._unknown(name)

    def _unknown(self, name: bytes) -> Unknown:
        if name != NO_HASH.name:
            self._made_up.add(name)
        return Unknown(name)
