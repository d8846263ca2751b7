"""What ends a run, and whether another one may follow."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from kvstore.config import ServeConfig
from kvstore.monitor_link import MonitorLostError
from kvstore.restarts import Restarts
from kvstore.run import Run, RunEndedError


class LosesItsMonitor:
    """The service of a run whose monitor ends after the replay of the log, before it is live."""

    async def go_live(self) -> None:
        raise MonitorLostError("the control connection to the monitor has ended")


@pytest.mark.parametrize("cause", [None, "worker-0 ended unexpectedly (signal 9)"])
async def test_a_monitor_lost_before_it_is_live_ends_the_run_only(tmp_path: Path, cause: str | None) -> None:
    unused = cast(Any, None)
    run = Run(ServeConfig(data=tmp_path), tmp_path, 0, unused, [], Restarts(), unused)
    if cause is not None:  # it is noticed a moment later, and explains more
        asyncio.get_running_loop().call_later(0.1, run.abandon, RunEndedError(cause))
    with pytest.raises(RunEndedError, match="worker-0" if cause else "the control connection"):
        await run._go_live(cast(Any, LosesItsMonitor()))


async def test_a_fault_in_the_cutting_of_epochs_ends_the_run(tmp_path: Path) -> None:
    unused = cast(Any, None)
    run = Run(ServeConfig(data=tmp_path), tmp_path, 0, unused, [], Restarts(), unused)

    async def faulty() -> None:
        raise ValueError("no such epoch")

    epochs = asyncio.create_task(faulty())
    epochs.add_done_callback(run._epochs_ended)
    with pytest.raises(RunEndedError, match="no such epoch"):
        await run.until(asyncio.Event())
