"""The supervisor: starts the service, starts it again when a process of it has died, and ends it.

It owns what outlives a `Run`: the listening sockets, so that clients that come back during a restart wait instead of
being refused, the gateway, the lock of the data directory, and the signals. A signal ends the service cleanly, a
second one at once. What no restart can mend ends it too: a violation, a start that would fail again, a crash loop.
"""

import asyncio
import dataclasses
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kvstore import limits
from kvstore.children import Children, ServiceError
from kvstore.config import DURABILITY_WAL, ChildConfig, ConfigError, ServeConfig
from kvstore.data_directory import (
    address_text,
    bind_ports,
    locked_data_directory,
    refuse_unfinished_restore,
    runtime_directory,
)
from kvstore.directories import make_directory
from kvstore.gateway_keeper import GatewayKeeper
from kvstore.messages import Json
from kvstore.monitor_control import Started
from kvstore.restarts import Restarts
from kvstore.run import Run, RunEndedError
from kvstore.violation import IntegrityViolationError, Violation
from kvstore.waiting_port import WaitingPort
from kvstore.wal.files import left_over_threads, remove, segments, streams

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """What a started service tells its operator."""

    address: str
    http_address: str | None
    fingerprint: str | None
    workers: int
    open: bool


class StoppedError(Exception):
    """A signal ended the service while it did not serve."""


async def serve(config: ServeConfig, on_ready: Callable[[Ready], None]) -> Violation | None:
    """Run a service until a signal ends it; returns the violation if there was one.

    Raises ServiceError, CrashLoopError, and IntegrityViolationError if it cannot start because of one.
    """
    with locked_data_directory(config.data) as lock, runtime_directory(config.data) as runtime:
        refuse_unfinished_restore(config.data)
        try:
            await _finish_left_over_log(config, runtime, lock)
        except StoppedError as error:
            logger.info("%s", error)
            return None
        supervisor = Supervisor(config, runtime, lock)
        try:
            return await supervisor.run(on_ready)
        finally:
            await supervisor.end()


async def _finish_left_over_log(config: ServeConfig, runtime: Path, lock: int) -> None:
    """Certify what is in a write-ahead log that this service cannot go on with: of another number of workers, or where
    it keeps none. For that a service that can is run, until its last checkpoint.

    Raises as `serve`, and StoppedError: then the log is as it was, or longer.
    """
    threads = left_over_threads(config.log_path)
    if config.has_log:
        make_directory(config.log_path)
    if threads is None or (config.has_log and threads == config.workers):
        return
    logger.info("a write-ahead log of %d workers was left behind: it is replayed and certified first", threads)
    try:
        log_config = dataclasses.replace(
            config, host="127.0.0.1", port=0, http_port=None, workers=threads, durability=DURABILITY_WAL
        )
    except ConfigError as error:
        raise ServiceError(
            f"a write-ahead log of {threads} workers was left behind, and must be replayed first: {error}. Start once "
            f"with --workers {threads} --durability {DURABILITY_WAL}"
        ) from error
    supervisor = Supervisor(log_config, runtime, lock)
    try:
        violation = await supervisor.run(lambda _ready: supervisor.stop())
    finally:
        await supervisor.end()
    if violation is not None:
        raise IntegrityViolationError(violation.name, violation.details())
    if not supervisor.has_finished:
        raise StoppedError("stopped before the write-ahead log that was left behind was certified: it is kept")
    for stream in streams(config.log_path):
        remove(config.log_path, segments(config.log_path, stream))
    if supervisor.signals:
        raise StoppedError("stopped when the write-ahead log that was left behind had been certified")


class Supervisor:
    """`run` once, then `end`."""

    def __init__(self, config: ServeConfig, runtime: Path, lock: int) -> None:
        """`lock`: descriptor of the data directory's lock."""
        self._config = config
        self._runtime = runtime
        self._lock = lock
        self._children = Children()
        self._restarts = Restarts()
        self._stop = asyncio.Event()
        self._serving = False
        self._was_ready = False
        self.signals = 0
        """How many have asked for the end."""
        self.has_finished = False
        """Whether it has ended with the last checkpoint of a clean stop."""
        self._waits_for: str | None = None
        self._silence: asyncio.TimerHandle | None = None
        # Set by `run`.
        self._listeners: list[socket.socket] = []
        self._address = ""
        self._run: Run | None = None
        self._gateway: GatewayKeeper | None = None
        self._waiting_port: WaitingPort

    async def run(self, on_ready: Callable[[Ready], None]) -> Violation | None:
        """One run after the other, until there should be no other. Returns and raises as `serve`."""
        config = self._config
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        self._listeners = bind_ports(config.host, config.port, config.workers)
        self._address = address_text(self._listeners[0])
        self._waiting_port = WaitingPort(config, self.status)
        await self._children.listen(ChildConfig(serve=config, runtime=self._runtime).control_socket)
        if config.http_port is not None:
            self._gateway = GatewayKeeper(
                config, self._runtime, self._lock, self._children, self._address, self, self._restarts
            )
            await self._gateway.start_process()
        while not self._stop.is_set():
            run = self._run = Run(
                config, self._runtime, self._lock, self._children, self._listeners, self._restarts, self
            )
            cleanly = False
            try:
                await self._one_run(run, on_ready)
                cleanly = True
                return run.violation
            except StoppedError:
                break
            except RunEndedError as error:
                self._after_crash(run, str(error))
                if run.violation is not None:
                    return run.violation
            finally:
                self._serving = False
                await run.end(cleanly=cleanly)
        logger.info("stopped while it did not serve")
        return None

    def stop(self) -> None:
        """Stop cleanly, once it serves."""
        self._stop.set()

    async def _one_run(self, run: Run, on_ready: Callable[[Ready], None]) -> None:
        started = await run.start()
        self._now_serving()
        if self._gateway is not None:
            await self._gateway.begin(started)
        if not self._was_ready:
            self._was_ready = True
            on_ready(self._ready(started))
        await run.until(self._stop)
        logger.info("stopping: requests in flight, then the last checkpoint; a second signal stops at once")
        if self._gateway is not None:
            await self._gateway.end()
        self._close_listeners()
        await run.finish()
        self.has_finished = True

    def _now_serving(self) -> None:
        self._serving = True
        if self._silence is not None:
            self._silence.cancel()
        self._waiting_port.close()
        if self._restarts.count:
            logger.info("serving again, after restart %d", self._restarts.count)

    def _after_crash(self, run: Run, reason: str) -> None:
        """Raises CrashLoopError, ServiceError."""
        loop = asyncio.get_running_loop()
        if run.violation is not None:
            logger.critical("%s; after a violation nothing is restarted", reason)
        elif self._stop.is_set():
            raise ServiceError(f"{reason}, while the service was stopping: what was not certified may be lost")
        else:
            self._restarts.add(reason, loop.time())
            fate = "replayed from the write-ahead log" if self._config.has_log else "lost"
            logger.error("%s: restarting from the last checkpoint; what was not certified is %s", reason, fate)
            if self._serving:
                self._silence = loop.call_later(limits.SILENCE_SECONDS, self._waiting_port.open, self._listeners)

    def _ready(self, started: Started | None) -> Ready:
        return Ready(
            address=self._address,
            http_address=None if self._gateway is None else self._gateway.http_address,
            fingerprint=None if started is None else started.fingerprint,
            workers=self._config.workers,
            open=self._config.open if started is None else started.open,
        )

    async def end(self) -> None:
        """End whatever is left."""
        if self._silence is not None:
            self._silence.cancel()
        self._close_listeners()
        if self._gateway is not None:
            await self._gateway.end()
        await self._children.close()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _signalled(self) -> None:
        self.signals += 1
        if self._run is not None and self.signals > 1:
            self._children.kill_all()
            self._run.abandon(ServiceError("stopped at once: what was not certified may be lost"))
        elif self._run is not None and not self._serving:
            self._run.abandon(StoppedError())
        self._stop.set()

    # --- what is asked ---

    async def status(self) -> Json:
        """What `zetakv status` shows."""
        status = None if self._run is None or not self._serving else await self._run.status()
        return status or {
            "state": "restarting" if self._restarts.count else "starting",
            "violation": None,
            "waits_for": self._waits_for,
            **self._restarts.to_json(),
            "workers": [],
        }

    # --- what happens (RunEvents) ---

    def run_certified(self, epoch: int, certificate: bytes) -> None:
        self._restarts.certified()
        if certificate and self._gateway is not None:
            self._gateway.certificate(epoch, certificate)

    def run_violated(self, violation: Violation) -> None:
        if self._gateway is not None:
            self._gateway.violation(violation)

    def run_waits(self, text: str | None) -> None:
        self._waits_for = text
