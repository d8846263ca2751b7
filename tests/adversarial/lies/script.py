"""What happens in one run: operations, epochs, crashes and reconnections, and lies among them; drawn by hypothesis."""

from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st
from lies.catalogue import CATALOGUE
from lies.host import Crash
from lies.liar import Layer, Lie
from support.linearizability import Kind

CLIENTS: Final = 2
KEYS: Final = tuple(b"key %d" % number for number in range(6))
WORKERS: Final = (1, 2, 4)
NONE_HOT: Final = 4
"""All records of keys are read from the store again after each epoch, and proved by Merkle."""
ALL_HOT: Final = 200
"""All stay in Blum from one epoch to the next."""
LIES_MAX: Final = 4
STEPS_MIN: Final = 5
STEPS_MAX: Final = 20
_SKIPS: Final = (0, 0, 0, 0, 1, 2, 3, 5)
_LONG_VALUE_BYTES: Final = 100


@dataclass(frozen=True)
class Ask:
    """One operation. `value` and `expected` are numbers of values."""

    kind: Kind
    key: bytes
    value: int = 0
    expected: int = 0


@dataclass(frozen=True)
class Do:
    """Operations at the same time."""

    client: int
    asked: tuple[Ask, ...]


@dataclass(frozen=True)
class Cut:
    all_to_merkle: bool = False
    crash: Crash | None = None


@dataclass(frozen=True)
class Restart:
    """After a crash, if the host still runs."""

    workers: int


@dataclass(frozen=True)
class Reconnect:
    client: int


@dataclass(frozen=True)
class Release:
    """What was held back goes out."""


@dataclass(frozen=True)
class Tell:
    lie: Lie


Step = Do | Cut | Restart | Reconnect | Release | Tell


@dataclass(frozen=True)
class Script:
    """`seed`: of the clients' own random numbers."""

    seed: int
    workers: int
    steps: tuple[Step, ...]
    hot_records: int = ALL_HOT
    has_log: bool = False
    """A write-ahead log."""

    @property
    def lies(self) -> int:
        return sum(isinstance(step, Tell) for step in self.steps)

    def __str__(self) -> str:
        steps = "\n  ".join(map(str, self.steps))
        log = ", with a write-ahead log" if self.has_log else ""
        return f"{self.workers} workers, {self.hot_records} hot records{log}, seed {self.seed}:\n  {steps}"


def value_of(number: int) -> bytes | None:
    """Null, the empty value, a number, short and long values."""
    few: tuple[bytes | None, ...] = (None, b"", (5).to_bytes(8, "little"))
    if number < len(few):
        return few[number]
    value = b"value %d" % number
    return value if number % 2 else value.ljust(_LONG_VALUE_BYTES, b".")


_VALUES = st.integers(0, 12)
_ASKED = st.builds(
    Ask,
    kind=st.sampled_from([Kind.GET, Kind.GET, Kind.PUT, Kind.PUT, *Kind]),
    key=st.sampled_from(KEYS),
    value=_VALUES,
    expected=_VALUES,
)
_DO = st.builds(Do, client=st.integers(0, CLIENTS - 1), asked=st.lists(_ASKED, min_size=1, max_size=4).map(tuple))
_HONEST: Any = st.one_of(
    _DO,
    _DO,
    _DO,
    st.builds(Cut, all_to_merkle=st.booleans()),
    st.builds(Cut, all_to_merkle=st.booleans()),
    st.builds(Cut, crash=st.sampled_from(Crash)),
    st.builds(Restart, workers=st.sampled_from(WORKERS)),
    st.builds(Reconnect, client=st.integers(0, CLIENTS - 1)),
)
Named = tuple[Layer, str]
"""A lie of the catalogue."""

NAMED: Final[tuple[Named, ...]] = tuple((layer, name) for layer in Layer for name in sorted(CATALOGUE[layer]))


def _lie(named: st.SearchStrategy[Named]) -> st.SearchStrategy[Tell]:
    return st.builds(
        lambda named, skip, pick: Tell(Lie(*named, skip, pick)),
        named=named,
        skip=st.sampled_from(_SKIPS),
        pick=st.integers(0, 1 << 16),
    )


@st.composite
def scripts(draw: st.DrawFn, first: Named | None) -> Script:
    """Honest steps, and at any place among them the lie `first` and a few others; None: no lies."""
    count = draw(st.integers(STEPS_MIN, STEPS_MAX))
    steps: list[Step] = [draw(_HONEST) for _ in range(count)]
    if first is not None:
        others = draw(st.lists(_lie(st.sampled_from(NAMED)), max_size=LIES_MAX - 1))
        for lie in (draw(_lie(st.just(first))), *others):
            place = draw(st.integers(0, len(steps) - 1))
            steps.insert(place, lie)
            if lie.lie.name == "later":
                steps.insert(draw(st.integers(place + 1, len(steps))), Release())
    workers, hot_records = draw(st.sampled_from(WORKERS)), draw(st.sampled_from((NONE_HOT, ALL_HOT)))
    has_log = draw(st.booleans()) or (first is not None and first[0] in (Layer.REPLAY, Layer.TICKETS))
    return Script(draw(st.integers(0, 1 << 32)), workers, tuple(steps), hot_records, has_log)
