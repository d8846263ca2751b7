"""`make size`: how many lines of trusted code there are, file by file: of the process that serves, and apart from it.

A line counts if there is anything on it but comments and white space, and it is not for tests only. Failpoints count:
they are in the same files, and whoever reads those reads them.
"""

import functools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pygments.lexers import RustLexer
from pygments.token import Comment, String
from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parents[2]
SERVING: Final = {
    "verifier": ROOT / "monitor/verifier/src",
    "daemon": ROOT / "monitor/daemon/src",
    "programs": ROOT / "monitor/programs",
}
"""What the process that serves a host is made of."""
APART: Final = {"tpm": ROOT / "monitor/tpm/src", "operator": ROOT / "monitor/operator/src"}
"""Trusted where it is used: the register in a TPM, and the operator's program."""
LINES_AIM: Final = 4000
"""What an auditor reads in an afternoon."""

_FOR_TESTS: Final = ["#", "[", "cfg", "(", "test", ")", "]"]

Token = tuple[int, str]
"""A line, and what is on it."""


def code_lines(source: str) -> set[int]:
    """The numbers of the lines with code that is not for tests, the first is 1."""
    return {line for line, _ in _split(source)[0]}


def modules_for_tests(source: str) -> set[str]:
    """The modules with files of their own that exist for tests only."""
    items = (item[1:] if item[0] == "pub" else item for item in _split(source)[1])
    return {item[1] for item in items if item[0] == "mod" and item[2] == ";"}


@functools.cache
def count(folder: Path) -> dict[str, int]:
    """The number of lines of each trusted file of a crate."""
    sources = {path.relative_to(folder): path.read_text() for path in sorted(folder.rglob("*.rs"))}
    for_tests = set().union(*(modules_for_tests(source) for source in sources.values()))
    trusted = {path: source for path, source in sources.items() if not for_tests & {*path.parts, path.stem}}
    return {str(path): len(code_lines(source)) for path, source in trusted.items()}


@functools.cache
def _split(source: str) -> tuple[list[Token], list[list[str]]]:
    """The tokens that are not for tests, and the words of each item that is."""
    tokens = list(_tokens(source))
    words = [word for _, word in tokens]
    trusted, for_tests, at = [], [], 0
    while at < len(tokens):
        if words[at : at + len(_FOR_TESTS)] == _FOR_TESTS:
            start = at + len(_FOR_TESTS)
            at = _end_of_item(words, start)
            for_tests.append(words[start:at])
        else:
            trusted.append(tokens[at])
            at += 1
    return trusted, for_tests


def _tokens(source: str) -> Iterator[Token]:
    """All tokens but comments and white space, with their lines; one that spans lines comes once for each."""
    line = 1
    for kind, text in RustLexer(stripnl=False, ensurenl=False).get_tokens(source):
        is_comment = (kind in Comment and kind is not Comment.Preproc) or kind in String.Doc  # attributes are code
        for number, part in enumerate(text.split("\n")):
            if not is_comment and part.strip():
                yield from ((line + number, word) for word in _words(part, kind in String))
        line += text.count("\n")


def _words(text: str, is_string: bool) -> Iterable[str]:
    if is_string:
        return ["string"]
    for bracket in "{}()[];#":
        text = text.replace(bracket, f" {bracket} ")
    return text.split()


def _end_of_item(words: list[str], at: int) -> int:
    """Where the item that begins here has ended: after its block, or its semicolon."""
    depth = 0
    for end, word in enumerate(words[at:], at + 1):
        depth += (word in "{([") - (word in "})]")
        if depth == 0 and word in ("}", ";"):
            return end
    raise ValueError("an item for tests has no end")


def main() -> int:
    console = Console()
    totals = {}
    for crate, folder in (SERVING | APART).items():
        lines = count(folder)
        table = Table("file", "lines", title=f"{crate}: code without comments and tests")
        for name, number in lines.items():
            table.add_row(name, f"{number}")
        totals[crate] = sum(lines.values())
        table.add_row("all", f"{totals[crate]}", style="bold")
        console.print(table)
    serving = sum(totals[crate] for crate in SERVING)
    console.print(
        f"the process that serves: {serving:,} lines; the aim is {LINES_AIM:,}. "
        f"Apart: TPM register {totals['tpm']:,}, operator's program {totals['operator']:,}"
    )
    each = " ".join(f"{crate}={lines}" for crate, lines in totals.items())
    print(f"ASSURANCE size result=ok lines={serving} {each} aim={LINES_AIM}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
