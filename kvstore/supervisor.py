"""The supervisor: starts every process of a service in order, watches them, and ends them in order.

What the processes do together once they run is in `Service`. If a child ends by itself, the service ends: going on
without it is not tried here. A signal ends it cleanly, a second one at once.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kvstore import failpoints, limits
from kvstore.children import Child, Children, ServiceError
from kvstore.config import ChildConfig, ServeConfig
from kvstore.data_directory import bind_ports, http_token, locked_data_directory, runtime_directory
from kvstore.messages import EPOCH, Json, ToChild
from kvstore.monitor_control import MonitorControl, Started
from kvstore.monitor_link import MonitorLostError
from kvstore.service import Service
from kvstore.violation import IntegrityViolationError, Violation

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Ready:
    """What a started service tells its operator."""

    address: str
    http_address: str | None
    fingerprint: str | None
    workers: int
    open: bool


async def serve(config: ServeConfig, on_ready: Callable[[Ready], None]) -> Violation | None:
    """Run a service until a signal ends it; returns the violation if there was one.

    Raises ServiceError, and IntegrityViolationError if it cannot start because of one.
    """
    with locked_data_directory(config.data) as lock, runtime_directory(config.data) as runtime:
        supervisor = Supervisor(config, runtime, lock)
        try:
            await supervisor.start(on_ready)
            await supervisor.run()
            await supervisor.finish()
        finally:
            await supervisor.end()
        return supervisor.violation


class Supervisor:
    """Start, run, finish, end: called once each, in this order; `end` always."""

    def __init__(self, config: ServeConfig, runtime: Path, lock: int) -> None:
        """`lock`: descriptor of the data directory's lock."""
        self._config = config
        self._runtime = runtime
        self._lock = lock
        self._children = Children(
            on_message=lambda child, kind, body: self._running().child_message(child, kind, body),
            on_death=self.service_fault,
        )
        self._service: Service | None = None
        self._monitor: MonitorControl | None = None
        self._gateway: Child | None = None
        self._epochs: asyncio.Task[None] | None = None
        self._serving = False
        self._stop = asyncio.Event()
        self._all_quiet = asyncio.Event()
        # Set to the exception that ends the service.
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def violation(self) -> Violation | None:
        return None if self._service is None else self._service.violation

    # --- start ---

    async def start(self, on_ready: Callable[[Ready], None]) -> None:
        """Start everything, let clients in, and call `on_ready`. Raises ServiceError, IntegrityViolationError."""
        config = self._config
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        listeners = bind_ports(config.host, config.port, config.workers)
        address = _address_text(listeners[0])
        await self._children.listen(self._child_config().control_socket)
        checkpointer = await self._children.start(
            "kvstore.checkpointer", "checkpointer", self._child_config(), [self._lock]
        )
        workers = [await self._start_worker(index, listener) for index, listener in enumerate(listeners)]
        http_address = None if config.http_port is None else await self._start_gateway(config.http_port, address)
        service = self._service = Service(config, checkpointer, workers, self._gateway, self)

        opening = await self._or_fatal(checkpointer.ready())
        failpoints.hit("supervisor.before_monitor")
        started = await self._start_monitor(service, opening) if config.verified else None
        failpoints.hit("supervisor.before_workers")
        await self._begin_workers(service, workers, started, opening)
        failpoints.hit("supervisor.before_serving")
        for child in workers:
            child.send(ToChild.SERVE)
        await self._or_fatal(_all_ready(workers))
        self._serving = True
        self._epochs = asyncio.get_running_loop().create_task(service.run_epochs())
        fingerprint = None if started is None else started.fingerprint
        if self._gateway is not None:
            await self._or_fatal(self._gateway.attached.wait())
            self._gateway.send_json(ToChild.BEGIN, {"fingerprint": fingerprint})
            if started is not None and started.certificate:
                self._gateway.send(ToChild.CERTIFICATE, EPOCH.pack(started.epoch - 1), started.certificate)
            await self._or_fatal(self._gateway.ready())
        is_open = config.open if started is None else started.open
        on_ready(Ready(address, http_address, fingerprint, config.workers, is_open))

    async def _start_worker(self, index: int, listener: socket.socket) -> Child:
        with listener:
            config = self._child_config(index=index, listen_descriptor=listener.fileno())
            return await self._children.start("kvstore.worker", f"worker-{index}", config, [listener.fileno()])

    async def _start_gateway(self, port: int, address: str) -> str:
        http_token(self._config.http_token_path)
        (listener,) = bind_ports(self._config.host, port, 1)
        with listener:
            http_address = _address_text(listener)
            config = self._child_config(listen_descriptor=listener.fileno(), address=_reachable(address))
            self._gateway = await self._children.start("kvstore.gateway", "gateway", config, [listener.fileno()])
        return http_address

    async def _start_monitor(self, service: Service, opening: Json) -> Started:
        config = self._config
        if config.monitor is None:
            path = self._monitor_socket
            starting = self._children.start_monitor(
                path, config.monitor_state_path, open_mode=config.open, register=config.register
            )
            await self._or_fatal(starting)
        self._monitor = MonitorControl(service)
        sealed = bytes.fromhex(opening["sealed"])
        try:
            return await self._or_fatal(
                self._monitor.start(self._monitor_address, threads=config.workers, slots=config.slots, sealed=sealed)
            )
        except MonitorLostError as error:
            raise ServiceError(str(error)) from error

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
                await self._or_fatal(child.attached.wait())
                child.send_json(ToChild.BEGIN, begin)
            await self._or_fatal(_all_ready(group))

    @property
    def _monitor_socket(self) -> Path:
        return self._runtime / "monitor.sock"

    @property
    def _monitor_address(self) -> str:
        return self._config.monitor or f"unix:{self._monitor_socket}"

    def _child_config(self, *, index: int = 0, listen_descriptor: int = -1, address: str = "") -> ChildConfig:
        return ChildConfig(
            serve=self._config,
            runtime=self._runtime,
            index=index,
            listen_descriptor=listen_descriptor,
            address=address,
        )

    # --- run and end ---

    async def run(self) -> None:
        """Until a signal. Raises ServiceError if a child ends before."""
        await self._or_fatal(self._stop.wait(), seconds=None)

    async def finish(self) -> None:
        """Clean stop: let no one in, finish what is in flight, make one last checkpoint. Raises ServiceError."""
        logger.info("stopping: requests in flight, then the last checkpoint; a second signal stops at once")
        service = self._running()
        if self._gateway is not None:
            await self._children.end([self._gateway])
        service.quiesce()
        try:
            await self._or_fatal(self._all_quiet.wait(), limits.QUIET_SECONDS)
        except TimeoutError:
            logger.warning("some requests are still unanswered: they are given up")
        try:
            await self._or_fatal(service.last_cut(), limits.LAST_CUT_SECONDS)
        except TimeoutError as error:
            reason = f": {service.trouble}" if service.trouble else ""
            raise ServiceError(
                f"the last checkpoint did not finish{reason}: what was not certified may be lost"
            ) from error

    async def end(self) -> None:
        """End whatever runs."""
        if self._epochs is not None:
            self._epochs.cancel()
        if self._service is not None:
            self._service.close()
        if self._monitor is not None:
            self._monitor.close()
        await self._children.end_all()
        if self._fatal.done():
            self._fatal.exception()  # seen: it may be the consequence of an error that is reported already

    # --- what happens (ServiceEvents) ---

    def monitor_lost(self, text: str) -> None:
        # If a child has ended, its name explains more: the monitor ends, or gives up, when one is gone.
        asyncio.get_running_loop().call_later(limits.LOST_SECONDS, self.service_fault, text)

    def service_fault(self, text: str) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(ServiceError(text))

    def service_violated(self, violation: Violation) -> None:
        # A service that serves stays up, to report it; one that has not started cannot start.
        if not self._serving and not self._fatal.done():
            self._fatal.set_exception(IntegrityViolationError(violation.name, violation.details()))

    def service_quiet(self) -> None:
        self._all_quiet.set()

    def _signalled(self) -> None:
        if self._stop.is_set() or not self._serving:
            self._children.kill_all()
            self.service_fault("stopped at once: what was not certified may be lost")
        self._stop.set()

    def _running(self) -> Service:
        assert self._service is not None, "children speak only after they are asked to"
        return self._service

    async def _or_fatal(self, step: Awaitable[_Result], seconds: float | None = limits.START_SECONDS) -> _Result:
        """The step's result. Raises what ends the service meanwhile, or TimeoutError."""
        task = asyncio.ensure_future(step)
        watched: set[asyncio.Future[Any]] = {task, self._fatal}
        done, _ = await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        task.cancel()
        if self._fatal in done:
            self._fatal.result()
        raise TimeoutError("a process of the service did not become ready in time")


async def _all_ready(children: list[Child]) -> list[Json]:
    return await asyncio.gather(*(child.ready() for child in children))


def _reachable(address: str) -> str:
    """The same port on this machine, where the service listens on all interfaces."""
    return address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")


def _address_text(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
