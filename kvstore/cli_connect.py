"""What the client commands of `zetakv` share: their options, the connection, and what becomes of errors.

Exit codes: 0 done, 1 an error or no such key, 2 wrong usage, 3 an integrity violation, named on stderr;
of a server also 4, a crash loop.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from kvstore_client import KV, IntegrityError, KVStoreError, RefusedError, ViolationError, connect

from kvstore.cli_status import NoStatusError
from kvstore.config import PORT_DEFAULT
from kvstore.local import state_directory
from kvstore.messages import ErrorCode
from kvstore.violation import IntegrityViolationError

EXIT_ERROR: Final = 1
EXIT_VIOLATION: Final = 3
EXIT_CRASH_LOOP: Final = 4

ServerOption = Annotated[str, typer.Option("--server", help="Address of the server.", envvar="ZETAKV_SERVER")]
MonitorOption = Annotated[
    str | None,
    typer.Option("--monitor", help="Fingerprint of the monitor; not needed for your own server on this machine."),
]
KeyOption = Annotated[Path | None, typer.Option("--key", help="File of this client's key.")]
UnverifiedOption = Annotated[bool, typer.Option("--unverified", help="Believe a server without a monitor.")]
CertifiedOption = Annotated[bool, typer.Option("--certified", help="Wait until the monitor has certified the answer.")]
SERVER_DEFAULT: Final = f"127.0.0.1:{PORT_DEFAULT}"


@dataclass(frozen=True)
class Target:
    """Which server, and how far it is trusted."""

    server: str
    monitor: str | None
    key: Path | None
    unverified: bool = False
    accept_override: str | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[KV]:
        state = None if self.unverified else state_directory()
        async with connect(
            self.server,
            monitor=self.monitor,
            key=self.key,
            state=state,
            unverified=self.unverified,
            accept_override=self.accept_override,
        ) as kv:
            yield kv


def run(command: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a command of a client; its errors become one line on stderr and an exit code, never a traceback."""
    with errors_reported():
        asyncio.run(command())


@contextmanager
def errors_reported(evidence: Path | None = None) -> Iterator[None]:
    """Errors become one line on stderr and an exit code. `evidence`: a file for what proves an integrity violation."""
    try:
        yield
    except (KVStoreError, NoStatusError, ValueError, OSError) as error:
        if evidence is not None and isinstance(error, IntegrityError):
            write_evidence(evidence, error)
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: Exception) -> NoReturn:
    """Report an error and exit."""
    match error:
        case ViolationError():
            say(f"INTEGRITY VIOLATION {error.violation.name}: {error}")
            raise typer.Exit(EXIT_VIOLATION)
        case IntegrityError():
            say(f"INTEGRITY VIOLATION {type(error).__name__}: {error}")
            raise typer.Exit(EXIT_VIOLATION)
        case RefusedError(code=ErrorCode.MONITOR_FAILED):
            # Found by the host itself, in its store: nobody signed it, but no honest disk does this either.
            say(f"INTEGRITY VIOLATION {error}")
            raise typer.Exit(EXIT_VIOLATION)
        case IntegrityViolationError():
            say(f"INTEGRITY VIOLATION {error}")
            raise typer.Exit(EXIT_VIOLATION)
        case _:
            say(f"error: {error}")
            raise typer.Exit(EXIT_ERROR)


def write_evidence(path: Path, error: IntegrityError) -> None:
    """What proves a violation, as JSON: raw bytes in hex, by name."""
    content = {
        "error": type(error).__name__,
        "message": str(error),
        "evidence": {name: data.hex() for name, data in error.evidence.items()},
    }
    try:
        path.write_text(json.dumps(content, indent=2) + "\n")
        say(f"the evidence is in {path}")
    except OSError as failure:
        # The violation itself must be told in any case.
        say(f"the evidence cannot be written to {path}: {failure.strerror}")


def say(text: str) -> None:
    """To the person at the terminal; standard output is for data."""
    print(text, file=sys.stderr, flush=True)
