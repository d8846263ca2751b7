"""The benchmarks run, and write figures and plots: a second of each, so that they do not rot.

Nothing is asserted of speed. `make test` has built the native parts before; without that, they are built here.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG\r\n"
SHORT = ("--repeats", "1", "--seconds", "0.5", "--warm-seconds", "0.2")

pytestmark = pytest.mark.timeout(600)


def figures(output: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "bench", *arguments, "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(output.read_text())


def plotted_figures(output: Path, *arguments: str) -> Any:
    result = figures(output, *arguments)
    assert result["machine"]["cores"] >= 1
    assert result["machine"]["commit"]
    assert output.with_suffix(".png").read_bytes().startswith(PNG)
    return result


def test_epochs(tmp_path: Path) -> None:
    options = [*SHORT, "--epoch-ms", "200", "--records", "2000", "--mix", "b", "--mix", "f"]
    rows = plotted_figures(tmp_path / "epochs.json", "epochs", *options)["rows"]
    assert [(row["epoch_ms"], row["mix"], row["value_bytes"]) for row in rows] == [(200, "b", 8), (200, "f", 8)]
    for row in rows:
        names = ("verified", "unverified", "ratio", "certification_ms_p50", "generator_cpu_ns")
        assert min(row[name]["median"] for name in names) > 0


def test_latency(tmp_path: Path) -> None:
    options = [*SHORT, "--epoch-ms", "200", "--records", "2000", "--share", "0.3"]
    (row,) = plotted_figures(tmp_path / "latency.json", "latency", *options)["rows"]
    assert 0 < row["latency_us_p50"]["median"] <= row["latency_us_p99"]["median"] <= row["latency_us_max"]["median"]
    assert row["stall_ms"]["median"] > 0
    assert row["timeline"]


def test_scale(tmp_path: Path) -> None:
    options = [*SHORT, "--epoch-ms", "200", "--records", "1000", "--base-records", "2000"]
    rows = plotted_figures(tmp_path / "scale.json", "scale", *options, "--keys", "500", "--workers", "2")["rows"]
    varied = [(row["varied"], row["value"]) for row in rows]
    assert varied == [("records", 1000)] * 3 + [("keys", 500)] + [("workers", 2)] * 2
    assert min(row["operations_per_second"]["median"] for row in rows) > 0


def test_peers(tmp_path: Path) -> None:
    """With all that are installed, of which ZetaKV is always one."""
    options = [*SHORT, "--records", "1000", "--connections", "3"]
    rows = plotted_figures(tmp_path / "peers.json", "peers", *options)["rows"]
    assert {"zetakv", "zetakv-unverified"} <= {row["peer"] for row in rows}
    assert min(row["operations_per_second"]["median"] for row in rows) > 0


def test_sdk(tmp_path: Path) -> None:
    options = ["--repeats", "1", "--seconds", "0.3", "--records", "1000", "--batch", "100"]
    rows = plotted_figures(tmp_path / "sdk.json", "sdk", *options)["rows"]
    assert [row["call"] for row in rows] == ["get_many", "put_many", "get", "put"]
    assert min(row["operations_per_second"]["median"] for row in rows) > 0


def test_verifier(tmp_path: Path) -> None:
    rows = plotted_figures(tmp_path / "verifier.json", "verifier", "--records", "2000", "--rounds", "1")["rows"]
    assert {row["name"] for row in rows} == {"cached", "merkle_cached", "merkle_root", "blum", "carry_over"}
    assert min(row["cpu_ns"]["median"] for row in rows) > 0


def test_sizes(tmp_path: Path) -> None:
    options = ["--epoch-ms", "200", "--records", "2000", "--overwrites", "2000", "--crashes", "1"]
    result = figures(tmp_path / "sizes.json", "sizes", *options)
    assert result["final_bytes"] > result["raw_bytes"] == 2_000 * 116
    assert 0 < result["ready_seconds"] < result["first_certified_seconds"]
    assert result["memory_bytes_max"] > 0


_STRANGER = """
import sys
from dataclasses import replace
from bench.generator import Generator, GeneratorError, Workload
from bench.service import running_server

workload = Workload(records=1000, seconds=0.3, warmup=0)
with running_server(workers=1, epoch_ms=200, verified=True) as ours:
    with running_server(workers=1, epoch_ms=200, verified=True) as other:
        for stranger in (replace(ours, fingerprint=other.fingerprint), replace(ours, key=other.key)):
            try:
                Generator().load(stranger.target, workload)
            except GeneratorError as error:
                print(error)
    try:
        Generator().run(ours.target, workload)  # nothing was loaded
    except GeneratorError as error:
        print(error)
"""


def test_a_failed_check_leaves_no_figures() -> None:
    """A monitor that is not the pinned one, a key that it does not know, and records that are not what they must be."""
    command = [sys.executable, "-c", _STRANGER]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wrong_monitor, wrong_key, not_loaded = done.stdout.splitlines()
    # the client's signature names the monitor that it expects, so the real one refuses it
    assert "refused by the server: error 4: 2" in wrong_monitor
    assert "refused by the server: error 4" in wrong_key
    assert "CHECK FAILED" in not_loaded
    assert "has no value" in not_loaded
