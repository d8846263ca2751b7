"""How a service divides the memory that it may use: `--memory`, as limits of its processes.

What is divided is anonymous memory. Pages of the store's file are the system's cache and not counted: the system takes
them back when it needs room. The parts are bounded one by one, so their sum is, however many records there are.
"""

from dataclasses import dataclass
from typing import Final

from kvstore.limits import MIB

MEMORY_BYTES_DEFAULT: Final = 2048 * MIB

_INTERPRETER_BYTES: Final = 48 * MIB
"""A Python process with its libraries, or the monitor with its connections; measured at 25 to 40 MiB."""
_PROCESSES_BESIDE_WORKERS: Final = 4  # supervisor, checkpointer, gateway, monitor
_WORKER_BYTES_MIN: Final = 64 * MIB
"""What a worker needs beside its interpreter: two of the largest frames in each direction."""

_SLOT_BYTES: Final = 256
"""Of the monitor's verified cache, and the worker's mirror of it."""
_SLOTS_MIN: Final = 1_024
_SLOTS_DEFAULT: Final = 32_768
"""As in Zeta; more do not make a service faster, as long as the upper levels of the tree fit."""
_KEPT_VALUE_BYTES_MAX: Final = 1_024
"""Most values are shorter; of longer ones, a few would take the room of many records."""
_DIRTY_BYTES_MAX: Final = 1 << 30
"""A checkpoint goes in one message, whose length is a u32; and more would take too long to write."""
_HOT_RECORDS_DEFAULT: Final = 1 << 20
"""More take too long to carry over, and so make epochs too long."""


@dataclass(frozen=True)
class MemoryPlan:
    """Limits of each worker. Bytes, but for `slots` and `hot_records_max`."""

    slots: int
    hot_records_max: int
    hot_bytes_max: int
    """Records that stay hot, with their values; counted by the prover."""
    kept_value_bytes_max: int
    """Longer values of records that did not change are read again, not kept."""
    warm_bytes_max: int
    """Records that are kept although they could be read again."""
    dirty_bytes_soon: int
    """Changed rows that ask for a cut before its time."""
    dirty_bytes_max: int
    """Changed rows, with those on their way to the store, at which no more requests are read."""
    queued_bytes_max: int
    """Unanswered bytes of all connections at which those that send more are no longer read."""
    read_bytes_max: int
    """Rows that one batch has read, at which it ends."""


def memory_bytes_min(workers: int) -> int:
    """With less, a service could not do its work."""
    return (_PROCESSES_BESIDE_WORKERS + workers) * _INTERPRETER_BYTES + workers * _WORKER_BYTES_MIN


def plan_memory(memory_bytes: int, workers: int) -> MemoryPlan:
    """Divide the memory; it is at least `memory_bytes_min`."""
    interpreters = (_PROCESSES_BESIDE_WORKERS + workers) * _INTERPRETER_BYTES
    share = (memory_bytes - interpreters) // workers
    record_bytes = share * 35 // 100
    hot_bytes = record_bytes * 6 // 10
    # A changed row is in the worker, packed for the checkpointer, and there again, packed and as a list to be sorted.
    dirty_bytes_max = min(_DIRTY_BYTES_MAX, share * 4 // 10 // 4)
    return MemoryPlan(
        slots=max(_SLOTS_MIN, min(_SLOTS_DEFAULT, share // 20 // _SLOT_BYTES)),
        hot_records_max=_HOT_RECORDS_DEFAULT,
        hot_bytes_max=hot_bytes,
        kept_value_bytes_max=_KEPT_VALUE_BYTES_MAX,
        warm_bytes_max=record_bytes - hot_bytes,
        dirty_bytes_soon=dirty_bytes_max // 4,
        dirty_bytes_max=dirty_bytes_max,
        queued_bytes_max=share // 10,
        read_bytes_max=share // 10,
    )
