"""The README's example runs as it stands, the example programs do, and every relative link leads somewhere."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.server import Server

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])


def run_python(*arguments: str, home: Path) -> str:
    """What a Python program prints. It runs outside the checkout, as a user's would."""
    environment = os.environ | {"ZETAKV_HOME": str(home), "NO_COLOR": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readmes_program_runs() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with tempfile.TemporaryDirectory(prefix="zk-") as folder:
        server = Server(Path(folder)).start()
        try:
            printed = run_python("-c", program.replace("127.0.0.1:7717", server.address), home=server.home)
        finally:
            server.close()
    assert printed == "b'100 coins'\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_the_unicode_database_is_certified_and_an_edit_is_caught(workers: int, tmp_path: Path) -> None:
    """All of its records: some 150,000. Takes about 20 s."""
    printed = run_python(str(ROOT / "examples/unicode_database.py"), "--workers", str(workers), home=tmp_path)
    assert re.search(r"4 clients read 1\d\d,\d{3} records each; every value right, every receipt certified", printed)
    assert re.search(r"after an edit in the store's file: ViolationError: .*hash_mismatch", printed)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing
