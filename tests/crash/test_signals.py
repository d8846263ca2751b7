"""The crash tester itself: a signal ends it with its report, and nothing is left over."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from crash.plans import CHECKOUT, processes_of

_BEGUN_SECONDS = 150.0
_ENDED_SECONDS = 60.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.timeout(300)
def test_a_signal_ends_it_with_its_report(tmp_path_factory: pytest.TempPathFactory, number: signal.Signals) -> None:
    directory = tmp_path_factory.mktemp("s")
    environment = os.environ | {"TMPDIR": str(directory), "PYTHONPATH": str(CHECKOUT / "tests")}
    command = [sys.executable, "-P", "-m", "crash", "--crashes", "25", "--services", "1", "--seed", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tester:
        try:
            begun = time.monotonic()
            while not (hits := list(directory.glob("zk-*/failpoints/hits/supervisor.before_serving"))):
                assert tester.poll() is None
                assert time.monotonic() < begun + _BEGUN_SECONDS, "no service has started"
                time.sleep(0.1)
            tester.send_signal(number)
            output, _ = tester.communicate(timeout=_ENDED_SECONDS)
        finally:
            tester.kill()
    assert tester.returncode == 0
    assert output.startswith(b"SEED=1\n")
    assert re.search(rb"\b0 runs failed; \d+ crashes per minute", output)
    assert processes_of(hits[0].parents[1]) == set()
    assert list(directory.iterdir()) == []
