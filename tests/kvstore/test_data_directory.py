"""The directory of a server's sockets: private, and never left behind for ever."""

import tempfile
from pathlib import Path

import pytest

from kvstore.children import ServiceError
from kvstore.data_directory import http_token, runtime_directory


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


def test_a_token_is_whole_or_refused(tmp_path: Path) -> None:
    """A crash or a full disk may have left an empty one: whoever gives none would be let in."""
    path = tmp_path / "http.token"
    token = http_token(path)
    assert len(token) == 43
    assert path.stat().st_mode & 0o777 == 0o600
    assert http_token(path) == token
    for cut_short in ("", "\n", token[:31]):
        path.write_text(cut_short)
        with pytest.raises(ServiceError, match="too short"):
            http_token(path)
