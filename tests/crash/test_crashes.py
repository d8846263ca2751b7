"""Crashes at seeded moments under load: what clients were told is true. Many more of them: `make crash`."""

import os
import tempfile
from pathlib import Path

import pytest
from crash.run import Run

CRASHES = int(os.environ.get("ZETAKV_CRASHES", "10"))


@pytest.mark.timeout(120 + 10 * CRASHES)
async def test_what_clients_were_told_is_true_after_crashes(monitor_with_failpoints: Path, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="zk-") as directory:  # short: sockets are in it
        summary = await Run(Path(directory), seed, monitor_with_failpoints).crash(CRASHES)
    print(summary)
    assert sum(summary.crashes.values()) >= CRASHES
    assert all(count > 0 for count in summary.fates.values())
