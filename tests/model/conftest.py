"""One verifier for all tests of the model, and the scripts that are played on both."""

import os
import random
from collections.abc import Iterator

import pytest

from model.driver import Driver, build


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    with Driver(build()) as verifier:
        yield verifier


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("ZETAKV_SEED") or random.randrange(1 << 32))
    print(f"ZETAKV_SEED={chosen}")
    return chosen
