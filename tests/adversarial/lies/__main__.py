"""Many runs with lies, by one command: `make lies RUNS=5000 SEED=7`. The smallest script that fails is printed.

Every lie of the catalogue is told in as many runs, with others beside it; some runs are honest, and some are of whole
services. A failure names the lie, and the command that repeats its runs.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from lies.many import Batch, Summary
from lies.script import NAMED
from rich.console import Console
from rich.progress import Progress

HONEST_PART = 10
"""One run of so many is of honest hosts only."""
SERVICE_PART = 100
"""One run of so many is, beside these, of a whole service."""
HONEST_BATCH = 20


def batches(runs: int, seed: int, only: int | None) -> Iterator[Batch]:
    """Each with a seed of its own."""
    each = -(-runs // len(NAMED))
    for number, lie in enumerate(NAMED):
        if only in (None, number):
            yield Batch(each, lie, seed + number, f"make lies RUNS={runs} SEED={seed} LIE={number}")
    if only is None:
        command = f"make lies RUNS={runs} SEED={seed}"
        for number in range(0, runs // HONEST_PART, HONEST_BATCH):
            yield Batch(HONEST_BATCH, None, seed + len(NAMED) + number, command)
        whole = random.Random(seed).choices(range(len(NAMED)), k=runs // SERVICE_PART // 2)
        for place, number in enumerate(whole):
            yield Batch(2, NAMED[number], seed + place, f"{command} (a whole service)", is_whole_service=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make lies")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--lie", type=int, default=None, help="only this one, by its number")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at the same time")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    print(f"SEED={seed}", flush=True)
    summary, began, failed = Summary(), time.monotonic(), 0
    console = Console(width=160)
    todo = list(batches(arguments.runs, seed, arguments.lie))
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, spawned) as pool, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("runs", total=sum(batch.runs for batch in todo))
        futures = [pool.submit(batch.tell) for batch in todo]
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            for done in as_completed(futures):
                told, failure = done.result()
                summary.merge(told)
                progress.advance(task, told.runs)
                if failure:
                    failed += 1
                    console.print(failure, markup=False)
        except KeyboardInterrupt:  # what there is so far is reported, when the batches that run have ended
            pool.shutdown(wait=False, cancel_futures=True)
    console.print(summary.table())
    for line in summary.lines():
        console.print(line, highlight=False)
    console.print(f"{failed} failed; {summary.runs / (time.monotonic() - began):.1f} runs per second")
    count = sum(counted.total() for counted in summary.told.values())
    print(f"ASSURANCE lies result={'failed' if failed else 'ok'} runs={summary.runs} told={count} failed={failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
