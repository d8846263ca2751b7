"""Many runs with lies, by one command: `make lies RUNS=5000 SEED=7`. The smallest script that fails is printed."""

import argparse
import random
import sys
import time

from lies.many import Summary, tell
from lies.run import FalseAccusationError, WrongAnswerError
from lies.script import LIES_MAX
from rich.console import Console
from rich.progress import Progress

HONEST_PART = 10
"""One run of so many is of honest hosts only."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make lies")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    print(f"SEED={seed}", flush=True)
    summary, began, failed = Summary(), time.monotonic(), 0
    honest = arguments.runs // HONEST_PART
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("runs", total=arguments.runs)
        for runs, lies_max in ((honest, 0), (arguments.runs - honest, LIES_MAX)):
            try:
                tell(summary, runs, seed, lies_max, lambda: progress.advance(task))
            except (WrongAnswerError, FalseAccusationError) as error:
                failed += 1
                print(
                    f"FAILED: make lies RUNS={arguments.runs} SEED={seed}\n{type(error).__name__}: {error}", flush=True
                )
    console = Console(width=160)
    console.print(summary.table())
    for line in summary.lines():
        console.print(line)
    console.print(f"{failed} failed; {summary.runs / (time.monotonic() - began):.1f} runs per second")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
