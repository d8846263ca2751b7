"""What the trusted process is made of: each crate is justified, from crates.io, and under a licence that fits ours."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from assure.trusted_size import ROOT

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
LICENCES = {"Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-3-Clause", "CC0-1.0", "MIT", "MIT-0", "Unicode-3.0"}
OURS = {"zetakv-monitor-programs", "zetakv-monitor", "zetakv-monitor-operator", "zetakv-monitor-tpm", "zetakv-verifier"}


def cargo(*arguments: str) -> str:
    command = ["cargo", *arguments, "--locked"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@cache
def trusted_crates() -> frozenset[tuple[str, str]]:
    """Name and version of all that is compiled into the monitor's programs on Linux, or runs in their compiler."""
    tree = cargo(
        "tree",
        "-p",
        "zetakv-monitor-programs",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--target",
        "x86_64-unknown-linux-gnu",
    )
    return frozenset((line.split()[0], line.split()[1].removeprefix("v")) for line in tree.splitlines())


def packages() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cargo("metadata", "--format-version", "1"))["packages"]
    return [package for package in found if (package["name"], package["version"]) in trusted_crates()]


def test_security_says_what_each_crate_is_for() -> None:
    _, _, section = (ROOT / "SECURITY.md").read_text().partition("## What the trusted process is made of")
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z0-9_-]+)`", row)}
    assert named == {name for name, _ in trusted_crates()} - OURS


def test_crates_come_from_the_registry_under_licences_that_fit() -> None:
    for package in packages():
        if package["name"] in OURS:
            continue
        assert package["source"] == CRATES_IO, package["name"]
        terms = re.sub(r"[()]", "", package["license"].replace("/", " OR "))
        for term in terms.split(" AND "):
            assert LICENCES & set(term.split(" OR ")), f"{package['name']}: {package['license']}"


def test_the_release_binary_checks_for_overflow() -> None:
    """The text of the panic is in a binary only if something in it may panic so."""
    monitor = (Path(sys.executable).parent / "zetakv-monitor").read_bytes()
    assert b"attempt to add with overflow" in monitor
    assert b"attempt to multiply with overflow" in monitor
