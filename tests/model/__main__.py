"""Many scripts, by one command: `make model FAMILIES=2000 SEED=7`; and all that must be noticed, is it noticed?"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

from model.canary import all_noticed
from model.compare import Verdict, compare
from model.corpus import Case, family
from model.driver import Driver, Script, build

REPORT_SECONDS = 30


class Run:
    """What was played, and what was found."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.checks: Counter[str | None] = Counter()
        self.findings = 0
        self.started = self.reported = time.monotonic()

    def play(self, seed: int, families: int, driver: Driver) -> None:
        for number in range(families):
            for case, verdict in compare(family(seed + number), driver):
                self.checks[verdict.failed_check] += 1
                if verdict.difference or (case.is_honest and verdict.has_failed):
                    self.findings += 1
                    self.report(case, verdict)
            if time.monotonic() - self.reported > REPORT_SECONDS:
                self.reported = time.monotonic()
                seconds = self.reported - self.started
                self.console.print(f"{self.checks.total()} scripts, {self.findings} findings, {seconds:.0f} s")

    def report(self, case: Case, verdict: Verdict) -> None:
        kept = Path(tempfile.gettempdir()) / f"{case.name.replace(' ', '-').replace(',', '')}.script"
        kept.write_text(Script(case.leaf_depth, (), case.script).text())
        self.console.print(f"[red]{case.name}[/red]: make model SEED={case.seed} FAMILIES=1; the script: {kept}")
        text = str(verdict.difference or f"accused: {verdict.failed_check}")
        self.console.print(text, markup=False, highlight=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="model", description=__doc__)
    parser.add_argument("--families", type=int, default=1000, help="of one honest script and some lies each")
    parser.add_argument("--seed", type=int, help="of the first family; the next ones have the next numbers")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    console = Console(stderr=True)
    console.print(f"seed {seed}, {arguments.families} families")
    run = Run(console)
    with Driver(build()) as driver:
        run.play(seed, arguments.families, driver)
        noticed = all_noticed(driver)
    for check, count in sorted(run.checks.items(), key=lambda item: -item[1]):
        console.print(f"{count:8} {check or 'no check fails'}")
    missed = [name for name, is_noticed in noticed.items() if not is_noticed]
    for name in missed:
        console.print(f"[red]not noticed[/red]: {name}")
    failed = bool(run.findings or missed)
    print(
        f"ASSURANCE model result={'failed' if failed else 'ok'} cases={run.checks.total()} findings={run.findings} "
        f"canaries={len(noticed) - len(missed)} checks={len(run.checks) - (None in run.checks)} seed={seed} "
        f"seconds={time.monotonic() - run.started:.1f}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
