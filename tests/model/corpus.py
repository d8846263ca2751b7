"""Families of scripts: an honest one, and lies that are told in it. A seed makes a whole family again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from . import host, proved
from .book import Book
from .mutate import Mutator, split
from .steps import Step
from .work import honest_script

LIES_PER_FAMILY = 14
PROVED_EVERY = 20
"""One family in so many is written by real provers, at full depth."""
LOOK_EVERY_PROVED = 20
"""Their states are large, and their logs long."""


@dataclass(frozen=True)
class Case:
    seed: int
    name: str
    is_honest: bool
    leaf_depth: int
    book: Book
    script: list[Step]
    first: int = 0
    """From this step on the whole state is compared; before, it is that of another script of the family."""
    look_every: int = 1
    """Steps between two looks at the whole state."""


def family(seed: int, lies: int = LIES_PER_FAMILY) -> Iterator[Case]:
    is_proved = seed % PROVED_EVERY == 0
    if is_proved:
        script, done, book = proved.proved_script(seed)
        yield Case(seed, f"seed {seed}, as proved", True, proved.LEAF_DEPTH, book, script)
        script = split(done, book)
    else:
        script, book = honest_script(seed)
    depth, every = (proved.LEAF_DEPTH, LOOK_EVERY_PROVED) if is_proved else (host.LEAF_DEPTH, 1)
    yield Case(seed, f"seed {seed}, honest", True, depth, book, script, 0, every)
    mutator = Mutator(Random(seed), script, book, depth)
    for number in range(lies):
        mutated, first = mutator.mutated()
        yield Case(seed, f"seed {seed}, lie {number}", False, depth, book, mutated, first, every)
