"""A server with real processes, as these tests use it: started and cleanly stopped as a context manager."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from kvstore_client import KV, connect
from support.server import ZETAKV, Process, Server, environment_of


class Service(Server):
    """`zetakv serve` in `directory`. Stopped at the end of its block, unless it has ended by then."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        verified: bool = True,
        workers: int = 1,
        epoch_ms: int = 50,
        http: bool = False,
        environment: dict[str, str] | None = None,
    ) -> None:
        mode = [] if verified else ["--unverified"]
        arguments = ["--workers", str(workers), "--epoch-ms", str(epoch_ms), *mode, *options]
        super().__init__(directory, arguments, environment=environment)
        self.verified = verified
        self._http = http

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *failure: object) -> None:
        if self.process is not None:
            await asyncio.to_thread(self.close if failure[0] is not None else self.stop)

    def spawn(self) -> Process:
        http = ["--http-port", "0"] if self._http else ["--no-http"]
        arguments = [ZETAKV, "serve", "--data", str(self.data), "--port", "0", *http, *self.options]
        self.process = Process(arguments, environment_of(self.home) | self.environment)
        return self.process

    @property
    def http_url(self) -> str:
        return "http://" + self._running().wait_for(r"\(http ([0-9.:]+),")[1]

    async def ends(self, *, terminate: bool) -> tuple[int, str]:
        """Its exit code and output, when it has ended: by itself, or because it is told to."""
        process, self.process = self._running(), None
        if terminate:
            process.terminate()
        return await asyncio.to_thread(process.wait), process.output

    def children(self) -> list[int]:
        """Process ids of its children."""
        parent = str(self._running().pid)
        found = subprocess.run(["pgrep", "-P", parent], capture_output=True, text=True, check=False)
        return [int(line) for line in found.stdout.split()]

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[KV]:
        monitor, key = (self.fingerprint, self.admin_key) if self.verified else (None, None)
        async with connect(self.address, monitor=monitor, key=key, timeout=10, unverified=not self.verified) as kv:
            yield kv

    def zetakv(self, *arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a command as the user of this server, who needs neither fingerprint nor key."""
        environment = environment_of(self.home) | {"ZETAKV_SERVER": self.address}
        return subprocess.run(
            [ZETAKV, *arguments], input=data, capture_output=True, env=environment, timeout=60, check=False
        )
