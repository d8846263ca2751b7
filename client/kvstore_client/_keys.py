"""Client keys: Ed25519, in text files of one line, `zetakv-key-1 <hex of the 32-byte seed>`, for their owner only."""

from __future__ import annotations

import secrets
from os import PathLike
from pathlib import Path

from kvstore_client._crypto import public_key_of
from kvstore_client._errors import StateError
from kvstore_client._files import read_private, write_private

_FORMAT = "zetakv-key-1"


class ClientKey:
    """A client's private key. Its `repr` shows the public half only."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise ValueError("the seed of a client key has 32 bytes")
        self.seed = seed
        self.public_key = public_key_of(seed)

    @classmethod
    def generate(cls) -> ClientKey:
        return cls(secrets.token_bytes(32))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> ClientKey:
        """Raises StateError if there is no such file, it is no key file, or others than the owner may read it."""
        try:
            words = read_private(Path(path)).split()
        except FileNotFoundError:
            raise StateError(f"{path}: there is no such key file") from None
        try:
            if len(words) == 2 and words[0] == _FORMAT:
                return cls(bytes.fromhex(words[1]))
        except ValueError:
            pass
        raise StateError(f"{path}: not a key file ({_FORMAT})")

    def save(self, path: str | PathLike[str]) -> None:
        """Write a key file, mode 0600. Raises StateError, also if there is a file already."""
        if Path(path).exists():
            raise StateError(f"{path}: exists already; a key is never overwritten")
        write_private(Path(path), f"{_FORMAT} {self.seed.hex()}\n")

    def __repr__(self) -> str:
        return f"ClientKey(public_key={self.public_key.hex()})"
