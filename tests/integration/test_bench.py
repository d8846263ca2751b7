"""The benchmarks run, and write figures: a second of each, so that they do not rot. Nothing is asserted of speed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_epochs(tmp_path: Path) -> None:
    output = tmp_path / "epochs.json"
    options = ["--epoch-ms", "200", "--repeats", "1", "--seconds", "1", "--records", "2000", "--output", str(output)]
    command = [sys.executable, "-m", "bench", "epochs", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(output.read_text())["rows"]
    assert row["epoch_ms"] == 200
    assert min(row["verified"], row["unverified"], row["ratio"], row["certification_p50"]) > 0
