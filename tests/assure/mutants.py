"""`make mutants`: changes the verifier, one place at a time, by cargo-mutants, and wants a test to fail each time.

What survives is either a test that is missing, or in `KEPT`, with the reason why no test can tell. Takes hours: each of
some 570 changes is compiled and tested. `FILE=monitor/verifier/src/cache.rs` takes those of one file.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
OUTPUT: Final = ROOT / "target" / "mutants"
SECONDS_MAX: Final = 120
"""For the tests of one change; without one they take seconds. Longer is an endless loop, and noticed."""

KEPT: Final = {
    "epochs.rs: replace > with >= in Epochs<S>::is_ahead_of_all": (
        1,
        "of the first of two comparisons: the second, with all published clocks, includes the thread's own",
    ),
    "key.rs: replace | with ^ in Key::cmp_post_order": (
        2,
        "a key has no bits beyond its depth, so those of the mask are set by either",
    ),
    "time.rs: replace | with ^ in Timestamp::to_u64": (1, "epoch and counter are in different halves"),
    "standard_crypto.rs: replace <impl Drop for Sum>::drop with ()": (
        1,
        "that memory is wiped cannot be seen without unsafe code",
    ),
}
"""Survivors, by file and change: how often, and why no test can kill them."""


def name_of(outcome: dict[str, Any]) -> str:
    """A change, without its place in the file, which moves."""
    place, _, change = outcome["scenario"]["Mutant"]["name"].partition(": ")
    return f"{re.sub(r':[0-9]+:[0-9]+$', '', place).removeprefix('monitor/verifier/src/')}: {change}"


def survivors(outcomes: list[dict[str, Any]]) -> list[str]:
    """Those that no test noticed, and that are not kept."""
    missed = Counter(name_of(outcome) for outcome in outcomes if outcome["summary"] == "MissedMutant")
    return sorted((missed - Counter({name: times for name, (times, _) in KEPT.items()})).elements())


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--file", action="append", default=[], help="only of this file")
    arguments = parser.parse_args()
    if shutil.which("cargo-mutants") is None:
        print("cargo-mutants is missing: cargo install cargo-mutants --locked")
        print("ASSURANCE mutants result=failed problem=not_installed")
        return 1
    start = time.monotonic()
    command = ["cargo", "mutants", "-p", "zetakv-verifier", "-j1", "--timeout", str(SECONDS_MAX), "-o", str(OUTPUT)]
    # the tests of the library, the golden vectors, and the checks of what is shipped; the tests that build crates of
    # their own would take most of the time
    command += ["-C=--lib", "-C=--test=vectors", "-C=--test=shipped_checks"]
    for file in arguments.file:
        command += ["-f", file]
    shutil.rmtree(OUTPUT, ignore_errors=True)  # no results of an earlier run
    OUTPUT.mkdir(parents=True)
    subprocess.run(command, cwd=ROOT, check=False)  # its exit status is that of any survivor, kept or not
    outcomes_path = OUTPUT / "mutants.out" / "outcomes.json"
    if not outcomes_path.exists():
        print("ASSURANCE mutants result=failed problem=not_started")
        return 1
    results = json.loads(outcomes_path.read_text())
    outcomes = [outcome for outcome in results["outcomes"] if outcome["scenario"] != "Baseline"]
    alive = survivors(outcomes)
    for name in alive:
        print(f"survives: {name}")
    killed = results["caught"] + results["timeout"]
    result = "failed" if alive or killed == 0 else "ok"
    print(
        f"ASSURANCE mutants result={result} cases={results['total_mutants']} killed={killed}"
        f" kept={results['missed'] - len(alive)} survivors={len(alive)} not_compiled={results['unviable']}"
        f" seconds={time.monotonic() - start:.0f}"
    )
    return 1 if result == "failed" else 0


if __name__ == "__main__":
    sys.exit(main())
