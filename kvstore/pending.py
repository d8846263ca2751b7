"""The checkpoints that are durable and not yet in the store's rows.

A checkpoint touches most pages of a store, and LMDB copies every page that it changes: written in one transaction, it
would need the space of the whole store again. So its rows are first appended, packed, to a *pending table*, which makes
it durable at the price of its own size, and then set in small transactions, each of which uses the pages that the ones
before have freed.

There are two tables. One is filled; the other is *applied*, and emptied with its last rows. Then they change places. So
all checkpoints that become durable while older ones are applied wait in one table, and are applied together. Invariant:
the rows, overlaid by those of both tables in the order of their epochs, are the newest durable checkpoint. Applying the
same rows again, after a crash, changes nothing.
"""

from collections.abc import Iterable
from typing import Final

from kvstore import failpoints
from kvstore.storage import Row, StoreWriter, unpack_rows

ROWS_AT_ONCE_MIN: Final = 1_000
"""Rows of one transaction even in a small store: below that its two syncs cost more than its pages."""
SLACK_DIVISOR: Final = 64
"""A transaction changes at most this part of the store's pages. Those that it frees can be used again by the second
transaction after it, so that the file has about three such parts in reserve."""
PENDING_DIVISOR: Final = 16
"""Further checkpoints wait while those that are pending have more than this part of the store's bytes: a load that the
disk cannot keep up with would else fill it with them."""
PENDING_BYTES_MIN: Final = 8 << 20
"""So much may be pending even in a small store."""
_PAGE_BYTES: Final = 4_096


class Pending:
    """All pending checkpoints of a store. What raises StorageError may be called again."""

    def __init__(self, store: StoreWriter) -> None:
        self._store = store
        self._newest = [store.pending_epoch(table) for table in (0, 1)]
        """Of each table; 0 if it is empty."""
        self._filled = int(self._newest[1] > self._newest[0])
        self._applied: int | None = None
        self._rows: list[Row] = []
        """Those of the table that is applied, sorted, that are not set yet."""

    @property
    def is_empty(self) -> bool:
        return not any(self._newest)

    def has_room(self, count: int) -> bool:
        """Whether a checkpoint of so many bytes need not wait for older ones to be applied."""
        room = max(PENDING_BYTES_MIN, self._store.pages * _PAGE_BYTES // PENDING_DIVISOR)
        return self.is_empty or sum(map(self._store.pending_bytes, (0, 1))) + count <= room

    def append(self, epoch: int, packed: bytes, rows: Iterable[Row]) -> None:
        """Make a checkpoint durable: its packed rows are pending, the others are set."""
        failpoints.hit("pending.before_append")
        self._store.append(self._filled, epoch, packed, rows)
        failpoints.hit("pending.after_append")
        self._newest[self._filled] = epoch

    def apply_some(self) -> int | None:
        """One transaction. Returns an epoch if the checkpoints up to it are thereby applied. Must not be empty."""
        if self._applied is None:
            # The other table has rows only at the start, if a crash left some in both: they are older.
            self._applied = self._filled ^ 1 if self._newest[self._filled ^ 1] else self._filled
            self._filled = self._applied ^ 1
            self._rows = sorted(dict(unpack_rows(self._store.pending_rows(self._applied))).items())
        count = self._rows_at_once()
        is_last = count == len(self._rows)
        failpoints.hit("pending.before_last_apply" if is_last else "pending.before_apply")
        self._store.write(self._rows[:count], emptied=self._applied if is_last else None)
        failpoints.hit("pending.after_apply")
        del self._rows[:count]
        if not is_last:
            return None
        epoch = self._newest[self._applied]
        self._newest[self._applied] = 0
        self._applied = None
        return epoch

    def _rows_at_once(self) -> int:
        pages_left = max(ROWS_AT_ONCE_MIN, self._store.pages // SLACK_DIVISOR)
        for count, (_, row) in enumerate(self._rows):
            pages_left -= 1 + (0 if row is None else len(row) // _PAGE_BYTES)
            if pages_left < 0:
                return max(count, 1)
        return len(self._rows)
