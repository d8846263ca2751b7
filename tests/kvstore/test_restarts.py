"""When restarts are a crash loop, and how long is waited between attempts."""

from itertools import pairwise

import pytest

from kvstore.limits import RESTARTS_MAX, RESTARTS_SECONDS, RETRY_SECONDS_MAX, RETRY_SECONDS_MIN
from kvstore.restarts import CrashLoopError, Pauses, Restarts


def add(restarts: Restarts, *times: float) -> None:
    for time in times:
        restarts.add(f"ended at {time:g}", time)


def test_nothing_has_happened_yet() -> None:
    assert Restarts().to_json() == {"restarts": 0, "last_restart": None, "gateway_restarts": 0}


def test_fruitless_restarts_are_bounded_and_the_last_reason_is_told() -> None:
    restarts = Restarts()
    add(restarts, *range(RESTARTS_MAX))
    assert restarts.to_json()["restarts"] == RESTARTS_MAX
    with pytest.raises(CrashLoopError, match=rf"^ended at 9; given up after {RESTARTS_MAX} restarts"):
        add(restarts, 9)
    assert restarts.count == RESTARTS_MAX, "the last run has no successor"
    assert restarts.reason == "ended at 9"


def test_a_certificate_is_a_fresh_start() -> None:
    restarts = Restarts()
    for round_ in range(3):
        add(restarts, *range(RESTARTS_MAX))
        assert restarts.count == (round_ + 1) * RESTARTS_MAX, "for people it is counted on"
        restarts.certified()
    add(restarts, *range(RESTARTS_MAX))
    with pytest.raises(CrashLoopError):
        add(restarts, RESTARTS_MAX)


def test_restarts_far_apart_are_no_loop() -> None:
    restarts = Restarts()
    add(restarts, *(number * RESTARTS_SECONDS / RESTARTS_MAX for number in range(10 * RESTARTS_MAX)))
    # One more within the time, and it is.
    last = (10 * RESTARTS_MAX - 1) * RESTARTS_SECONDS / RESTARTS_MAX
    with pytest.raises(CrashLoopError):
        add(restarts, last + 0.1, last + 0.2)


def test_pauses_double_up_to_a_limit() -> None:
    pauses = Pauses()
    taken = [pauses.next() for _ in range(20)]
    assert taken[0] == RETRY_SECONDS_MIN
    assert all(after == min(2 * before, RETRY_SECONDS_MAX) for before, after in pairwise(taken))
    assert taken[-1] == RETRY_SECONDS_MAX
