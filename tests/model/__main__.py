"""Many scripts, by one command: `make model FAMILIES=2000 SEED=7`."""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

from model.compare import Verdict, compare
from model.corpus import Case, family
from model.driver import Driver, Script, build

REPORT_SECONDS = 30


def main() -> int:
    parser = argparse.ArgumentParser(prog="model", description="Play scripts on the model and on the verifier.")
    parser.add_argument("--families", type=int, default=1000, help="of one honest script and some lies each")
    parser.add_argument("--seed", type=int, help="of the first family; the next ones have the next numbers")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    console = Console(stderr=True)
    console.print(f"seed {seed}, {arguments.families} families")
    checks: Counter[str | None] = Counter()
    findings, started, reported = 0, time.monotonic(), 0.0
    with Driver(build()) as driver:
        for number in range(arguments.families):
            for case, verdict in compare(family(seed + number), driver):
                checks[verdict.failed_check] += 1
                if is_finding(case, verdict):
                    findings += 1
                    report(console, case, verdict)
            elapsed = time.monotonic() - started
            if elapsed - reported > REPORT_SECONDS:
                reported = elapsed
                console.print(f"{checks.total()} scripts, {findings} findings, {elapsed:.0f} s")
    for check, count in sorted(checks.items(), key=lambda item: -item[1]):
        console.print(f"{count:8} {check or 'no check fails'}")
    seconds = time.monotonic() - started
    print(
        f"ASSURANCE model result={'failed' if findings else 'ok'} cases={checks.total()} findings={findings} "
        f"checks={len(checks) - (None in checks)} seed={seed} seconds={seconds:.1f}"
    )
    return 1 if findings else 0


def is_finding(case: Case, verdict: Verdict) -> bool:
    return verdict.difference is not None or (case.is_honest and verdict.failed_check is not None)


def report(console: Console, case: Case, verdict: Verdict) -> None:
    kept = Path(tempfile.gettempdir()) / f"{case.name.replace(' ', '-').replace(',', '')}.script"
    kept.write_text(Script(case.leaf_depth, (), case.script).text())
    console.print(f"[red]{case.name}[/red]: make model SEED={case.seed} FAMILIES=1; the script is kept: {kept}")
    console.print(str(verdict.difference or f"accused: {verdict.failed_check}"), markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
