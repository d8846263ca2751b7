"""The seed, and the build of the monitor that has failpoints."""

import os
import random
import subprocess
from pathlib import Path

import pytest
from crash.plans import build_monitor


@pytest.fixture
def seed() -> int:
    """Printed; `ZETAKV_SEED` takes it back."""
    chosen = int(os.environ.get("ZETAKV_SEED") or random.randrange(1 << 32))
    print(f"ZETAKV_SEED={chosen}")
    return chosen


@pytest.fixture(scope="session")
def monitor_with_failpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_monitor(tmp_path_factory.mktemp("monitor"))
    except subprocess.CalledProcessError as error:
        pytest.fail(f"the monitor with failpoints cannot be built:\n{error.stderr}")
