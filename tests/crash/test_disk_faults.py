"""A disk that is full, read-only or broken for a while, under load: nothing certified is lost, all goes on."""

import tempfile
from pathlib import Path

import pytest
from crash.plans import Plan
from crash.run import Run
from support.linearizability import Fate


@pytest.mark.timeout(300)
async def test_what_clients_were_told_is_true_after_the_disk_has_failed(
    monitor_with_failpoints: Path, seed: int
) -> None:
    plans = [
        Plan("checkpointer.before_commit", 1, "ENOSPC"),
        Plan("checkpointer.after_commit", 2, "EIO"),  # an error of which nobody knows what is on disk
        Plan("checkpointer.before_commit", 3, "EROFS"),
        Plan("file.before_sync", 2, "EIO"),  # the monitor's register
    ]
    with tempfile.TemporaryDirectory(prefix="zk-") as directory:  # short: sockets are in it
        summary = await Run(Path(directory), seed, monitor_with_failpoints).fail_disk(plans)
    print(summary)
    assert len(summary.recovery_seconds) == len(plans)
    assert summary.fates[Fate.CERTIFIED] > 0
