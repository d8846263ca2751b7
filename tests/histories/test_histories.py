"""Histories of real services with disasters are explained; made false, they are not. Many more: `make histories`."""

import os
import random
import tempfile
from pathlib import Path

import pytest
from histories.recorded import CHANGES, AnswerLostError, NotAPrefixError, judge, read, write
from histories.run import Plan, recorded_and_judged
from support.linearizability import Fate, Kind, NotExplainedError, Operation, explain_all

RUNS = 3


@pytest.mark.timeout(600)
async def test_histories_are_explained_and_changed_ones_are_not(tmp_path: Path) -> None:
    first = int(os.environ.get("ZETAKV_SEED") or random.randrange(1 << 31))
    print(f"ZETAKV_SEED={first}")
    refused = 0
    for seed in range(first, first + RUNS):
        with tempfile.TemporaryDirectory(prefix="zk-") as directory:  # short: sockets are in it
            operations = await recorded_and_judged(Path(directory), Plan.of(seed))
        assert sum(operation.fate is Fate.CERTIFIED for operation in operations) > 100
        write(tmp_path / "history", operations)
        assert [str(operation) for operation in read(tmp_path / "history")] == [str(one) for one in operations]
        for changed in filter(None, (change(operations) for change in CHANGES)):
            refused += 1
            with pytest.raises(NotExplainedError):
                explain_all(changed)
    assert refused > RUNS


def answered(place: int, ts: int, fate: Fate, client: int = 0) -> Operation:
    get = Operation(place, b"key", Kind.GET, called=2 * place, answered=2 * place + 1, fate=fate, client=client)
    get.ts, get.incarnation = ts, "one"
    return get


def test_certified_answers_are_a_prefix() -> None:
    first, second = (1 << 32) + 5, (2 << 32) + 1
    judge([answered(0, first, Fate.CERTIFIED), answered(1, second, Fate.GONE)], "epoch")
    with pytest.raises(NotAPrefixError):
        judge([answered(0, first, Fate.GONE), answered(1, second, Fate.CERTIFIED)], "epoch")
    with pytest.raises(NotAPrefixError):
        judge([answered(0, second, Fate.CERTIFIED), answered(1, first, Fate.CERTIFIED)], "epoch")
    judge([answered(0, second, Fate.CERTIFIED), answered(1, first, Fate.CERTIFIED, client=1)], "epoch")


def test_with_a_log_no_answer_is_lost() -> None:
    with pytest.raises(AnswerLostError):
        judge([answered(0, 1 << 32, Fate.GONE)], "wal")
