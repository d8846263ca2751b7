"""The comparison notices what it is there to notice."""

import pytest

from model.canary import cases_by_check, families, is_change_noticed, is_noticed, names_in_model, names_in_verifier
from model.corpus import Case
from model.driver import Driver
from model.silent import CHANGES

pytestmark = pytest.mark.timeout(600)  # for machines that are busy with other work; alone it takes seconds


def test_the_model_has_the_checks_of_the_verifier() -> None:
    assert names_in_model() == names_in_verifier()


@pytest.fixture(scope="session")
def cases(driver: Driver) -> dict[str, list[Case]]:
    return cases_by_check(driver)


@pytest.mark.parametrize("check", sorted(names_in_verifier()))
def test_a_check_that_is_left_out_is_noticed(driver: Driver, cases: dict[str, list[Case]], check: str) -> None:
    assert is_noticed(check, cases, driver)


@pytest.fixture(scope="session")
def some_families() -> list[list[Case]]:
    return families()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_no_check_tells_of_is_noticed(
    driver: Driver, some_families: list[list[Case]], change: str
) -> None:
    assert is_change_noticed(change, some_families, driver)
