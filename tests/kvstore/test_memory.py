"""Dividing memory: the parts never sum to more than the whole, and grow with it."""

import itertools
from pathlib import Path

import pytest

from kvstore.config import ConfigError, ServeConfig, parse_size
from kvstore.limits import MIB
from kvstore.memory import memory_bytes_min, plan_memory


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_the_parts_fit_into_the_whole(workers: int) -> None:
    for memory_bytes in (memory_bytes_min(workers), 2 * memory_bytes_min(workers), 16 << 30):
        plan = plan_memory(memory_bytes, workers)
        dirty = 4 * plan.dirty_bytes_max
        records = plan.hot_bytes_max + plan.warm_bytes_max + plan.slots * 256
        parts = records + dirty + plan.queued_bytes_max + plan.read_bytes_max
        assert workers * parts < memory_bytes
        assert min(plan.hot_bytes_max, plan.dirty_bytes_soon, plan.kept_value_bytes_max) > 0


def test_more_memory_is_never_less_of_anything() -> None:
    plans = [plan_memory(size * MIB, 2) for size in range(512, 8192, 512)]
    for less, more in itertools.pairwise(plans):
        assert more.slots >= less.slots
        assert more.hot_bytes_max > less.hot_bytes_max
        assert more.warm_bytes_max > less.warm_bytes_max
        assert more.dirty_bytes_max > less.dirty_bytes_max


def test_too_little_is_refused_with_what_would_do() -> None:
    least = memory_bytes_min(4)
    with pytest.raises(ConfigError, match=f"--memory must be at least {least // MIB}MiB"):
        ServeConfig(data=Path("data"), workers=4, memory_bytes=least - 1)
    ServeConfig(data=Path("data"), workers=4, memory_bytes=least)


def test_what_is_chosen_is_kept() -> None:
    config = ServeConfig(data=Path("data"), slots=100, hot_records_max=0)
    assert (config.memory.slots, config.memory.hot_records_max) == (100, 0)


def test_sizes() -> None:
    assert [parse_size(text) for text in ("1000", "4KiB", "512MiB", "2GiB")] == [1000, 4096, 512 * MIB, 2 << 30]
    for text in ("", "MiB", "2GB", "-1MiB", "1.5GiB", "2 GiB"):
        with pytest.raises(ConfigError, match="a size is"):
            parse_size(text)
