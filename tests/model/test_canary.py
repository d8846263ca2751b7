"""The comparison notices what it is there to notice: each check that is left out, of the model or of the verifier."""

import re
from pathlib import Path

import pytest

from model.compare import compare
from model.corpus import Case, family
from model.driver import ROOT, Driver

pytestmark = pytest.mark.timeout(600)  # for machines that are busy with other work; alone it takes seconds

SEED = 1_000_000
FAMILIES_MAX = 120
CASES_PER_CHECK = 4

BEHIND = {"verify_epoch_between_requests": "next_epoch_between_requests"}
"""Checks that cannot fail, as long as another one is there: defence in depth."""

SOURCES = ROOT / "monitor" / "verifier" / "src"


def names_in_verifier() -> set[str]:
    files = [path for path in SOURCES.rglob("*.rs") if "tests" not in path.parts]
    found = [re.findall(r"(?:check|holds)!\(\s*(\w+):", path.read_text()) for path in files]
    return {name for names in found for name in names} - {"name"}  # of the macro's description


def names_in_model() -> set[str]:
    files = [path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]
    found = [re.findall(r"(?:check|holds)\(\s*\"(\w+)\"", path.read_text()) for path in files]
    return {name for names in found for name in names}


def test_the_model_has_the_checks_of_the_verifier() -> None:
    assert names_in_model() == names_in_verifier()


@pytest.fixture(scope="session")
def noticed(driver: Driver) -> dict[str, list[Case]]:
    """Some cases for each check, which fails in them."""
    cases: dict[str, list[Case]] = {name: [] for name in names_in_verifier() - set(BEHIND)}
    for number in range(FAMILIES_MAX):
        if all(len(of_check) == CASES_PER_CHECK for of_check in cases.values()):
            break
        for case, verdict in compare(family(SEED + number), driver):
            if len(cases.get(verdict.failed_check, range(CASES_PER_CHECK))) < CASES_PER_CHECK:
                cases[verdict.failed_check].append(case)
    return cases


@pytest.mark.parametrize("check", sorted(names_in_verifier()))
def test_a_check_that_is_left_out_is_noticed(driver: Driver, noticed: dict[str, list[Case]], check: str) -> None:
    cases, also = noticed[BEHIND.get(check, check)], [BEHIND[check]] if check in BEHIND else []
    assert cases, "no case fails this check"
    for model_without, verifier_without in (([check, *also], also), (also, [check, *also])):
        played = compare(cases, driver, model_without=model_without, verifier_without=verifier_without)
        assert any(verdict.difference for _, verdict in played), f"the model without {model_without}"
