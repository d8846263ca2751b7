"""docs/proof.md stays true to the code: what a lemma rests on exists where it says, and every check serves a lemma."""

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PROOF = (_ROOT / "docs" / "proof.md").read_text()
_PARAGRAPHS = re.findall(r"^\*Code:\*(.+?)\*Tests:\*(.+?)(?:\n\n|\Z)", _PROOF, re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r"`([^`]+)`")


def _named(paragraph: str) -> list[tuple[str, str]]:
    """Each name with the file that stands before it."""
    named: list[tuple[str, str]] = []
    path = ""
    for quoted in _QUOTED.findall(paragraph):
        if "/" in quoted:
            path = quoted
        else:
            named.append((path, quoted))
    return named


_CODE = sorted({pair for code, _ in _PARAGRAPHS for pair in _named(code)})
_TESTS = sorted({pair for _, tests in _PARAGRAPHS for pair in _named(tests)})


@pytest.mark.parametrize(("path", "name"), [*_CODE, *_TESTS])
def test_what_a_lemma_names_exists(path: str, name: str) -> None:
    source = (_ROOT / path).read_text()
    assert re.search(rf"\b{re.escape(name)}\b", source), f"{path} has no {name}"


def test_every_lemma_and_theorem_names_code_and_tests() -> None:
    for section in re.split(r"^## ", _PROOF, flags=re.MULTILINE):
        if "*Proof.*" in section:
            assert all(part in section for part in ("*Code:*", "*Tests:*")), section.splitlines()[0]
    assert len(_CODE) > 80
    assert len(_TESTS) > 60


def test_every_check_of_the_verifier_serves_the_proof() -> None:
    source = "".join(
        path.read_text() for path in (_ROOT / "monitor/verifier/src").rglob("*.rs") if "tests" not in path.parts
    )
    checks = set(re.findall(r"\b(?:check|holds)!\(\s*(\w+):", source)) - {"name"}
    assert len(checks) > 30
    assert checks <= set(_QUOTED.findall(_PROOF)), checks - set(_QUOTED.findall(_PROOF))
