"""What a worker answers from the store without any proof: former certificates and the listing of keys.

Certificates carry the monitor's signature, so it does not matter who serves them. The listing of keys is not verified:
a host can leave keys out (each listed key can be checked by a get).
"""

import asyncio
import contextlib
from itertools import islice
from typing import Final

from kvstore import limits
from kvstore._prover import decode_record, store_key_of
from kvstore.framing import pack_frame
from kvstore.messages import Server
from kvstore.storage import RECORD_PREFIX, StoreReader, certificate_key

_KEY_HASH_BYTES: Final = 32
_SHORT_KEY_BYTES: Final = 8
_RECORDS_END: Final = bytes((RECORD_PREFIX[0] + 1,))


class Archive:
    """Reads the worker's view of the store, and keeps the newest certificate, which the store does not have yet."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store
        self._newest: tuple[int, bytes] | None = None

    @property
    def newest_certificate(self) -> bytes:
        return b"" if self._newest is None else self._newest[1]

    def set_newest(self, epoch: int, certificate: bytes) -> None:
        """The certificate of the last epoch that ended; empty if there is none: at first, and after an override."""
        self._newest = (epoch, certificate)

    def certificate_frames(self, from_epoch: int, at_most: int) -> list[bytes]:
        """Frames of the certificates from an epoch on, in order; at most `at_most` and CERTIFICATES_AT_ONCE_MAX."""
        if self._newest is None:
            return []
        newest_epoch, newest = self._newest
        wanted = min(at_most, limits.CERTIFICATES_AT_ONCE_MAX)
        epochs = range(max(from_epoch, 1), newest_epoch + 1)[:wanted]
        stored = self._store.read([certificate_key(epoch) for epoch in epochs])
        found = [newest if epoch == newest_epoch else row for epoch, row in zip(epochs, stored, strict=True)]
        return [pack_frame(Server.CERTIFICATE, row) for row in found if row]

    def _position_after(self, after: bytes) -> bytes:
        """The first store key behind the record of a key hash: records that share its first bytes are in any order."""
        first = RECORD_PREFIX + after[:_SHORT_KEY_BYTES]
        for store_key, row in self._store.scan(first, first.ljust(1 + _KEY_HASH_BYTES, b"\xff") + b"\0"):
            with contextlib.suppress(ValueError):
                key, _ = decode_record(row)
                if store_key_of(key, whole=True)[1:] == after:
                    return store_key + b"\0"
        return first

    async def keys_frame(self, after: bytes, at_most: int) -> bytes:
        """The next keys by hash, as of the last checkpoint. Gives way to other clients between its steps."""
        first = self._position_after(after)
        keys: list[bytes] = []
        while len(keys) < at_most:
            scanned = 0
            for store_key, row in islice(self._store.scan(first, _RECORDS_END), limits.KEYS_SCANNED_AT_ONCE):
                scanned += 1
                first = store_key + b"\0"
                try:
                    key, value = decode_record(row)
                except ValueError:
                    continue  # a garbled row: no listing can vouch for it, and a get of its key will tell
                if value is not None:
                    keys.append(key)
                    if len(keys) == at_most:
                        break
            if scanned < limits.KEYS_SCANNED_AT_ONCE:
                break
            await asyncio.sleep(0)
        parts = [len(keys).to_bytes(4, "little")]
        for key in keys:
            parts += [len(key).to_bytes(2, "little"), key]
        return pack_frame(Server.KEYS, *parts)
