"""`make assure`: runs each assurance tool of `tests/assure.toml`, and prints what each has found, in one table.

A tool says what it did in its last line: `ASSURANCE name key=value ...`, with `result=ok` or `result=failed`, which
must agree with its exit status. What it printed before is in `target/assure/NAME.log`.
"""

import argparse
import os
import re
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parents[2]
TOOLS: Final = ROOT / "tests" / "assure.toml"
LOGS: Final = ROOT / "target" / "assure"

LINES_OF_A_FAILURE: Final = 60
"""The log of a machine that is gone by then cannot be read: what was printed can."""

_SUMMARY: Final = re.compile(r"ASSURANCE ([a-z][a-z0-9-]*)((?: [a-z][a-z0-9_]*=[^\s=]+)*)")


class BadSummaryError(Exception):
    """A tool's last line is not what the convention wants. The text says what it is."""


@dataclass(frozen=True)
class Outcome:
    """What a tool said of its run."""

    ok: bool
    figures: dict[str, str] = field(default_factory=dict)


def _environment() -> dict[str, str]:
    """Without make's own variables: a make that knows it was called by another says so in its last line."""
    return {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}


def summary(name: str, output: str, status: int) -> Outcome:
    """What the last line of a tool's output says. Raises BadSummaryError."""
    last = output.rstrip().rpartition("\n")[2]
    match = _SUMMARY.fullmatch(last)
    if match is None or match[1] != name:
        raise BadSummaryError(f"exit status {status}, and the last line is no `ASSURANCE {name} ...`: {last[:200]!r}")
    figures = dict(pair.split("=") for pair in match[2].split())
    result = figures.pop("result", None)
    if (result, status == 0) not in {("ok", True), ("failed", False)}:
        raise BadSummaryError(f"exit status {status}, but the last line says result={result}")
    return Outcome(result == "ok", figures)


def run(tool: dict[str, Any], mode: str) -> Outcome:
    """Run a tool, and keep what it prints."""
    log = LOGS / f"{tool['name']}.log"
    with log.open("wb") as file:
        command = ["sh", "-c", tool[mode]]
        done = subprocess.run(
            command, cwd=ROOT, env=_environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False
        )
    try:
        return summary(tool["name"], log.read_text(errors="replace"), done.returncode)
    except BadSummaryError as error:
        return Outcome(False, {"problem": str(error)})


def main() -> int:
    parser = argparse.ArgumentParser(prog="assure", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the long runs: hours, for before a release")
    parser.add_argument("--only", metavar="NAME,...", help="these tools and no others")
    arguments = parser.parse_args()
    tools = tomllib.loads(TOOLS.read_text())["tool"]
    if arguments.only:
        wanted = arguments.only.split(",")
        if unknown := set(wanted) - {tool["name"] for tool in tools}:
            parser.error(f"{TOOLS.name} has no tool {', '.join(sorted(unknown))}")
        tools = [tool for tool in tools if tool["name"] in wanted]
    mode = "full" if arguments.full else "quick"

    LOGS.mkdir(parents=True, exist_ok=True)
    progress, console = Console(stderr=True), Console()
    table = Table("tool", "what it does", "result", "figures", "seconds", title=f"Assurance, {mode}")
    failed = []
    for tool in tools:
        progress.print(f"{tool['name']}: {tool[mode]}", markup=False, highlight=False)
        start = time.monotonic()
        outcome = run(tool, mode)
        if not outcome.ok:
            failed.append(tool["name"])
        result = "[green]ok[/green]" if outcome.ok else "[red]FAILED[/red]"
        figures = "\n".join(f"{name} {value}" for name, value in outcome.figures.items())
        table.add_row(tool["name"], tool["what"], result, figures, f"{time.monotonic() - start:.0f}", end_section=True)
    console.print(table)
    for name in failed:
        log = LOGS / f"{name}.log"
        console.print(f"[red]{name} failed[/red]: see {log}, which ends with", highlight=False)
        lines = log.read_text(errors="replace").splitlines()[-LINES_OF_A_FAILURE:]
        console.print("\n".join(lines), markup=False, highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
