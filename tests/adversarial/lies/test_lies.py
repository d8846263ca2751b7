"""Random lies among honest operations are detected or harmless; who tells none is never accused. And the harness fails
when it must: with a client that does not check, and with a host that has the monitor's memory in its hands.

Thousands of them: `make lies`.
"""

import copy
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kvstore_client import _lane
from lies.catalogue import CATALOGUE
from lies.client import Client
from lies.liar import Layer, Lie
from lies.many import Summary, in_one_process, on_a_whole_service, tell
from lies.monitor import directory_in_memory
from lies.run import Run, Verdict, WrongAnswerError
from lies.script import KEYS, NAMED, Ask, Cut, Do, Restart, Script, Step, Tell
from support.linearizability import Fate, Kind

LIES, RUNS_OF_EACH, HONEST_RUNS, WHOLE_SERVICES = 20, 3, 20, 1
"""The first run that hypothesis makes of a lie is always the simplest script."""
FIRST, SECOND = 3, 5
"""Numbers of values."""
WRITTEN = Do(0, (Ask(Kind.PUT, KEYS[0], FIRST), Ask(Kind.PUT, KEYS[1], SECOND)))
WRITTEN_AGAIN = Do(0, (Ask(Kind.PUT, KEYS[0], SECOND), Ask(Kind.DELETE, KEYS[1])))
READ = Do(1, (Ask(Kind.GET, KEYS[0]), Ask(Kind.GET, KEYS[1])))


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as path:
        yield Path(path)


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("ZETAKV_SEED") or random.randrange(1 << 31))
    print(f"ZETAKV_SEED={chosen}")
    return chosen


@pytest.mark.timeout(600)
def test_lies_are_detected_or_harmless(seed: int) -> None:
    summary = Summary()
    for number, named in enumerate(random.Random(seed).sample(NAMED, LIES)):
        tell(summary, RUNS_OF_EACH, seed + number, named, in_one_process)
    print(*summary.lines()[:-1], sep="\n")
    assert sum(count.total() for count in summary.told.values()) > LIES


@pytest.mark.timeout(600)
def test_who_tells_no_lie_is_not_accused(seed: int) -> None:
    summary = Summary()
    tell(summary, HONEST_RUNS, seed, None, in_one_process)
    assert summary.verdicts.keys() == {Verdict.HONEST}
    assert summary.operations["certified"] > HONEST_RUNS


@pytest.mark.timeout(600)
def test_a_whole_service_is_lied_to(seed: int) -> None:
    summary = Summary()
    for number, named in enumerate(random.Random(seed).sample(NAMED, WHOLE_SERVICES)):
        tell(summary, 2, seed + number, named, on_a_whole_service)
    print(*summary.lines()[:-1], sep="\n")


def run(directory: Path, *steps: Step, workers: int = 1) -> set[str]:
    """What is found."""
    return Run(directory, Script(0, workers, steps)).execute().names


def lie(layer: Layer, name: str, pick: int = 0, skip: int = 0) -> Tell:
    assert name in CATALOGUE[layer]
    return Tell(Lie(layer, name, skip, pick))


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (lie(Layer.STORE, "another value"), "hash_mismatch"),
        (lie(Layer.ROW_READ, "another value"), "hash_mismatch"),
        (lie(Layer.TO_CLIENT, "another result"), "ReceiptError"),
        (lie(Layer.CERTIFICATES, "of another epoch, signed by somebody"), "CertificateError"),
    ],
)
def test_a_lie_has_the_name_that_it_must(directory: Path, told: Tell, found: str) -> None:
    assert found in run(directory, WRITTEN, Cut(all_to_merkle=True), told, READ, Cut())


def test_a_former_store_is_refused(directory: Path) -> None:
    old = lie(Layer.STORE, "an old store")
    assert run(directory, WRITTEN, Cut(), WRITTEN, Cut(), old, Restart(1), READ) == {"rollback"}


# --- canaries: what must be found, is ---


def test_a_client_that_believes_receipts_is_fooled_and_that_is_seen(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lane, "mac_equal", lambda *_: True)
    with pytest.raises(WrongAnswerError):
        run(directory, WRITTEN, Cut(), lie(Layer.TO_CLIENT, "another result"), READ, Cut())


class HastyClient(Client):
    """Takes every receipt for certified."""

    def give_up(self) -> None:
        super().give_up()
        for call in self.calls:
            if call.receipt is not None:
                call.operation.fate = Fate.CERTIFIED


@pytest.mark.parametrize(
    "steps",
    [
        (WRITTEN, READ, Cut(), lie(Layer.LOG, "another value"), READ, Cut()),
        (WRITTEN, Cut(), WRITTEN_AGAIN, READ, Restart(1)),
    ],
    ids=["a wrong value in the log", "answers lost in a crash"],
)
def test_a_client_that_waits_for_no_certificate_is_fooled_and_that_is_seen(
    directory: Path, steps: tuple[Step, ...]
) -> None:
    with pytest.raises(WrongAnswerError):
        Run(directory, Script(0, 1, steps), HastyClient).execute()


def test_a_host_that_has_the_monitor_in_its_hands_is_seen(directory: Path) -> None:
    """It puts back store and monitor together. Clients that remember see it; one that knows nothing is fooled."""
    attacked = Run(directory, Script(0, 1, ()))
    attacked.begin()
    for step in (WRITTEN, Cut()):
        attacked.step(step)
    old_monitor, old_store = directory / "old", copy.deepcopy(attacked.host.stored)
    shutil.copytree(attacked.monitor.state, old_monitor)
    for step in (WRITTEN_AGAIN, Cut()):
        attacked.step(step)
    attacked.host.crash()
    shutil.rmtree(attacked.monitor.state)
    shutil.copytree(old_monitor, attacked.monitor.state)
    attacked.host.stored = old_store
    with pytest.raises(WrongAnswerError):
        attacked.end()
    assert any(client.accuses for client in attacked.clients)
    attacked.host.crash()
