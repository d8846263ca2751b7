"""The verifier does what the model does: entry by entry the same acceptance, failing check, answers and state."""

import pytest

from model import steps
from model.compare import compare
from model.corpus import Case, family
from model.driver import Driver
from model.monitor import Monitor
from model.mutate import possible

FAMILIES = 50
"""Each of one honest script and some lies."""


pytestmark = pytest.mark.timeout(600)  # for machines that are busy with other work; alone it takes seconds


@pytest.mark.parametrize("part", range(4))
def test_model_and_verifier_agree(driver: Driver, seed: int, part: int) -> None:
    cases = failures = 0
    for number in range(FAMILIES):
        for case, verdict in compare(family(seed + part * FAMILIES + number), driver):
            assert verdict.difference is None, (
                f"make model SEED={case.seed} FAMILIES=1: {case.name}\n{verdict.difference}"
            )
            assert not (case.is_honest and verdict.has_failed), f"{case.name} is accused: {verdict.failed_check}"
            cases += 1
            failures += verdict.failed_check is not None
    assert failures > cases // 3, f"{failures} of {cases} cases fail a check: most lies should"


def begins_anew(case: Case) -> bool:
    """Whether an epoch does not hold, and after a start a thread hands another one over."""
    failed = started = False
    for step, lines in zip(case.script, Monitor(case.leaf_depth, case.book).follow(case.script), strict=True):
        failed = failed or any(line.startswith("epoch_mismatch") for line in lines)
        started = started or (failed and isinstance(step, steps.Start))
        if started and isinstance(step, steps.Submit) and lines[0].startswith("snapshot"):
            return True
    return False


@pytest.mark.parametrize("seed", [3361296773, 3361297377])
def test_a_start_after_an_epoch_that_does_not_hold_is_a_new_beginning(driver: Driver, seed: int) -> None:
    played = list(compare(family(seed), driver))
    for case, verdict in played:
        assert verdict.difference is None, case.name
    assert any(begins_anew(case) for case, _ in played), "look for another seed"


def test_what_was_moved_to_where_its_thread_is_not_is_left_out() -> None:
    """Over a start with fewer threads: the next change plays the script."""
    tick = b"\x08"
    kept: list[steps.Step] = [
        steps.Start(2, 8, 100),
        steps.Process(1, tick),
        steps.Start(1, 8, 100),
        steps.Process(0, tick),
    ]
    assert possible([*kept, steps.Process(1, tick), steps.TimeOut(1), steps.Submit(1)]) == kept
