"""What `make assure` makes of its tools' last lines, and the list of tools."""

import re
import tomllib

import pytest
from assure.__main__ import ROOT, TOOLS, BadSummaryError, Outcome, summary


def test_a_tools_last_line_is_its_summary() -> None:
    output = "much\nASSURANCE search result=ok cases=12 seconds=0.5\n"
    assert summary("search", output, 0) == Outcome(True, {"cases": "12", "seconds": "0.5"})
    assert summary("a-b", "ASSURANCE a-b result=failed", 2) == Outcome(False, {})


@pytest.mark.parametrize(
    ("output", "status"),
    [
        ("", 0),
        ("ASSURANCE search result=ok\nmore", 0),
        ("ASSURANCE other result=ok", 0),
        ("ASSURANCE search cases=1", 0),
        ("ASSURANCE search result=ok", 1),
        ("ASSURANCE search result=failed", 0),
        ("ASSURANCE search result=fine", 0),
        ("ASSURANCE search result=ok cases = 1", 0),
    ],
)
def test_a_tool_that_does_not_say_so_has_not_succeeded(output: str, status: int) -> None:
    with pytest.raises(BadSummaryError):
        summary("search", output, status)


def test_every_tool_is_a_target_of_make() -> None:
    tools = tomllib.loads(TOOLS.read_text())["tool"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert len({tool["name"] for tool in tools}) == len(tools)
    for tool in tools:
        assert tool.keys() == {"name", "what", "quick", "full"}
        for mode in ("quick", "full"):
            assert re.match(r"make ([a-z-]+)", tool[mode])[1] in targets
