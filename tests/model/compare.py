"""Plays a script on the model and on the verifier, and finds the first step at which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from . import check
from .corpus import Case
from .driver import Driver, Script
from .monitor import Monitor
from .steps import Observe, Process, Step, TimeOut

STEPS_AFTER_FAILURE = 3
"""A failure is final: they show it."""


@dataclass(frozen=True)
class Difference:
    """Step, and what was seen of it."""

    script: Sequence[Step]
    at: int
    model: list[str] | None
    verifier: list[str] | None

    def __str__(self) -> str:
        lines = [f"step {self.at}: {self.script[self.at].line()}"]
        for expected, actual in zip_longest(self.model or ["(nothing)"], self.verifier or ["(nothing)"]):
            lines += [f"  {expected}"] if expected == actual else [f"- model    {expected}", f"+ verifier {actual}"]
        return "\n".join(lines)


def observed(case: Case) -> list[Step]:
    """The script, with looks at the states of threads after what was written to them."""
    steps: list[Step] = list(case.script[: case.first])
    for number, step in enumerate(case.script[case.first :]):
        steps.append(step)
        if isinstance(step, Process | TimeOut) and number % case.look_every == 0:
            steps.append(Observe(step.thread))
    return steps


@dataclass(frozen=True)
class Verdict:
    failed_check: str | None
    """The check that a wait or the failure of the model is due to."""
    has_failed: bool
    """And not only waited, as an honest thread may, too."""
    difference: Difference | None


def compare(
    cases: Iterable[Case], driver: Driver, *, model_without: Sequence[str] = (), verifier_without: Sequence[str] = ()
) -> Iterator[tuple[Case, Verdict]]:
    """Play cases on both, with checks left out of either."""
    played, cases = [], list(cases)
    with check.without(*model_without):
        for case in cases:
            script = observed(case)
            monitor, seen = _follow(script, case)
            played.append((case, script[: len(seen)], _failed_check(monitor, seen), _has_failed(seen), seen))
    scripts = [Script(case.leaf_depth, verifier_without, script) for case, script, *_ in played]
    for (case, script, failed_check, has_failed, seen), actual in zip(played, driver.follow(scripts), strict=True):
        pairs = enumerate(zip_longest(seen, actual))
        difference = next((Difference(script, at, *pair) for at, pair in pairs if pair[0] != pair[1]), None)
        yield case, Verdict(failed_check, has_failed, difference)


def _follow(script: Sequence[Step], case: Case) -> tuple[Monitor, list[list[str]]]:
    """What the model makes of a script, until shortly after a failure."""
    monitor, seen, steps_left = Monitor(case.leaf_depth, case.book), [], len(script)
    for step in script:
        if steps_left == 0:
            break
        seen.append(monitor.do(step))
        steps_left -= 1
        if seen[-1] and seen[-1][0].startswith("failed"):
            steps_left = min(steps_left, STEPS_AFTER_FAILURE)
    return monitor, seen


def _has_failed(seen: list[list[str]]) -> bool:
    return any(line.startswith(("failed", "epoch_mismatch")) for lines in seen for line in lines)


def _failed_check(monitor: Monitor, seen: list[list[str]]) -> str | None:
    """The first."""
    for line in (line for lines in seen for line in lines):
        if line.startswith("waiting"):
            return "add_blum_clock_passed"
        if line.startswith("epoch_mismatch"):
            return "epoch_mismatch"
        if line.startswith("failed"):
            break
    return next((thread.failed.check for thread in monitor.threads if thread.failed), None)
