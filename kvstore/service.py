"""A running service, as its supervisor sees it: the open epoch, the violation if there is one, answers to clients.

It proves nothing and reads no record. Once there is a violation, no epoch is cut any more, and the service only
reports; a violation is for ever.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Final, Protocol

from kvstore import failpoints, findings, limits
from kvstore.children import Child
from kvstore.client_port import error_frame
from kvstore.config import ServeConfig
from kvstore.epochs import Acknowledge, Action, Cut, Epochs, Finish, OutOfTurnError, Phase, Release, Store
from kvstore.framing import pack_frame
from kvstore.messages import CUT, EPOCH, SESSION, STORE, TOKEN, Client, ErrorCode, FromChild, Json, Server, ToChild
from kvstore.monitor_control import MonitorControl, Started
from kvstore.overrides import override_json
from kvstore.restarts import Restarts
from kvstore.sessions import Sessions
from kvstore.troubles import Troubles
from kvstore.violation import Violation
from kvstore.wal.tickets import Tickets

logger = logging.getLogger(__name__)

_STATS_SECONDS: Final = 2.0
_FINDINGS_SECONDS: Final = 1.0
"""How long a violation waits for what the workers can add: most have it at once, and nothing is certified meanwhile."""
_REGISTER: Final = "register"
_TICKETS: Final = "tickets"


class ServiceEvents(Protocol):
    """What a service tells its supervisor."""

    def service_fault(self, text: str) -> None:
        """The service cannot go on, for a reason that is no violation."""

    def monitor_lost(self, text: str) -> None:
        """The monitor is gone, without a violation."""

    def service_violated(self, violation: Violation) -> None: ...
    def service_certified(self, epoch: int, certificate: bytes) -> None:
        """The epoch is durable and, with a monitor, certified."""

    def service_quiet(self) -> None:
        """Every worker has answered what was in flight."""


class Service:
    """Reacts to the messages of workers, checkpointer and monitor. The children are started already."""

    def __init__(
        self,
        config: ServeConfig,
        checkpointer: Child,
        workers: Sequence[Child],
        restarts: Restarts,
        events: ServiceEvents,
    ) -> None:
        self.violation: Violation | None = None
        self.finding: Violation | None = None
        """What a worker has found, while the monitor's own finding is waited for."""
        self._config = config
        self._checkpointer = checkpointer
        self._workers = workers
        self._restarts = restarts
        self._events = events
        self._monitor: MonitorControl | None = None
        self._started: Started | None = None
        self._troubles = Troubles()
        self._epochs = Epochs(open_epoch=1, workers=config.workers, verified=config.verified, certificate=b"")
        self._sessions = Sessions()
        self._tickets: Tickets | None = None
        self._progress = asyncio.Event()
        self._urgent = False
        # Not before all workers serve: no epoch may be closed in the middle of a replay.
        self._takes_cuts = False
        self._stopping = False
        self._quiet: set[str] = set()
        self._asked: dict[tuple[str, int], asyncio.Future[Json]] = {}
        self._tokens = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life ---

    def begin(self, first_epoch: int, monitor: MonitorControl | None, started: Started | None) -> Json:
        """The monitor has started, if there is one. Returns what the workers need to know of it."""
        config = self._config
        self._monitor, self._started = monitor, started
        certificate = b"" if started is None else started.certificate
        self._epochs = Epochs(
            open_epoch=first_epoch, workers=config.workers, verified=config.verified, certificate=certificate
        )
        if config.has_log:
            self._tickets = Tickets(
                config.log_path, config.workers, first_epoch, lambda text: self._set_trouble(_TICKETS, text)
            )
            if self._tickets.former:
                self._epochs.active(first_epoch)  # else they would pile up, from start to start
        incarnation = b"" if started is None else started.incarnation
        return {"epoch": first_epoch, "certificate": certificate.hex(), "incarnation": incarnation.hex()}

    async def go_live(self) -> None:
        """The workers have replayed their logs: from now on sessions may be opened. Raises MonitorLostError."""
        if self._tickets is not None:
            assert self._monitor is not None, "only a verified service has tickets"
            failpoints.hit("supervisor.before_live")
            await self._monitor.go_live(self._tickets.former)

    async def run_epochs(self) -> None:
        """Cut the epoch every `epoch_ms`, if something waits for it. Runs until cancelled."""
        interval = self._config.epoch_ms / 1_000
        loop = asyncio.get_running_loop()
        due = loop.time()
        self._takes_cuts = True
        if self._urgent:
            self._urgent = False
            self._cut()
        while True:
            due = max(due + interval, loop.time())
            await asyncio.sleep(due - loop.time())
            self._give_up_sessions()
            if self._epochs.cut_is_due:
                self._cut()

    def quiesce(self) -> None:
        """Let no one in any more; `service_quiet` follows."""
        for child in self._workers:
            child.send(ToChild.QUIESCE)

    async def last_cut(self) -> None:
        """Finish the cut that is on its way, then make the one of a clean stop; nothing to do if nothing changed.

        Raises TimeoutError if the store takes nothing.
        """
        self._stopping = True
        await self._until(lambda: self._epochs.phase is Phase.OPEN)
        if self.violation is None and self._epochs.changed_since_start:
            epoch = self._epochs.open_epoch
            self._act(self._epochs.cut(all_to_merkle=True))
            await self._until(lambda: self._epochs.certified_epoch == self._epochs.applied_epoch == epoch)

    def close(self) -> None:
        if self._tickets is not None:
            self._tickets.close()
        for task in self._tasks:
            task.cancel()

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached() and self.violation is None:
            self._progress.clear()
            async with asyncio.timeout(limits.LAST_TRIES_SECONDS if self.trouble else None):
                await self._progress.wait()

    # --- epochs ---

    def _cut(self) -> None:
        if self.violation is None and self._takes_cuts and not self._stopping and self._epochs.phase is Phase.OPEN:
            self._act(self._epochs.cut())

    def _cut_soon(self, epoch: int) -> None:
        """Not only when the time has come; and once more, if a cut is on its way."""
        self._epochs.active(epoch)
        self._urgent = not self._takes_cuts or self._epochs.phase is not Phase.OPEN
        self._cut()

    def _step(self, step: Callable[[], list[Action]]) -> None:
        if self.violation is not None:
            return
        try:
            self._act(step())
        except OutOfTurnError as error:
            self._events.service_fault(f"unexpected fault: {error}")

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Cut(epoch, all_to_merkle):
                    failpoints.hit("supervisor.before_cut")
                    for child in self._workers:
                        child.send(ToChild.CUT, CUT.pack(epoch, all_to_merkle))
                case Store(epoch, sealed, former):
                    failpoints.hit("supervisor.before_store")
                    self._checkpointer.send(ToChild.STORE, STORE.pack(epoch, len(former)), former, sealed)
                case Acknowledge(epoch):
                    assert self._monitor is not None, "only a verified service waits for a certificate"
                    failpoints.hit("supervisor.before_acknowledge")
                    self._monitor.durable(epoch)
                case Finish(epoch, certificate):
                    failpoints.hit("supervisor.after_certificate")
                    self._finish(epoch, certificate)
                case Release(epoch):
                    for child in self._workers:
                        child.send(ToChild.APPLIED, EPOCH.pack(epoch))
                    self._progress.set()

    def _finish(self, epoch: int, certificate: bytes) -> None:
        for child in self._workers:
            child.send(ToChild.DURABLE, EPOCH.pack(epoch))
            if certificate:
                child.send(ToChild.CERTIFICATE, EPOCH.pack(epoch), certificate)
        self._events.service_certified(epoch, certificate)
        if self._tickets is not None:
            self._tickets.certified(epoch)
        self._progress.set()
        if self._urgent:
            self._urgent = False
            self._cut()

    # --- the monitor (MonitorEvents) ---

    def monitor_sealed(self, epoch: int, state: bytes) -> None:
        self._step(lambda: self._epochs.sealed(epoch, state))

    def monitor_not_committed(self, epoch: int, text: str) -> None:
        self._set_trouble(_REGISTER, text)
        asyncio.get_running_loop().call_later(limits.RETRY_DISK_SECONDS, self._acknowledge_again, epoch)

    def _acknowledge_again(self, epoch: int) -> None:
        if self.violation is None and self._monitor is not None:
            self._monitor.durable(epoch)

    def monitor_certified(self, epoch: int, certificate: bytes) -> None:
        self._set_trouble(_REGISTER, "")
        self._step(lambda: self._epochs.certified(epoch, certificate))

    def monitor_changed(self) -> None:
        self._epochs.active(self._epochs.open_epoch + 1)

    def monitor_session(self, session: int) -> None:
        self._sessions.found(session)
        self._give_up_sessions()

    def monitor_ticket(self, ticket: bytes, then: Callable[[], None]) -> None:
        assert self._tickets is not None, "there are none without a write-ahead log"
        if self._tickets.keep(self._epochs.open_epoch, ticket, then):
            self._cut_soon(self._epochs.open_epoch)

    def monitor_failed(self, violation: Violation) -> None:
        self._violated(violation)

    def monitor_lost(self, text: str) -> None:
        if self.violation is None:
            self._events.monitor_lost(text)

    def _violated(self, violation: Violation) -> None:
        if self.violation is not None:
            return
        self.violation = violation
        self._progress.set()
        self._spawn(self._report(violation))

    async def _report(self, violation: Violation) -> None:
        """Tell everyone, with what the workers can add from the store."""
        body = json.dumps(violation.to_json()).encode()
        found = await self._ask_workers(ToChild.FINDINGS, body, _FINDINGS_SECONDS)
        violation = self.violation = replace(violation, host_finding=findings.sentence([one or {} for one in found]))
        logger.critical("INTEGRITY VIOLATION %s", violation.summary())
        for child in self._workers:
            child.send_json(ToChild.VIOLATION, violation.to_json())
        self._events.service_violated(violation)

    # --- children ---

    def child_message(self, child: Child, kind: int, body: bytes) -> None:
        match kind:
            case FromChild.CLIENT:
                self._client(child, body[: TOKEN.size], body[TOKEN.size], body[TOKEN.size + 1 :])
            case FromChild.ACTIVE:
                self._epochs.active(EPOCH.unpack(body)[0])
            case FromChild.URGENT:
                self._cut_soon(EPOCH.unpack(body)[0])
            case FromChild.HANDED_OVER:
                (epoch,) = EPOCH.unpack(body)
                self._step(lambda: self._epochs.handed_over(self._workers.index(child), epoch))
            case FromChild.STORED:
                self._step(lambda: self._epochs.stored(EPOCH.unpack(body)[0]))
            case FromChild.APPLIED:
                self._step(lambda: self._epochs.applied(EPOCH.unpack(body)[0]))
            case FromChild.TROUBLE:
                self._set_trouble(child.name, body.decode())
            case FromChild.STOPPED:
                # The monitor's own finding, signed and with its place, says more: give it a moment to arrive.
                self.finding = self.finding or Violation(**json.loads(body))
                asyncio.get_running_loop().call_later(limits.VIOLATION_SECONDS, self._violated, self.finding)
            case FromChild.STATS | FromChild.FINDINGS:
                waiting = self._asked.pop((child.name, TOKEN.unpack_from(body)[0]), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(json.loads(body[TOKEN.size :]))
            case FromChild.QUIET:
                self._quiet.add(child.name)
                if len(self._quiet) == len(self._workers):
                    self._events.service_quiet()
            case FromChild.SESSION_FOUND:
                self._sessions.found(SESSION.unpack(body)[0])
            case FromChild.SESSION_LOST:
                self._sessions.lost(SESSION.unpack(body)[0], asyncio.get_running_loop().time())

    @property
    def trouble(self) -> str:
        """Why nothing can become durable now; empty if it can."""
        return self._troubles.text

    def _set_trouble(self, source: str, text: str) -> None:
        if self._troubles.set(source, text):
            self._progress.set()
            for child in self._workers:
                child.send(ToChild.DEGRADED, self.trouble.encode())

    def _client(self, child: Child, token: bytes, kind: int, body: bytes) -> None:
        def answer(frame: bytes) -> None:
            child.send(ToChild.ANSWER, token, frame)

        if kind == Client.STATUS:
            self._spawn(self._answer_status(answer))
        elif kind == Client.HELLO and self._tickets is not None and self._tickets.refusal:
            answer(error_frame(ErrorCode.NOT_NOW, f"no session can be opened now: {self._tickets.refusal}"))
            if self._tickets.are_too_many:
                self._cut_soon(self._epochs.open_epoch)
        else:
            assert self._monitor is not None, "an unverified worker passes on no hello and no admin request"
            ask = self._monitor.hello if kind == Client.HELLO else self._monitor.admin
            ask(body, answer)

    def _give_up_sessions(self) -> None:
        for session in self._sessions.give_up(asyncio.get_running_loop().time()):
            if self._monitor is not None:
                self._monitor.close_session(session)

    # --- status ---

    async def _answer_status(self, answer: Callable[[bytes], None]) -> None:
        answer(pack_frame(Server.STATUS, json.dumps(await self.status()).encode()))

    async def status(self) -> Json:
        """What `zetakv status` shows. Nothing in it is proved."""
        config, started, epochs = self._config, self._started, self._epochs
        return {
            "state": "failed" if self.violation is not None else "degraded" if self.trouble else "ok",
            "trouble": self.trouble or None,
            "violation": None if self.violation is None else self.violation.to_json(),
            "epoch": epochs.open_epoch,
            "epoch_phase": epochs.phase.value,
            "certified_epoch": epochs.certified_epoch if config.verified else None,
            "durable_epoch": epochs.durable_epoch,
            "applied_epoch": epochs.applied_epoch,
            "epoch_ms": config.epoch_ms,
            "durability": config.durability,
            "unverified": not config.verified,
            "open": config.open if started is None else started.open,
            "fingerprint": None if started is None else started.fingerprint,
            "instance": None if started is None else started.instance.hex(),
            "incarnation": None if started is None else started.incarnation.hex(),
            "overrides": [] if started is None else [override_json(override) for override in started.overrides],
            "sessions": len(self._sessions),
            **self._restarts.to_json(),
            "workers": await self._worker_stats(),
        }

    async def _worker_stats(self) -> list[Json]:
        stats = await self._ask_workers(ToChild.STATS, b"", _STATS_SECONDS)
        return [{"worker": i} if one is None else one for i, one in enumerate(stats)]

    async def _ask_workers(self, kind: ToChild, body: bytes, seconds: float) -> list[Json | None]:
        """The answer of each worker; None where there is none in time."""
        self._tokens = (self._tokens + 1) % 2**32
        token, loop = self._tokens, asyncio.get_running_loop()
        waiting: dict[tuple[str, int], asyncio.Future[Json]] = {
            (child.name, token): loop.create_future() for child in self._workers
        }
        self._asked.update(waiting)
        try:
            for child in self._workers:
                child.send(kind, TOKEN.pack(token), body)
            await asyncio.wait(waiting.values(), timeout=seconds)
        finally:
            for asked in waiting:
                self._asked.pop(asked, None)
        return [future.result() if future.done() else None for future in waiting.values()]

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
