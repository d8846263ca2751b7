"""Strict reading of small messages: little-endian fields, no byte short, none left over."""

from __future__ import annotations

import struct

from kvstore_client._errors import ProtocolError

U16 = struct.Struct("<H")
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
I64 = struct.Struct("<q")


class Reader:
    """A cursor over `data`. Whatever does not fit raises ProtocolError, which names `what`."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._position = 0

    def take(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._data):
            raise ProtocolError(f"{self._what}: {len(self._data)} bytes are too few")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self, length: int | None = None) -> str:
        raw = self.rest() if length is None else self.take(length)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{self._what}: text that is not UTF-8") from error

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._position)

    def position(self) -> int:
        return self._position

    def end(self) -> None:
        if self._position != len(self._data):
            raise ProtocolError(f"{self._what}: {len(self._data) - self._position} bytes too many")
