"""Families of scripts: an honest one, and lies that are told in it. A seed makes a whole family again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from .book import Book
from .host import LEAF_DEPTH
from .mutate import Mutator
from .steps import Step
from .work import honest_script

LIES_PER_FAMILY = 14


@dataclass(frozen=True)
class Case:
    seed: int
    name: str
    is_honest: bool
    script: list[Step]
    first: int
    """From this step on the whole state is compared; before, it is that of another script of the family."""
    leaf_depth: int
    book: Book


def family(seed: int, lies: int = LIES_PER_FAMILY) -> Iterator[Case]:
    script, book = honest_script(seed)
    yield Case(seed, f"seed {seed}, honest", True, script, 0, LEAF_DEPTH, book)
    mutator = Mutator(Random(seed), script, book)
    for number in range(lies):
        mutated, first = mutator.mutated()
        yield Case(seed, f"seed {seed}, lie {number}", False, mutated, first, LEAF_DEPTH, book)
