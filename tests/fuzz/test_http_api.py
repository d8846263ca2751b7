"""The HTTP interface, by what the server says of itself: requests of all kinds, made from its own description."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.server import ZETAKV, Process, environment_of

SECONDS_MAX = 600
EXAMPLES = os.environ.get("ZETAKV_EXAMPLES", "5")
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
]
"""Not whether exactly what the description allows is accepted: a key must be base64 only if the request says that it
is, and what an operation does not use is not looked at."""


@pytest.mark.timeout(SECONDS_MAX)
def test_every_answer_is_one_that_the_description_has() -> None:
    """Takes half a minute. `ZETAKV_EXAMPLES`: of each kind of request. A failure prints the seed, for `ZETAKV_SEED`."""
    with tempfile.TemporaryDirectory(prefix="zk-") as folder:
        data = Path(folder) / "data"
        serve = [ZETAKV, "serve", "--data", str(data), "--port", "0", "--http-port", "0", "--epoch-ms", "50"]
        server = Process(serve, environment_of(Path(folder)))
        try:
            url = "http://" + server.wait_for(r"\(http ([0-9.:]+),")[1]
            token = (data / "http.token").read_text().strip()
            command = [
                *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/v1/openapi.json"),
                *("--header", f"Authorization: Bearer {token}", "--request-timeout", "20", "--no-color"),
                *("--checks", ",".join(CHECKS), "--max-examples", EXAMPLES, "--generation-database", "none"),
                *("--exclude-path", "/v1/certificates/events"),  # which never ends
                *(("--seed", os.environ["ZETAKV_SEED"]) if "ZETAKV_SEED" in os.environ else ()),
            ]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "No issues found" in done.stdout
        finally:
            server.kill()
