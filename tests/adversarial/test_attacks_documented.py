"""docs/attacks.md and this folder say the same: no attack without a row, no row without a test."""

import re
from pathlib import Path

_HERE = Path(__file__)
_DOCUMENT = _HERE.parents[2] / "docs" / "attacks.md"


def test_every_attack_has_a_row_and_every_row_a_test() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", _DOCUMENT.read_text()))
    present = {path.name for path in _HERE.parent.glob("test_*.py")} - {_HERE.name}
    assert named == present
