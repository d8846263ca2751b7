"""Many recorded histories, by one command: `make histories RUNS=50 SEED=7`; `FILE=history-7.txt` judges one again.

After all runs every history is made false in each way that `recorded.py` knows, and the checker must refuse it.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from histories.recorded import CHANGES, judge, read
from histories.run import Plan, recorded_and_judged
from rich.console import Console
from rich.table import Table
from support.linearizability import NotExplainedError, Operation, explain_all


class Summary:
    def __init__(self) -> None:
        self.failed = 0
        self.plans: list[Plan] = []
        self.operations: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()

    def add(self, plan: Plan, operations: list[Operation]) -> None:
        self.plans.append(plan)
        self.operations.update(operation.fate.value for operation in operations)
        for change in CHANGES:
            changed = change(operations)
            if changed is not None:
                try:
                    explain_all(changed)
                except NotExplainedError:
                    self.refused[change.__name__] += 1
                else:
                    self.taken[change.__name__] += 1

    def report(self, seconds: float) -> None:
        console = Console()
        table = Table("histories with", "", title="Histories")
        for what, count in sorted(Counter(name for plan in self.plans for _, name in plan.disasters).items()):
            table.add_row(what, str(count))
        for workers, count in sorted(Counter(number for plan in self.plans for number in set(plan.workers)).items()):
            table.add_row(f"{workers} workers", str(count))
        for durability, count in sorted(Counter(plan.durability for plan in self.plans).items()):
            table.add_row(f"durability {durability}", str(count))
        table.add_row("all that were explained", str(len(self.plans)))
        console.print(table)
        console.print("operations:", ", ".join(f"{count:,} {fate}" for fate, count in self.operations.items()))
        made = ", ".join(f"{name} {count}" for name, count in self.refused.items())
        console.print(f"made false, and refused: {made}; and not refused: {sum(self.taken.values())}")
        console.print(f"{self.failed} runs failed; {seconds:.0f} s")

    @property
    def ok(self) -> bool:
        return not self.failed and not self.taken

    def assurance(self) -> str:
        """The last line, for `make assure`."""
        result = "ok" if self.ok else "failed"
        figures = (
            f"histories={len(self.plans)} operations={self.operations.total()} false_refused={self.refused.total()}"
        )
        return f"ASSURANCE histories result={result} {figures}"


async def record_many(seeds: range, services: int) -> Summary:
    summary = Summary()
    free = asyncio.Semaphore(services)

    async def record(seed: int) -> None:
        plan = Plan.of(seed)
        async with free:
            with tempfile.TemporaryDirectory(prefix="zk-") as directory:
                try:
                    summary.add(plan, await recorded_and_judged(Path(directory), plan))
                except Exception as error:  # a failure of one run, whatever it is, must not hide those of others
                    summary.failed += 1
                    print(f"FAILED: make histories RUNS=1 SEED={seed} ({plan})", flush=True)
                    print("".join(traceback.format_exception(error)), flush=True)
                else:
                    print(f"explained: {plan}", flush=True)

    runs = asyncio.gather(*map(record, seeds))
    for end in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(end, runs.cancel)
    with contextlib.suppress(asyncio.CancelledError):  # what there is so far is reported
        await runs
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(prog="make histories")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="of the first")
    parser.add_argument("--services", type=int, default=2, help="at the same time")
    parser.add_argument("--file", type=Path, default=None, help="judge this one again")
    arguments = parser.parse_args()
    if arguments.file is not None:
        judge(read(arguments.file), Plan.of(int(arguments.file.stem.removeprefix("history-"))).durability)
        print("explained")
        return 0
    seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    print(f"SEED={seed}", flush=True)
    began = time.monotonic()
    summary = asyncio.run(record_many(range(seed, seed + arguments.runs), arguments.services))
    summary.report(time.monotonic() - began)
    print(summary.assurance())
    return 0 if summary.ok else 1


if __name__ == "__main__":
    sys.exit(main())
