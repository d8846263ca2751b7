"""`zetakv serve`: from its options to a running service, and its end as an exit code."""

import contextlib

import typer
import uvloop

from kvstore.children import ServiceError
from kvstore.cli_connect import EXIT_CRASH_LOOP, EXIT_VIOLATION, fail, say
from kvstore.config import ServeConfig
from kvstore.local import server_record
from kvstore.logs import configure_logging
from kvstore.restarts import CrashLoopError
from kvstore.storage import StorageError
from kvstore.supervisor import Ready, serve
from kvstore.violation import IntegrityViolationError
from kvstore.wal.format import DamagedLogError

_OPEN_WARNING = (
    "WARNING: --open: anyone who can reach this server may read and write every record, without a key. "
    "Answers are still verified; who gives the orders is not."
)
_UNVERIFIED_WARNING = "WARNING: --unverified: without a monitor nothing is checked; clients must believe what it says."


def run_service(config: ServeConfig) -> None:
    """Serve until a signal; exits with 1 on an error, 3 after an integrity violation, 4 after a crash loop."""
    configure_logging("supervisor")
    if config.open and config.verified:
        say(_OPEN_WARNING)
    if not config.verified:
        say(_UNVERIFIED_WARNING)
    with contextlib.ExitStack() as stack:

        def on_ready(ready: Ready) -> None:
            stack.enter_context(server_record(config, ready))
            print(ready_line(ready), flush=True)

        try:
            violation = uvloop.run(serve(config, on_ready))
        except (ServiceError, StorageError, DamagedLogError, IntegrityViolationError, TimeoutError, OSError) as error:
            fail(error)
        except CrashLoopError as error:
            say(f"error: {error}")
            raise typer.Exit(EXIT_CRASH_LOOP) from None
    if violation is not None:
        say(f"INTEGRITY VIOLATION {violation.summary()}")
        raise typer.Exit(EXIT_VIOLATION)


def ready_line(ready: Ready) -> str:
    """The one line that says that a service is ready, and with which monitor."""
    monitor = "unverified" if ready.fingerprint is None else f"monitor {ready.fingerprint}"
    workers = f"{ready.workers} worker{'s' if ready.workers > 1 else ''}"
    http = "" if ready.http_address is None else f"http {ready.http_address}, "
    return f"ready: {ready.address} {monitor} ({http}{workers})"
