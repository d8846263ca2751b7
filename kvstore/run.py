"""One run of the service: monitor, checkpointer and workers, from the last checkpoint on until one of them ends.

They begin together and end together. The prover of a worker mirrors its verifier thread, and a verifier thread holds
what no disk has, so when one of the two is lost nothing of the incarnation can go on; the next run starts a new one.
What outlives a run (listening sockets, gateway, data directory) belongs to the supervisor.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kvstore import failpoints, limits
from kvstore.children import Child, Children, ServiceError
from kvstore.config import ChildConfig, ServeConfig
from kvstore.messages import Json, ToChild
from kvstore.monitor_control import MonitorControl, Started
from kvstore.monitor_link import MonitorLostError
from kvstore.restarts import Pauses, Restarts
from kvstore.service import Service
from kvstore.violation import IntegrityViolationError, Violation

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class RunEndedError(Exception):
    """A process of the run is gone. Another run may do better."""


class RunEvents(Protocol):
    """What a run tells its supervisor."""

    def run_certified(self, epoch: int, certificate: bytes) -> None:
        """The epoch is durable and, with a monitor, certified."""

    def run_violated(self, violation: Violation) -> None:
        """A run that serves has met a violation, and stays up to report it."""

    def run_waits(self, text: str | None) -> None:
        """What the start waits for, or None when it goes on."""


class Run:
    """`start`, then `until` there is reason for a clean stop, then `finish`; `end` always, and last."""

    def __init__(
        self,
        config: ServeConfig,
        runtime: Path,
        lock: int,
        children: Children,
        listeners: Sequence[socket.socket],
        restarts: Restarts,
        events: RunEvents,
    ) -> None:
        """`lock`: descriptor of the data directory's lock, held by every process that uses the directory or a port."""
        self._config = config
        self._runtime = runtime
        self._lock = lock
        self._children = children
        self._listeners = listeners
        self._restarts = restarts
        self._events = events
        self._checkpointer: Child | None = None
        self._others: list[Child] = []
        self._service: Service | None = None
        self._monitor: MonitorControl | None = None
        self._epochs: asyncio.Task[None] | None = None
        self._serving = False
        self._ending = False
        self._all_quiet = asyncio.Event()
        # Set to the exception that ends the run.
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def violation(self) -> Violation | None:
        """For ever: no run may follow."""
        return None if self._service is None else self._service.violation or self._service.finding

    async def status(self) -> Json | None:
        """None while it does not serve."""
        return await self._service.status() if self._service is not None and self._serving else None

    # --- start ---

    async def start(self) -> Started | None:
        """Start everything and let clients in; returns what the monitor says, if there is one.

        Raises RunEndedError, and if another attempt would end the same: ServiceError, IntegrityViolationError.
        """
        config = self._config
        checkpointer = self._checkpointer = await self._start_child("checkpointer", self._child_config())
        monitor = None
        if config.verified and config.monitor is None:
            monitor = await self._children.start_monitor(
                self,
                self._monitor_socket,
                config.monitor_state_path,
                open_mode=config.open,
                register=config.register,
            )
            self._others.append(monitor)
        workers = [await self._start_worker(index, listener) for index, listener in enumerate(self._listeners)]
        service = self._service = Service(config, checkpointer, workers, self._restarts, self)

        opening = await self._or_over(checkpointer.ready())
        if monitor is not None:
            await self._or_over(monitor.ready())
        failpoints.hit("supervisor.before_monitor")
        started = await self._start_monitor(service, opening) if config.verified else None
        failpoints.hit("supervisor.before_workers")
        await self._begin_workers(service, workers, started, opening)
        await self._go_live(service)
        failpoints.hit("supervisor.before_serving")
        for child in workers:
            child.send(ToChild.SERVE)
        await self._or_over(_all_ready(workers))
        self._serving = True
        self._epochs = asyncio.get_running_loop().create_task(service.run_epochs())
        self._epochs.add_done_callback(self._epochs_ended)
        return started

    async def _start_child(self, name: str, config: ChildConfig, *descriptors: int) -> Child:
        module = f"kvstore.{name.partition('-')[0]}"
        return await self._children.start(self, module, name, config, [self._lock, *descriptors])

    async def _start_worker(self, index: int, listener: socket.socket) -> Child:
        descriptor = listener.fileno()
        config = self._child_config(index=index, listen_descriptor=descriptor)
        worker = await self._start_child(f"worker-{index}", config, descriptor)
        self._others.append(worker)
        return worker

    async def _start_monitor(self, service: Service, opening: Json) -> Started:
        """Start an incarnation. After a restart, a monitor that runs apart is waited for as long as it takes."""
        pauses = Pauses()
        while True:
            try:
                started = await self._ask_monitor(service, bytes.fromhex(opening["sealed"]))
            except MonitorLostError as error:
                if self._config.monitor is None:
                    raise RunEndedError(str(error)) from error
                if not self._restarts.count:
                    raise ServiceError(str(error)) from error
                pause = pauses.next()
                logger.warning("%s; tried again in %.1f s", error, pause)
                self._events.run_waits(str(error))
                await self._or_over(asyncio.sleep(pause))
            else:
                self._events.run_waits(None)
                return started

    async def _go_live(self, service: Service) -> None:
        try:
            await self._or_over(service.go_live())
        except MonitorLostError as error:
            await self._or_over(asyncio.sleep(limits.LOST_SECONDS))  # the end of another process explains more
            raise RunEndedError(str(error)) from error

    async def _ask_monitor(self, service: Service, sealed: bytes) -> Started:
        config, monitor = self._config, MonitorControl(service)
        start = monitor.start(
            self._monitor_address,
            threads=config.workers,
            slots=config.memory.slots,
            has_log=config.has_log,
            sealed=sealed,
        )
        try:
            started = await self._or_over(
                start, limits.MONITOR_START_SECONDS if config.monitor else limits.START_SECONDS
            )
        except TimeoutError as error:
            raise MonitorLostError(f"the monitor at {self._monitor_address} does not answer") from error
        except MonitorLostError:
            if config.monitor is None:
                await self._or_over(asyncio.sleep(limits.LOST_SECONDS))  # its end, if that is why, explains more
            raise
        else:
            self._monitor = monitor
            return started
        finally:
            if self._monitor is None:
                monitor.close()

    async def _begin_workers(
        self, service: Service, workers: list[Child], started: Started | None, opening: Json
    ) -> None:
        meta: Json | None = opening["meta"]
        after_checkpoint = 1 if meta is None else meta["epoch"] + 1
        first_epoch = after_checkpoint if started is None else started.epoch
        begin = service.begin(first_epoch, self._monitor, started) | {
            "monitor": self._monitor_address,
            "fresh": meta is None,
            "previous_threads": self._config.workers if meta is None else meta["threads"],
        }
        # In a new store the first worker writes the top of the tree, on which the others build.
        first = 1 if meta is None else len(workers)
        for group in (workers[:first], workers[first:]):
            for child in group:
                await self._or_over(child.attached.wait())
                child.send_json(ToChild.BEGIN, begin)
            # A replay takes as long as the write-ahead log is; a worker that ends meanwhile is noticed all the same.
            seconds = None if self._config.has_log else limits.START_SECONDS
            await self._or_over(_all_ready(group), seconds)

    @property
    def _monitor_socket(self) -> Path:
        return self._runtime / "monitor.sock"

    @property
    def _monitor_address(self) -> str:
        return self._config.monitor or f"unix:{self._monitor_socket}"

    def _child_config(self, *, index: int = 0, listen_descriptor: int = -1) -> ChildConfig:
        return ChildConfig(serve=self._config, runtime=self._runtime, index=index, listen_descriptor=listen_descriptor)

    # --- until the end ---

    async def until(self, event: asyncio.Event) -> None:
        """Serve until the event. Raises RunEndedError if a process ends before."""
        await self._or_over(event.wait(), seconds=None)

    def abandon(self, error: Exception) -> None:
        """Whatever waits for the run, or for its start, raises this."""
        self._end_with(error)

    async def finish(self) -> None:
        """Clean stop: let no one in, finish what is in flight, make one last checkpoint. Raises ServiceError."""
        assert self._service is not None, "only a run that serves is finished"
        self._service.quiesce()
        try:
            await self._or_over(self._all_quiet.wait(), limits.QUIET_SECONDS)
        except TimeoutError:
            logger.warning("some requests are still unanswered: they are given up")
        try:
            await self._or_over(self._service.last_cut(), limits.LAST_CUT_SECONDS)
        except TimeoutError as error:
            reason = f" ({self._service.trouble})" if self._service.trouble else ""
            raise ServiceError(f"the last checkpoint did not finish{reason}: what was not certified is lost") from error

    async def end(self, *, cleanly: bool) -> None:
        """End whatever runs. After a crash only the checkpointer is let finish: it may be writing what is complete."""
        self._ending = True
        if self._epochs is not None:
            self._epochs.cancel()
        if self._service is not None:
            self._service.close()
        if self._monitor is not None:
            self._monitor.close()
        if not cleanly:
            for child in self._others:
                child.kill()
        await self._children.end(self._others + ([] if self._checkpointer is None else [self._checkpointer]))
        if self._over.done():
            self._over.exception()  # seen: it may be the consequence of an error that is reported already

    # --- what happens (ServiceEvents, ChildOwner) ---

    def child_message(self, child: Child, kind: int, body: bytes) -> None:
        if not self._ending:
            assert self._service is not None, "children speak only after they are asked to"
            self._service.child_message(child, kind, body)

    def child_ended(self, child: Child, text: str, *, explained: bool) -> None:
        self._end_with(ServiceError(text) if explained and not self._serving else RunEndedError(text))

    def monitor_lost(self, text: str) -> None:
        # If a child has ended, its name explains more: the monitor ends, or gives up, when one is gone.
        asyncio.get_running_loop().call_later(limits.LOST_SECONDS, self.service_fault, text)

    def service_fault(self, text: str) -> None:
        self._end_with(RunEndedError(text))

    def _epochs_ended(self, epochs: asyncio.Task[None]) -> None:
        # A fault of this program: a service that certifies nothing any more is worse than one that starts again.
        if not epochs.cancelled() and (error := epochs.exception()) is not None:
            logger.error("unexpected fault", exc_info=error)
            self.service_fault(f"supervisor: unexpected fault: {error!r}")

    def service_violated(self, violation: Violation) -> None:
        # A service that serves stays up, to report it; one that has not started cannot start.
        if self._serving:
            self._events.run_violated(violation)
        else:
            self._end_with(IntegrityViolationError(violation.name, violation.details()))

    def service_certified(self, epoch: int, certificate: bytes) -> None:
        self._events.run_certified(epoch, certificate)

    def service_quiet(self) -> None:
        self._all_quiet.set()

    def _end_with(self, error: Exception) -> None:
        if not self._over.done() and not self._ending:
            self._over.set_exception(error)

    async def _or_over(self, step: Awaitable[_Result], seconds: float | None = limits.START_SECONDS) -> _Result:
        """The step's result. Raises what ends the run meanwhile, or TimeoutError."""
        task = asyncio.ensure_future(step)
        watched: set[asyncio.Future[Any]] = {task, self._over}
        try:
            done, _ = await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task in done:
            return task.result()
        task.cancel()
        if self._over in done:
            self._over.result()
        raise TimeoutError("a process of the service did not become ready in time")


async def _all_ready(children: list[Child]) -> list[Json]:
    return await asyncio.gather(*(child.ready() for child in children))
