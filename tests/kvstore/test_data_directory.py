"""The directory of a server's sockets: private, and never left behind for ever."""

import tempfile
from pathlib import Path

import pytest

from kvstore.data_directory import runtime_directory


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files of its own."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    return scratch


def test_it_is_removed_at_the_end(tmp_path: Path, scratch: Path) -> None:
    with runtime_directory(tmp_path) as runtime:
        assert list(scratch.iterdir()) == [runtime]
        assert runtime.stat().st_mode & 0o777 == 0o700
    assert not list(scratch.iterdir())
    assert not (tmp_path / "runtime").is_symlink()


def test_what_a_killed_server_left_is_removed_by_the_next(tmp_path: Path, scratch: Path) -> None:
    left = Path(tempfile.mkdtemp(prefix="zetakv-"))
    (left / "control.sock").touch()
    (tmp_path / "runtime").symlink_to(left)
    with runtime_directory(tmp_path) as runtime:
        assert list(scratch.iterdir()) == [runtime]


def test_a_link_that_leads_elsewhere_removes_nothing(tmp_path: Path, scratch: Path) -> None:
    precious = tmp_path / "zetakv-precious"
    precious.mkdir()
    (tmp_path / "runtime").symlink_to(precious)
    with runtime_directory(tmp_path):
        pass
    assert precious.is_dir()
