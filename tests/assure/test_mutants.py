"""What `make mutants` takes for a survivor."""

from typing import Any

from assure.mutants import KEPT, ROOT, survivors


def outcome(place: str, change: str, summary: str = "MissedMutant") -> dict[str, Any]:
    return {"scenario": {"Mutant": {"name": f"monitor/verifier/src/{place}: {change}"}}, "summary": summary}


def test_kept_ones_are_kept_as_often_as_they_are_listed() -> None:
    named = [name.split(": ", 1) for name, (times, _) in KEPT.items() for _ in range(times)]
    kept = [outcome(f"{file}:68:12", change) for file, change in named]
    assert survivors(kept) == []
    change = "replace > with >= in Epochs<S>::is_ahead_of_all"
    assert survivors([*kept, outcome("epochs.rs:68:30", change)]) == [f"epochs.rs: {change}"]


def test_what_no_test_noticed_survives() -> None:
    change = "replace Cache<LEAF_DEPTH>::occupied -> usize with 1"
    assert survivors([outcome("cache.rs:58:9", change)]) == [f"cache.rs: {change}"]
    assert survivors([outcome("cache.rs:58:9", change, summary="CaughtMutant")]) == []


def test_what_is_kept_is_there() -> None:
    for name in KEPT:
        file, _, change = name.partition(": ")
        function = change.split("::")[-1].split()[0]
        assert f"fn {function}(" in (ROOT / "monitor/verifier/src" / file).read_text()
