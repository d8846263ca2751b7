"""The benchmarks run, and write figures: a second of each, so that they do not rot. Nothing is asserted of speed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def figures(output: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "bench", *arguments, "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(output.read_text())


def test_epochs(tmp_path: Path) -> None:
    options = ["--epoch-ms", "200", "--repeats", "1", "--seconds", "1", "--records", "2000"]
    (row,) = figures(tmp_path / "epochs.json", "epochs", *options)["rows"]
    assert row["epoch_ms"] == 200
    assert min(row["verified"], row["unverified"], row["ratio"], row["certification_p50"]) > 0


def test_sizes(tmp_path: Path) -> None:
    options = ["--epoch-ms", "200", "--records", "2000", "--overwrites", "2000", "--crashes", "1"]
    result = figures(tmp_path / "sizes.json", "sizes", *options)
    assert result["final_bytes"] > result["raw_bytes"] == 2_000 * 116
    assert 0 < result["ready_seconds"] < result["first_certified_seconds"]
    assert result["memory_bytes_max"] > 0
