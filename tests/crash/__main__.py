"""Many crashes, by one command: `make crash CRASHES=1000 SEED=7`. Several services are crashed at the same time.

Every service is crashed `CRASHES_PER_RUN` times from an empty store, by a seed of its own; a failure names the command
that repeats it.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

from crash.plans import build_monitor, service_points
from crash.run import Run, Summary
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

CRASHES_PER_RUN = 25


async def crash(seeds: list[int], crashes: int, services: int, monitor: Path, durability: str) -> tuple[Summary, int]:
    """All that happened, and the number of runs that failed."""
    total, failures = Summary(), 0
    free = asyncio.Semaphore(services)

    async def run(seed: int, progress: Progress, task: TaskID) -> None:
        nonlocal failures
        async with free:
            with tempfile.TemporaryDirectory(prefix="zk-") as directory:
                crashed = Run(Path(directory), seed, monitor, lambda: progress.advance(task), durability)
                try:
                    await crashed.crash(crashes)
                except Exception as error:  # a failure of one run, whatever it is, must not hide those of others
                    failures += 1
                    progress.console.print(
                        f"[red]FAILED[/red]: make crash CRASHES={crashes} SEED={seed} DURABILITY={durability}"
                    )
                    progress.console.print("".join(traceback.format_exception(error)), markup=False, highlight=False)
                finally:
                    total.add(crashed.summary)

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("crashes", total=crashes * len(seeds))
        runs = asyncio.gather(*(run(seed, progress, task) for seed in seeds))
        loop = asyncio.get_running_loop()
        for end in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(end, runs.cancel)
        with contextlib.suppress(asyncio.CancelledError):  # what there is so far is reported
            await runs
    return total, failures


def report(summary: Summary, failures: int, seconds: float) -> None:
    console = Console()
    table = Table("failpoint", "crashes", title="Crashes")
    for point, count in sorted(summary.crashes.items()):
        table.add_row(point, str(count))
    table.add_row("all", str(sum(summary.crashes.values())))
    console.print(table)
    console.print("operations:", ", ".join(f"{count:,} {fate.value}" for fate, count in summary.fates.items()))
    if len(summary.recovery_seconds) > 1:
        cuts = statistics.quantiles(summary.recovery_seconds, n=100)
        console.print(
            f"recovery: p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, most {max(summary.recovery_seconds):.2f} s"
        )
    never = service_points() - summary.hits
    console.print("failpoints that were never come to:", ", ".join(sorted(never)) or "none")
    console.print(f"{failures} runs failed; {sum(summary.crashes.values()) / seconds * 60:.0f} crashes per minute")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make crash")
    parser.add_argument("--crashes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="of the first service, if there is more than one")
    parser.add_argument("--services", type=int, default=2, help="at the same time")
    parser.add_argument("--durability", choices=["epoch", "wal"], default="epoch")
    arguments = parser.parse_args()
    first = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    runs = -(-arguments.crashes // CRASHES_PER_RUN)
    print(f"SEED={first}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        monitor = build_monitor(Path(directory))
        began = time.monotonic()
        seeds = list(range(first, first + runs))
        per_run = min(arguments.crashes, CRASHES_PER_RUN)
        summary, failures = asyncio.run(crash(seeds, per_run, arguments.services, monitor, arguments.durability))
    report(summary, failures, time.monotonic() - began)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
