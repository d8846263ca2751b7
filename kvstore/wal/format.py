"""The bytes of a log file: a header, then groups of records. Sans-IO.

A *group* is what one sync made durable. The next group is written only after that sync, so of an honest disk only the
last group of a file can be bad (torn by a crash); a bad group with a good one after it is damage, and never cut off.
Checksums find torn writes and failing disks. They prove nothing: the monitor checks what is replayed by its own tags.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

SALT_BYTES: Final = 16

_MAGIC: Final = b"ZKW4"
# magic, epoch, thread, threads, serial, bytes of the file before that count, salt
_HEADER: Final = struct.Struct("<4sIHHIQ16s")
_CHECKSUM: Final = struct.Struct("<I")
_MARK_BYTES: Final = 4
# mark, bytes of the records, checksum
_GROUP: Final = struct.Struct("<4sII")
_LENGTH: Final = struct.Struct("<I")

HEADER_BYTES: Final = _HEADER.size + _CHECKSUM.size

Read = Callable[[int, int], bytes]


class DamagedLogError(Exception):
    """A log that no crash can have left like this. The text says which file, where, and the way out."""


class TornHeaderError(Exception):
    """The crash came before the file was durable: nothing in it counts."""


@dataclass(frozen=True)
class Header:
    """What a log file says of itself."""

    epoch: int
    """The open epoch when it was begun."""
    thread: int
    threads: int
    """Number of verifier threads when it was begun."""
    serial: int
    """Orders the files of a thread."""
    former_bytes: int
    """0: it begins a segment. Else it goes on with that of the serial before, of which so many bytes count."""
    salt: bytes
    """Random: part of every checksum, and its first bytes mark every group. So no client can write a value that looks
    like a group, nor one that costs time to tell from groups."""

    def encode(self) -> bytes:
        numbers = (self.epoch, self.thread, self.threads, self.serial, self.former_bytes)
        fields = _HEADER.pack(_MAGIC, *numbers, self.salt)
        return fields + _CHECKSUM.pack(zlib.crc32(fields))

    @classmethod
    def decode(cls, data: bytes) -> "Header":
        """Raises TornHeaderError, and DamagedLogError for what is whole, but no header."""
        fields = data[: _HEADER.size]
        if len(data) < HEADER_BYTES or _CHECKSUM.unpack_from(data, _HEADER.size) != (zlib.crc32(fields),):
            raise TornHeaderError
        magic, *values = _HEADER.unpack(fields)
        if magic != _MAGIC:
            raise DamagedLogError("another version of ZetaKV wrote it: start that one, and stop it")
        return cls(*values)


def encode_group(salt: bytes, offset: int, records: Sequence[bytes]) -> bytes:
    """One group, to be written at `offset` of the file."""
    body = b"".join(part for record in records for part in (_LENGTH.pack(len(record)), record))
    return _GROUP.pack(salt[:_MARK_BYTES], len(body), _group_checksum(salt, offset, body)) + body


class LogReader:
    """Reads the groups of one file. `good_bytes`: where the good part ends, once `records` is exhausted."""

    def __init__(self, read: Read, size: int, salt: bytes, counted_bytes: int | None = None) -> None:
        """`read(offset, length)` reads the file, of `size` bytes.

        `counted_bytes`: what counts of it, if the file after it says so: that was durable, and none of it may be bad.
        """
        self._read = read
        self._end = size if counted_bytes is None else min(size, counted_bytes)
        self._salt = salt
        self._mark = salt[:_MARK_BYTES]
        self._durable_bytes = counted_bytes or 0
        self.good_bytes = HEADER_BYTES

    def records(self) -> Iterator[bytes]:
        """Every record, in order. Raises DamagedLogError at a bad group that is no torn tail."""
        while (body := self._group(self.good_bytes)) is not None:
            at = 0
            while at < len(body):
                start = at + _LENGTH.size
                at = start + int.from_bytes(body[at:start], "little")
                if max(start, at) > len(body):  # not by a crash: the checksum is right
                    raise DamagedLogError(f"the records at offset {self.good_bytes} are not what a log holds")
                yield body[start:at]
            self.good_bytes += _GROUP.size + len(body)
        if self.good_bytes < self._durable_bytes:
            raise DamagedLogError(f"the records at offset {self.good_bytes} are damaged, though they were durable")
        self._check_torn()

    def _group(self, at: int) -> bytes | None:
        """The body of the group at `at`; None if there is no good one."""
        if self._end - at < _GROUP.size:
            return None
        mark, length, checksum = _GROUP.unpack(self._read(at, _GROUP.size))
        at_body = at + _GROUP.size
        if mark != self._mark or length > self._end - at_body:
            return None
        body = self._read(at_body, length)
        return body if _group_checksum(self._salt, at, body) == checksum else None

    def _check_torn(self) -> None:
        """Behind the last good group there may be one torn group, and no good one."""
        first = self.good_bytes + 1
        rest = self._read(first, max(self._end - first, 0))
        at = rest.find(self._mark)
        while at >= 0:
            if self._group(first + at) is not None:
                raise DamagedLogError(
                    f"the records at offset {self.good_bytes} are damaged; good ones follow at {first + at}"
                )
            at = rest.find(self._mark, at + 1)


def _group_checksum(salt: bytes, offset: int, body: bytes) -> int:
    """Of the salt and the offset, too: a group is good in its place only."""
    return zlib.crc32(body, zlib.crc32(salt + offset.to_bytes(8, "little")))
