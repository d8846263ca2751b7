"""Many runs, and what came of them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from lies.full import FullRun
from lies.liar import Layer
from lies.monitor import directory_in_memory
from lies.run import FalseAccusationError, Outcome, Run, Verdict, WrongAnswerError
from lies.script import NAMED, Named, Script, scripts
from rich.table import Table


class Summary:
    def __init__(self) -> None:
        self.runs = 0
        self.verdicts: Counter[Verdict] = Counter()
        self.told: dict[Layer, Counter[Verdict]] = {layer: Counter() for layer in Layer}
        """Lies by the verdict on their run: other lies may have been told in it, too."""
        self.names: Counter[str] = Counter()
        self.never = set(NAMED)
        self.operations: Counter[str] = Counter()
        self.hangs: list[str] = []

    def merge(self, other: "Summary") -> None:
        self.runs += other.runs
        self.verdicts += other.verdicts
        self.names += other.names
        self.operations += other.operations
        self.never &= other.never
        self.hangs += other.hangs
        for layer, counted in other.told.items():
            self.told[layer] += counted

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.verdicts[outcome.verdict] += 1
        self.names.update(outcome.names)
        self.hangs += [outcome.hangs] if outcome.hangs else []
        for fate, count in outcome.fates.items():
            self.operations[fate.value] += count
        for lie in outcome.told:
            self.told[lie.layer][outcome.verdict] += 1
            self.never.discard((lie.layer, lie.name))

    def table(self) -> Table:
        verdicts = [verdict for verdict in Verdict if verdict is not Verdict.HONEST]
        table = Table("lies told in", "told", *(verdict.value for verdict in verdicts), title="Lies")
        for layer, counted in self.told.items():
            table.add_row(layer.value, str(counted.total()), *(str(counted[verdict]) for verdict in verdicts))
        total: Counter[Verdict] = sum(self.told.values(), Counter())
        table.add_row("all", str(total.total()), *(str(total[verdict]) for verdict in verdicts))
        return table

    def lines(self) -> list[str]:
        return [
            f"{self.runs:,} runs: " + ", ".join(f"{count:,} {what.value}" for what, count in self.verdicts.items()),
            "operations: " + ", ".join(f"{count:,} {fate}" for fate, count in self.operations.items()),
            "found: " + (", ".join(f"{name} {count:,}" for name, count in self.names.most_common()) or "nothing"),
            *(f"the host hangs: {what}" for what in self.hangs[:3]),
            "never told: " + (", ".join(sorted(f"{layer.value}: {name}" for layer, name in self.never)) or "none"),
        ]


def tell(
    summary: Summary,
    runs: int,
    first_seed: int,
    lie: Named | None,
    execute: Callable[[Script], Outcome],
) -> None:
    """Runs with this lie among others, or honest ones.

    Raises WrongAnswerError or FalseAccusationError, of the smallest script that hypothesis finds.
    """

    @seed(first_seed)
    @settings(
        max_examples=runs,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(scripts(lie))
    def run(script: Script) -> None:
        summary.add(execute(script))

    run()


def in_one_process(script: Script) -> Outcome:
    with directory_in_memory() as directory:
        return Run(Path(directory), script).execute()


def on_a_whole_service(script: Script) -> Outcome:
    with directory_in_memory() as directory:
        return asyncio.run(FullRun(Path(directory), script).execute())


@dataclass(frozen=True)
class Batch:
    """Runs of one lie, or, with None, honest ones."""

    runs: int
    lie: Named | None
    seed: int
    command: str
    """That repeats it."""
    is_whole_service: bool = False

    def tell(self) -> tuple[Summary, str]:
        """What came of them; and the failure, if there is one."""
        summary = Summary()
        execute = on_a_whole_service if self.is_whole_service else in_one_process
        try:
            tell(summary, self.runs, self.seed, self.lie, execute)
        except (WrongAnswerError, FalseAccusationError) as error:
            return summary, f"FAILED: {self.command}\n{type(error).__name__}: {error}"
        return summary, ""
