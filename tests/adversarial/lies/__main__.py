"""Many runs with lies, by one command: `make lies RUNS=5000 SEED=7`. The smallest script that fails is printed.

Every lie of the catalogue is told in as many runs, with others beside it; some runs are honest, and some are of whole
services. A failure names the lie, and the command that repeats its runs.
"""

import argparse
import random
import sys
import time

from lies.many import Summary, in_one_process, on_a_whole_service, tell
from lies.run import FalseAccusationError, WrongAnswerError
from lies.script import NAMED, Named
from rich.console import Console
from rich.progress import Progress

HONEST_PART = 10
"""One run of so many is of honest hosts only."""
SERVICE_PART = 100
"""One run of so many is, beside these, of a whole service."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make lies")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--lie", type=int, default=None, help="only this one, by its number")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    print(f"SEED={seed}", flush=True)
    chance = random.Random(seed)
    each = -(-arguments.runs // len(NAMED))
    lies: list[tuple[int, Named | None]] = list(enumerate(NAMED))
    if arguments.lie is not None:
        lies = [lies[arguments.lie]]
    batches = [(each, lie, number, in_one_process) for number, lie in lies]
    if arguments.lie is None:
        batches.append((arguments.runs // HONEST_PART, None, len(NAMED), in_one_process))
        whole = chance.sample(lies, min(len(lies), arguments.runs // SERVICE_PART // 2))
        batches += [(2, lie, number, on_a_whole_service) for number, lie in whole]
    summary, began, failed = Summary(), time.monotonic(), 0
    console = Console(width=160)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("runs", total=sum(runs for runs, *_ in batches))
        for runs, lie, number, execute in batches:
            try:
                if runs:
                    tell(summary, runs, seed + number, lie, execute, lambda: progress.advance(task))
            except (WrongAnswerError, FalseAccusationError) as error:
                failed += 1
                console.print(f"FAILED: make lies RUNS={arguments.runs} SEED={seed} LIE={number}", markup=False)
                console.print(f"{type(error).__name__}: {error}", markup=False)
    console.print(summary.table())
    for line in summary.lines():
        console.print(line)
    console.print(f"{failed} failed; {summary.runs / (time.monotonic() - began):.1f} runs per second")
    told = sum(counted.total() for counted in summary.told.values())
    print(f"ASSURANCE lies result={'failed' if failed else 'ok'} runs={summary.runs} told={told} failed={failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
