"""The verifier does what the model does: entry by entry the same acceptance, failing check, answers and state."""

import pytest

from model.compare import compare
from model.corpus import family
from model.driver import Driver

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


@pytest.mark.parametrize("seed", [3361296157, 3361296946])
def test_a_start_after_an_epoch_that_does_not_hold_is_a_new_beginning(driver: Driver, seed: int) -> None:
    for case, verdict in compare(family(seed), driver):
        assert verdict.difference is None, case.name


def test_a_script_may_be_changed_after_a_piece_was_moved_over_a_start() -> None:
    """To a monitor with fewer threads than the piece wants."""
    moved_and_changed_again = 776476445
    assert len(list(family(moved_and_changed_again))) == 15
