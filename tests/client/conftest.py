"""Fixtures for tests of the client against the stand-in of `double`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "vectors"))

from double import Host, Monitor


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record of a server of the person who runs the tests."""
    monkeypatch.setenv("ZETAKV_HOME", str(tmp_path / "home"))


@pytest.fixture
def monitor() -> Monitor:
    return Monitor()


@pytest.fixture
async def host(monitor: Monitor) -> AsyncIterator[Host]:
    async with Host(monitor) as host:
        yield host
