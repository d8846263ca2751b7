"""How a check fails. Names are those of the verifier's source; what is inseparable there has the name of its code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .keys import ROOT, Key

_left_out: set[str] = set()


class Fault(Exception):  # noqa: N818  a host's fault, not the model's error
    """A check that something the host did has not passed."""

    def __init__(self, check: str, code: str, key: Key) -> None:
        super().__init__(check, code, key)
        self.check, self.code, self.key = check, code, key


def holds(name: str, condition: bool) -> bool:
    """Whether the condition holds."""
    return condition or name in _left_out


def check(name: str, condition: bool, code: str, key: Key = ROOT) -> None:
    """Go on if the condition holds."""
    if not holds(name, condition):
        raise Fault(name, code, key)


def require(condition: bool, code: str, key: Key = ROOT) -> None:
    """A check that cannot be left out: what follows needs what it says."""
    if not condition:
        raise Fault(code, code, key)


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Leave checks out, so that tests can show what is noticed then."""
    _left_out.update(names)
    try:
        yield
    finally:
        _left_out.difference_update(names)
