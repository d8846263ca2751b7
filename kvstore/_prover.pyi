"""The Rust engines of a worker: sans-IO, batch in, batch out. Every method releases the GIL while it works.

A worker drives an engine in rounds: while `busy`, answer `reads()` through `supply()` until it asks for nothing,
send what `log()` gives to the monitor (b"": nothing to send), and pass the monitor's outputs for each log, in order,
to `absorb()`, which returns the frames that are now due to clients. `Prover` proves; `PlainEngine` (unverified
baseline) only executes: its `log()` is always b"", and `absorb(b"")` gives its frames.
"""

from collections.abc import Sequence
from typing import Self, final

__all__ = [
    "RANGE_ROWS_MAX",
    "Audit",
    "FrameError",
    "PlainEngine",
    "Prover",
    "ProverError",
    "decode_record",
    "encode_record",
    "rows_below",
    "store_key_of",
]

RANGE_ROWS_MAX: int
"""How many rows of a range are needed at the most."""

class FrameError(ValueError):
    """A client's frame is malformed or does not match its commitments. `args == (code, text)`, protocol section 6."""

class ProverError(RuntimeError):
    """The store lacks or garbles a row that a proof needs, or the monitor answered out of order: the worker must stop.

    `args == (text, store key or None)`.
    """

@final
class Audit:
    """The offline walk over a store, from the root down; call begin, records* and end for each of 64 partitions."""

    def __new__(cls, *, threads: int, root: bytes | None) -> Self:
        """`threads`: of the meta row. `root`: its encoded value, as the monitor tells it; None if it does not.

        Raises ValueError.
        """

    def begin(self, nodes: Sequence[tuple[bytes, bytes]], markers: Sequence[bytes]) -> None:
        """All rows of nodes (`n`), and the store keys of all hot markers (`h`), of the next partition."""

    def records(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Some rows of records (`r`) of this partition, with their store keys."""

    def end(self) -> bytes:
        """Compare them. Returns what of them is in Blum, as `zetakv-monitor-operator check` reads it."""

    def findings(self) -> list[tuple[str, bytes, list[bytes], int]]:
        """(kind, store key, application keys, records below), the first 10,000.

        Kinds: changed, missing, garbled, extra, subtree_changed. The keys of a node's finding are those of the first
        records below it that may be wrong.
        """

    def totals(self) -> dict[str, int]:
        """records, nodes, in_blum, unproved (records vouched for by a wrong node only), findings (all of them)."""

@final
class Prover:
    def __new__(
        cls,
        *,
        thread: int,
        threads: int,
        previous_threads: int,
        epoch: int,
        fresh: bool,
        slots: int,
        hot_records_max: int,
        hot_bytes_max: int,
        kept_value_bytes_max: int,
        warm_bytes_max: int,
        read_bytes_max: int,
        key_bytes_max: int,
        value_bytes_max: int,
        response_bytes_max: int,
        log_incarnation: bytes | None = None,
    ) -> Self:
        """`epoch`: the first open epoch. `fresh`: there is no sealed state; thread 0 then writes the spine first.

        `previous_threads`: the number of threads at the last checkpoint (owner of what is in Blum); = threads if fresh.
        `hot_records_max`, `hot_bytes_max`: so much stays in Blum over a cut. `kept_value_bytes_max`: longer values of
        records that did not change are read again. `warm_bytes_max`: so many bytes of records stay in memory although
        they could be read again. `read_bytes_max`: a batch ends when it has read so much. `log_incarnation`: with a
        write-ahead log, the 16 bytes of the incarnation that starts. Then the prover begins with the replay.
        """

    def hot_range(self) -> tuple[bytes, bytes]:
        """First and past-the-last store key of this thread's hot markers: scan them once at start, for `load_hot`."""

    def load_hot(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """The hot markers, all at once. `reads()` then asks for the rows of the records among them first."""

    def submit(self, origin: int, body: bytes) -> None:
        """Queue the body of a client's request frame. `origin` comes back with its answer. Raises FrameError."""

    def submit_resume(self, origin: int, body: bytes) -> None: ...
    def replay(self, record: bytes) -> None:
        """Queue a record of the write-ahead log: all since the sealed state, in order, before any request.

        Raises FrameError. Nobody is answered from what is replayed: `absorb()` gives no frames for it.
        """

    def end_replay(self) -> None:
        """All records are queued; required if there are none, too."""

    @property
    def replaying(self) -> bool:
        """Until the monitor has ended the replay; its mark is then the first thing in `take_record()`."""

    def take_record(self) -> bytes:
        """After `absorb()`: the record of what that log admitted or refused, once; b"": none.

        It must be appended to the write-ahead log, and be durable, before the frames of that `absorb()` and of all
        later ones go out.
        """

    def reads(self) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
        """Store keys of rows, and ranges (first, end) whose first rows `log()` needs; ([], []): it can go on."""

    def supply(self, rows: Sequence[bytes | None], ranges: Sequence[Sequence[tuple[bytes, bytes]]]) -> None:
        """What the last `reads()` asked for, in its order. Rows: None: no such row. Ranges: store keys and rows.

        The ranges may be fewer than were asked for, but not none: the next `reads()` asks again.
        """

    def log(self) -> bytes:
        """The next log; others may be in flight. b"": nothing can be sent now."""

    def absorb(self, outputs: bytes) -> list[tuple[int, bytes]]:
        """Outputs of the monitor for the oldest log in flight -> (origin, whole client frame with length and type)*."""

    def start_cut(self, *, all_to_merkle: bool) -> None:
        """Close the epoch: the next logs finish what is admitted, clear the cache, and begin the next epoch.

        Requests go on there, while what is in Blum is carried over. `all_to_merkle`: for a clean stop. Begins when the
        last checkpoint has been taken; until then requests go on. Raises ProverError if a cut is in progress already.
        """

    def handed_over(self) -> int | None:
        """The epoch whose cut has been acknowledged by the monitor since the last call, once."""

    def take_checkpoint(self) -> bytes:
        """After a cut: the changed rows, packed: (key length u32, key, value length u32 or 2^32-1 for delete, value)*.

        They stay readable from memory until `release_checkpoint(epoch)`. Several checkpoints may wait for that.
        """

    def release_checkpoint(self, epoch: int) -> None:
        """The checkpoints up to that of `epoch` are applied: whoever reads the store from now on sees their rows."""

    @property
    def epoch(self) -> int:
        """The epoch in which requests run: after `absorb()`, that of its record."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to do now, other than to wait for outputs: requests, a cut, or the start."""

    @property
    def full(self) -> bool:
        """Whether the next log is worth its message while another one is in flight."""

    @property
    def active(self) -> bool:
        """Whether an operation has run, or a resume was answered, in the open epoch: they wait for its certificate."""

    @property
    def cut_wanted(self) -> bool:
        """Whether the epoch should be closed at once: the thread's clock is halfway to its end. Ask for a cut."""

    @property
    def cut_overdue(self) -> bool:
        """Whether nothing more should be submitted before the epoch is closed: the clock could come to its end."""

    @property
    def changed_bytes(self) -> int:
        """Bytes of rows that changed since the last cut."""

    @property
    def dirty_bytes(self) -> int:
        """Bytes of rows held in memory: those that changed, and those whose checkpoints are not applied."""

    def suspects(self) -> list[tuple[bytes, bytes | None]]:
        """(store key, application key of a record) of rows whose checksum did not fit when they were read.

        The first 16 since the start. Nothing else comes of it: what a row is worth, the monitor says.
        """

    def stats(self) -> dict[str, int]:
        """Counters for `zetakv status`: cached, hot, dirty_records, operations, log_bytes, merkle_adds, blum_adds."""

@final
class PlainEngine:
    def __new__(
        cls, *, thread: int, threads: int, epoch: int, key_bytes_max: int, value_bytes_max: int, response_bytes_max: int
    ) -> Self: ...
    def submit(self, origin: int, body: bytes) -> None: ...
    def submit_resume(self, origin: int, body: bytes) -> None:
        """Raises FrameError: there is no session to resume."""

    def reads(self) -> tuple[list[bytes], list[tuple[bytes, bytes]]]: ...
    def supply(self, rows: Sequence[bytes | None], ranges: Sequence[Sequence[tuple[bytes, bytes]]]) -> None: ...
    def log(self) -> bytes: ...
    def absorb(self, outputs: bytes) -> list[tuple[int, bytes]]: ...
    def start_cut(self, *, all_to_merkle: bool) -> None: ...
    def handed_over(self) -> int | None: ...
    def take_checkpoint(self) -> bytes: ...
    def release_checkpoint(self, epoch: int) -> None: ...
    @property
    def busy(self) -> bool: ...
    @property
    def full(self) -> bool: ...
    @property
    def active(self) -> bool: ...
    @property
    def cut_wanted(self) -> bool: ...
    @property
    def cut_overdue(self) -> bool: ...
    @property
    def changed_bytes(self) -> int: ...
    @property
    def dirty_bytes(self) -> int: ...
    def stats(self) -> dict[str, int]: ...

def store_key_of(key: bytes, *, whole: bool = False) -> bytes:
    """The store key of the record of an application key (for tools and tests).

    `whole`: as in an unverified store, or where an older record has the short one.
    """

def decode_record(row: bytes) -> tuple[bytes, bytes | None]:
    """(application key, value or None for null) of a record's row. Raises ValueError."""

def encode_record(key: bytes, value: bytes | None) -> bytes:
    """The row of a record: for tools that edit a store on purpose (`zetakv demo tamper`, tests)."""

def rows_below(bits: bytes, depth: int) -> tuple[bytes | None, tuple[bytes, bytes]]:
    """Where the rows of a base key are: the store key of its node's row (None: it is a record's), and the first and the
    past-the-last store key of the records at or below it, and of others that share their first 8 bytes.

    `bits`: 32 bytes. Raises ValueError.
    """
