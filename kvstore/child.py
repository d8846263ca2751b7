"""The common side of every child process: its arguments, its control connection, its end.

A child has no life of its own: when the control connection ends, for whatever reason, or cannot be made, the process
exits at once. So nothing is left behind when the supervisor is killed.
"""

import asyncio
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import uvloop

from kvstore.config import ChildConfig
from kvstore.framing import FrameProtocol
from kvstore.logs import configure_logging
from kvstore.messages import FromChild, Json
from kvstore.storage import StorageError

logger = logging.getLogger(__name__)

EXIT_ORPHANED: Final = 70
EXIT_FATAL: Final = 1

Handler = Callable[[int, bytes], None]


class Control:
    """The control connection of this process to its supervisor."""

    def __init__(self) -> None:
        self._ending = False
        self._protocol: FrameProtocol | None = None
        self._handler: Handler | None = None
        self.ended = asyncio.Event()

    async def connect(self, config: ChildConfig, handler: Handler) -> None:
        self._handler = handler
        loop = asyncio.get_running_loop()
        protocol = FrameProtocol(self._received, self._lost)
        try:
            await loop.create_unix_connection(lambda: protocol, str(config.control_socket))
        except OSError as error:
            self._lost(protocol, error)
        self._protocol = protocol
        self.send_json(FromChild.ATTACH, {"pid": os.getpid()})

    def send(self, kind: FromChild, *parts: bytes) -> None:
        assert self._protocol is not None, "nothing is sent before connect()"
        self._protocol.send(kind, *parts)

    def send_json(self, kind: FromChild, content: Json) -> None:
        self.send(kind, json.dumps(content).encode())

    def fatal(self, text: str) -> None:
        """Report what this process has found that keeps it from going on, as it would any other; and end it."""
        self.send(FromChild.FATAL, text.encode())
        self.end()

    def fault(self, text: str) -> None:
        """Report why this process cannot go on, where another one might, and end it."""
        self.send(FromChild.FAULT, text.encode())
        self.end()

    def end(self) -> None:
        """Let `run_child` return, after what is queued has been sent."""
        self._ending = True
        if self._protocol is not None:
            self._protocol.close()
        self.ended.set()

    def _received(self, _: FrameProtocol, kind: int, body: bytes) -> None:
        assert self._handler is not None
        try:
            self._handler(kind, body)
        except StorageError as error:
            self.fatal(str(error))
        except Exception as error:
            # A fault of this program: better a restart, with a clear reason, than a hang.
            logger.exception("unexpected fault")
            self.fault(f"unexpected fault: {error!r}")

    def _lost(self, _: FrameProtocol, error: Exception | None) -> None:
        if not self._ending:
            logger.error("the supervisor is gone%s", "" if error is None else f": {error}")
            os._exit(EXIT_ORPHANED)


def run_child(role: str, main: Callable[[ChildConfig, Control], Awaitable[None]]) -> None:
    """Entry of a child's module: `main` sets everything up and returns; the process lives until the control ends."""
    config = ChildConfig.from_json(sys.argv[1])
    # A connection is a file: the usual soft limit of 1,024 is a leftover of select(), which is not used here.
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    configure_logging(f"{role}-{config.index}" if role == "worker" else role)
    # Ctrl-C reaches the whole process group; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    async def run() -> None:
        control = Control()
        try:
            await main(config, control)
        except (StorageError, OSError) as error:
            control.fatal(str(error))
        except Exception as error:
            logger.exception("unexpected fault")
            control.fault(f"unexpected fault: {error!r}")
        await control.ended.wait()

    uvloop.run(run())
