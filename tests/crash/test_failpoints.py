"""Failpoints: named moments at which tests let processes die. A release has none of the monitor's."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from crash.plans import FailpointDirectory, Plan, host_points, monitor_points
from support.server import ZETAKV_MONITOR

from kvstore.failpoints import Failpoints


def test_the_monitor_has_failpoints_only_in_the_build_for_tests(monitor_with_failpoints: Path) -> None:
    names = monitor_points()
    assert len(names) > 5
    for_tests, released = monitor_with_failpoints.read_bytes(), Path(ZETAKV_MONITOR).read_bytes()
    assert b"ZETAKV_FAILPOINTS" in for_tests
    assert [name for name in names if name.encode() not in for_tests] == []
    assert b"ZETAKV_FAILPOINTS" not in released
    assert [name for name in names if name.encode() in released] == []


def test_a_plan_kills_once_at_its_hit(tmp_path: Path) -> None:
    failpoints = FailpointDirectory(tmp_path / "failpoints")
    failpoints.arm(Plan("some.point", 3, "kill"))
    code = "from kvstore.failpoints import hit\nfor i in range(5):\n hit('some.point'); hit('other.point'); print(i)"
    environment = {"ZETAKV_FAILPOINTS": str(failpoints.path)}

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)

    first = run()
    assert (first.returncode, first.stdout) == (-9, "")  # nothing of what it printed was flushed
    assert failpoints.fired
    assert run().returncode == 0
    assert failpoints.hits == {"some.point", "other.point"}


def test_a_disk_error_lasts_until_the_plan_is_taken_away(tmp_path: Path) -> None:
    directory = FailpointDirectory(tmp_path / "failpoints")
    failpoints = Failpoints(directory.path, supervisor=0)
    directory.arm(Plan("some.point", 2, "ENOSPC"))
    failpoints.hit("some.point")
    for _ in range(2):
        with pytest.raises(OSError, match=r"some\.point") as raised:
            failpoints.hit("some.point")
        assert raised.value.errno == errno.ENOSPC
    directory.disarm()
    failpoints.hit("some.point")


def test_every_failpoint_has_one_name_and_one_place() -> None:
    assert len(host_points()) > 10
    assert host_points().isdisjoint(monitor_points())
