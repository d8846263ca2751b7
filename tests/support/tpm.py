"""A software TPM, `swtpm`, as the trusted register of a monitor under test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from support.ports import free_port

_START_SECONDS = 10.0
_INDEX = "0x01800100"
# a command without sessions: TPM2_GetRandom of 8 bytes (TPM 2.0 library, part 3, 16.1)
_GET_RANDOM = bytes.fromhex("8001 0000000c 0000017b 0008")


@contextmanager
def tpm_register() -> Iterator[str]:
    """The value of `--register` for a TPM of one's own. Skips the test where swtpm is not installed."""
    if shutil.which("swtpm") is None:
        pytest.skip("needs swtpm (Debian package swtpm)")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="zk-tpm-") as state:
        arguments = ["swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear"]
        arguments += ["--tpmstate", f"dir={state}", "--server", f"type=tcp,port={port},bindaddr=127.0.0.1"]
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL)
        try:
            _wait_until_it_answers(port)
            yield f"tpm:127.0.0.1:{port}:{_INDEX}"
        finally:
            process.kill()
            process.wait()


def _wait_until_it_answers(port: int) -> None:
    """Wait for a response: a connection that comes and goes while swtpm begins can take the next one with it."""
    end = time.monotonic() + _START_SECONDS
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_START_SECONDS) as connection:
            connection.sendall(_GET_RANDOM)
            if connection.recv(len(_GET_RANDOM)):
                return
        assert time.monotonic() < end, "swtpm does not answer"
        time.sleep(0.02)
