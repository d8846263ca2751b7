"""What the comparison must notice: each check that is left out, of the model or of the verifier, and other changes."""

from __future__ import annotations

import re
from pathlib import Path

from .compare import compare
from .corpus import Case, family
from .driver import ROOT, Driver
from .silent import CHANGES, changed

SEED = 1_000_000
FAMILIES_MAX = 150
FAMILIES_FOR_CHANGES = 80
CASES_PER_CHECK = 6


def names_in_verifier() -> set[str]:
    sources = ROOT / "monitor" / "verifier" / "src"
    files = [path for path in sources.rglob("*.rs") if "tests" not in path.parts]
    found = [re.findall(r"(?:check|holds)!\(\s*(\w+):", path.read_text()) for path in files]
    return {name for names in found for name in names} - {"name"}  # of the macro's description


def names_in_model() -> set[str]:
    files = [path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]
    found = [re.findall(r"(?:check|holds)\(\s*\"(\w+)\"", path.read_text()) for path in files]
    return {name for names in found for name in names}


def families() -> list[list[Case]]:
    return [list(family(SEED + number)) for number in range(FAMILIES_FOR_CHANGES)]


def cases_by_check(driver: Driver) -> dict[str, list[Case]]:
    """Some cases for each check, which fails in them."""
    cases: dict[str, list[Case]] = {name: [] for name in names_in_verifier()}
    for number in range(FAMILIES_MAX):
        if all(len(of_check) == CASES_PER_CHECK for of_check in cases.values()):
            break
        for case, verdict in compare(family(SEED + number), driver):
            of_check = cases.get(verdict.failed_check or "")
            if of_check is not None and len(of_check) < CASES_PER_CHECK:
                of_check.append(case)
    return cases


def is_noticed(check: str, cases: dict[str, list[Case]], driver: Driver) -> bool:
    """Whether it is noticed that a check is left out, of the model as well as of the verifier."""
    in_model = compare(cases[check], driver, model_without=[check])
    in_verifier = compare(cases[check], driver, verifier_without=[check])
    return all(any(verdict.difference for _, verdict in played) for played in (in_model, in_verifier))


def is_change_noticed(change: str, families: list[list[Case]], driver: Driver) -> bool:
    """Whether it is noticed that the model is changed in a way that no check tells of."""
    with changed(change):
        return any(verdict.difference for cases in families for _, verdict in compare(cases, driver))


def all_noticed(driver: Driver) -> dict[str, bool]:
    """Each canary, by name."""
    cases, some = cases_by_check(driver), families()
    checks = {f"without {check}": is_noticed(check, cases, driver) for check in sorted(names_in_verifier())}
    return checks | {change: is_change_noticed(change, some, driver) for change in CHANGES}
