"""Medians of repeated runs, and ratios of runs in pairs."""

import statistics
from collections.abc import Iterable
from typing import TypedDict


class Spread(TypedDict):
    """Several measurements of one thing. The error bars of plots go from `min` to `max`."""

    median: float
    min: float
    max: float
    samples: list[float]


def spread(samples: Iterable[float]) -> Spread:
    """Raises statistics.StatisticsError if there are none."""
    samples = list(samples)
    return Spread(median=statistics.median(samples), min=min(samples), max=max(samples), samples=samples)


def ratios(numerators: Iterable[float], denominators: Iterable[float]) -> Spread:
    """Pair by pair, so that a drift of the machine's speed cancels: each pair was measured one after the other."""
    return spread(above / below for above, below in zip(numerators, denominators, strict=True))


def show(figures: Spread, pattern: str = "{:,.0f}") -> str:
    """`median (min-max)`, for tables."""
    median, low, high = (pattern.format(figures[name]) for name in ("median", "min", "max"))
    return f"{median} ({low}-{high})" if len(figures["samples"]) > 1 else median
