"""Many power cuts, by one command: `make powercut IMAGES=300 SEED=7`.

Services are recorded under load, one for each `IMAGES_PER_TRACE`; then their power is cut, again and again, at moments
that the seed decides. How processes interleave is not the seed's to decide, so the trace of a failure is kept, and the
command that is printed makes the same image of it again.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from crash.powercut.check import check, durability_of, plan, record
from crash.powercut.trace import Event, build_recorder, read_trace
from rich.console import Console
from support.linearizability import Fate

IMAGES_PER_TRACE = 50
SERVERS = 2
"""At the same time."""


class Images:
    """Images that were made and checked, and those that failed."""

    def __init__(self, console: Console, ignores_syncs: bool) -> None:
        self.styles: Counter[str] = Counter()
        self.promised = 0
        self.failures = 0
        self.console = console
        self._ignores_syncs = ignores_syncs
        self._free = asyncio.Semaphore(SERVERS)

    async def check(self, trace: Path, seed: int, numbers: list[int]) -> None:
        events = read_trace(trace)
        await asyncio.gather(*(self._check(trace, events, seed, number) for number in numbers))

    async def _check(self, trace: Path, events: list[Event], seed: int, number: int) -> None:
        async with self._free:
            cut = plan(events, seed, number)
            with tempfile.TemporaryDirectory(prefix="zk-") as directory:
                try:
                    promise = await check(events, cut, Path(directory), ignores_syncs=self._ignores_syncs)
                    self.promised += sum(operation.fate is Fate.CERTIFIED for operation in promise.operations)
                except Exception as error:  # a failure of one image, whatever it is, must not hide those of others
                    self.failures += 1
                    kept = Path(tempfile.gettempdir()) / f"powercut-{seed}.trace"
                    if kept != trace:
                        shutil.copy(trace, kept)
                    self.console.print(f"[red]FAILED[/red]: make powercut TRACE={kept} SEED={seed} IMAGE={number}")
                    self.console.print("".join(traceback.format_exception(error)), markup=False, highlight=False)
            self.styles[cut.style.value] += 1


async def cut_power(images: Images, count: int, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="zk-") as built:
        library = build_recorder(Path(built))
        for first in range(0, count, IMAGES_PER_TRACE):
            with tempfile.TemporaryDirectory(prefix="zk-") as directory:
                events = await record(Path(directory), library, seed, durability_of(seed))
                images.console.print(f"seed {seed}, --durability {durability_of(seed)}: {len(events):,} events")
                await images.check(Path(directory) / "trace", seed, list(range(min(IMAGES_PER_TRACE, count - first))))
            seed += 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="make powercut")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="of the first recording")
    parser.add_argument("--trace", type=Path, default=None, help="a recording that was kept, with its --seed")
    parser.add_argument("--image", type=int, default=None, help="only this one of the recording")
    parser.add_argument("--ignore-syncs", action="store_true", help="the canary: a disk that lies; this must fail")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    print(f"SEED={seed}", flush=True)
    console = Console()
    images = Images(console, arguments.ignore_syncs)
    began = time.monotonic()
    if arguments.trace is not None:
        numbers = list(range(arguments.images)) if arguments.image is None else [arguments.image]
        asyncio.run(images.check(arguments.trace, seed, numbers))
    else:
        asyncio.run(cut_power(images, arguments.images, seed))
    total = sum(images.styles.values())
    console.print("images:", ", ".join(f"{count} where {style}" for style, count in images.styles.items()))
    console.print(
        f"{images.promised:,} promised operations were looked for; {images.failures} images of {total} failed"
    )
    console.print(f"{total / (time.monotonic() - began) * 60:.0f} images per minute")
    return 1 if images.failures else 0


if __name__ == "__main__":
    sys.exit(main())
