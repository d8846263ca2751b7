"""A worker process (`python -m kvstore.worker CONFIG`): clients and peers on one side, engine and store on the other.

It owns the partition of keys whose hash starts with its index, so no two workers share a row. Requests of its thread
go to its engine, others to their owner; hellos, admin requests and status go to the supervisor. It checks nothing that
the monitor checks: it only keeps one client's bytes from harming another.
"""

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Final

from kvstore import failpoints, findings, limits
from kvstore._prover import FrameError, PlainEngine, Prover
from kvstore.archive import Archive
from kvstore.child import Control, run_child
from kvstore.client_port import (
    REJECTED_WRONG_THREAD,
    ClientPort,
    Connection,
    error_frame,
    greeting_frame,
    rejected_frame,
)
from kvstore.config import ChildConfig
from kvstore.framing import HEADER_BYTES, FrameProtocol, pack_frame
from kvstore.messages import (
    CUT,
    EPOCH,
    ROWS,
    SESSION,
    TOKEN,
    Client,
    ErrorCode,
    FromChild,
    GreetingFlag,
    Json,
    Rows,
    Server,
    ToChild,
)
from kvstore.monitor_link import LogLink, MonitorLostError
from kvstore.peers import Peers
from kvstore.rounds import Engine, EngineStoppedError, Rounds
from kvstore.storage import LmdbReader
from kvstore.violation import Violation
from kvstore.wal.format import DamagedLogError
from kvstore.wal.request_log import RequestLog

logger = logging.getLogger(__name__)

_THREAD_AT_IN_REQUEST: Final = 16  # after the request's length, session and generation
_THREAD_AT_IN_RESUME: Final = 12
# length, session, generation, thread, op count, sequence: the beginning of a request frame
_REQUEST_IDS: Final = struct.Struct("<IQIHHQ")
_REQUEST_LENGTH: Final = struct.Struct("<I")
_REQUEST_HEADER_BYTES: Final = 32  # to after_ts
_MAC_BYTES: Final = 16
_GET: Final = 1
_GET_BYTES: Final = 33  # code, key hash
_ADMIN_OP_AT: Final = 16
_ADMIN_LIST: Final = b"\3"
_SESSION_AT_IN_HELLO: Final = 40
_CERTIFICATES: Final = struct.Struct("<IH")
_CERTIFICATES_COST: Final = 2_048  # bytes that a request takes while it waits
_KEYS: Final = struct.Struct("<32sI")
_OWN: Final = 0

# Of nearly all frames. Looked up once: before Python 3.12 an enumeration's member takes longer than the comparison.
_REQUEST: Final = Client.REQUEST
_RESUMED: Final = Server.RESUMED

_SUPERVISOR_FRAMES: Final = frozenset({Client.HELLO, Client.ADMIN, Client.STATUS})
_VERIFIED_FRAMES: Final = frozenset({Client.HELLO, Client.RESUME, Client.ADMIN, Client.CERTIFICATES})
_PROVED_FRAMES: Final = frozenset({Client.HELLO, Client.REQUEST, Client.RESUME, Client.ADMIN})


class Worker:
    """One partition. Every method runs in the event loop."""

    def __init__(self, config: ChildConfig, control: Control) -> None:
        serve = config.serve
        self._config = config
        self._memory = serve.memory
        self._control = control
        self._store = LmdbReader(serve.store_path)
        self._archive = Archive(self._store)
        self._archive_turn = asyncio.Lock()
        keys_in_frame = (limits.FRAME_BYTES_MAX - limits.KIB) // (serve.key_bytes_max + 2)
        self._keys_at_once_max = min(limits.KEYS_AT_ONCE_MAX, keys_in_frame)
        self._monitor = LogLink()
        flags = (0 if serve.verified else GreetingFlag.UNVERIFIED) | (GreetingFlag.OPEN if serve.open else 0)
        flags |= GreetingFlag.WRITE_AHEAD_LOG if serve.has_log else 0
        greeting = greeting_frame(
            flags=flags,
            worker=config.index,
            workers=serve.workers,
            key_bytes_max=serve.key_bytes_max,
            value_bytes_max=serve.value_bytes_max,
        )
        ungreeted_max = limits.UNGREETED_FRAME_BYTES_MAX if serve.verified else limits.FRAME_BYTES_MAX
        self._port = ClientPort(self, greeting, self._memory.queued_bytes_max, ungreeted_max)
        self._peers = Peers(
            [config.peer_socket(index) for index in range(serve.workers)], self._peer_request, self._peer_answer
        )
        self._asked: dict[int, tuple[int, int]] = {}
        self._tokens = 0
        self._failed: Violation | None = None
        self._accepting = True
        self._trouble = ""
        self._active_reported = 0
        self._urgent_reported = 0
        self._checkpointing = False
        self._applied_more = asyncio.Event()
        self._held = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # Set by `begin`.
        self._suspects: Callable[[], findings.Suspects] = list
        self._open_epoch = 0
        self._durable_epoch = 0
        self._applied_epoch = 0
        self._log: RequestLog | None = None
        self._engine: Engine
        self._rounds: Rounds
        self._checkpointer: FrameProtocol

    # --- start and stop ---

    async def begin(self, begin: Json) -> None:
        """Load the hot set, run the engine's first rounds, and replay the write-ahead log.

        Raises EngineStoppedError, MonitorLostError, DamagedLogError, FrameError, OSError.
        """
        config, serve = self._config, self._config.serve
        self._open_epoch = begin["epoch"]
        self._durable_epoch = self._applied_epoch = self._open_epoch - 1
        self._archive.set_newest(self._open_epoch - 1, bytes.fromhex(begin["certificate"]))
        if serve.verified:
            incarnation = bytes.fromhex(begin["incarnation"])
            await self._monitor.connect(begin["monitor"], config.index, incarnation)
            prover = Prover(
                thread=config.index,
                threads=serve.workers,
                previous_threads=begin["previous_threads"],
                epoch=self._open_epoch,
                fresh=begin["fresh"],
                slots=serve.memory.slots,
                hot_records_max=serve.memory.hot_records_max,
                hot_bytes_max=serve.memory.hot_bytes_max,
                kept_value_bytes_max=serve.memory.kept_value_bytes_max,
                warm_bytes_max=serve.memory.warm_bytes_max,
                read_bytes_max=serve.memory.read_bytes_max,
                key_bytes_max=serve.key_bytes_max,
                value_bytes_max=serve.value_bytes_max,
                response_bytes_max=limits.RESPONSE_BYTES_MAX,
                log_incarnation=incarnation if serve.has_log else None,
            )
            self._suspects = prover.suspects
            failpoints.hit("worker.in_start")
            prover.load_hot(list(self._store.scan(*prover.hot_range())))
            self._engine = prover
            if serve.has_log:
                self._log = RequestLog(
                    serve.log_path,
                    config.index,
                    serve.workers,
                    self._open_epoch,
                    self._answer_released,
                    lambda text: self._control.send(FromChild.TROUBLE, text.encode()),
                )
        else:
            self._engine = PlainEngine(
                thread=config.index,
                threads=serve.workers,
                epoch=self._open_epoch,
                key_bytes_max=serve.key_bytes_max,
                value_bytes_max=serve.value_bytes_max,
                response_bytes_max=limits.RESPONSE_BYTES_MAX,
            )
        loop = asyncio.get_running_loop()
        _, self._checkpointer = await loop.create_unix_connection(
            lambda: FrameProtocol(lambda *_: None, lambda *_: None), str(config.checkpoint_socket)
        )
        self._rounds = Rounds(
            self._engine,
            self._store,
            self._monitor,
            self._round_answered,
            self._after_round,
            self._handed_over,
        )
        await self._rounds.finish()
        if self._log is not None:
            assert isinstance(self._engine, Prover), "only a verified service has a log"
            await self._log.replay(self._engine, self._rounds.finish)
        await self._peers.listen(config.index)

    async def serve(self) -> None:
        """Let clients in. All peers must be listening."""
        await self._peers.connect(self._config.index)
        self._spawn(self._run_rounds())
        self._rounds.wake()
        listener = socket.socket(fileno=self._config.listen_descriptor)
        self._server = await asyncio.get_running_loop().create_server(
            self._port.protocol, sock=listener, backlog=limits.BACKLOG_MAX
        )
        self._control.send_json(FromChild.READY, {"serving": True})

    async def quiesce(self) -> None:
        """Let no one in any more, and report when all that arrived is answered; after a failure, nothing will be."""
        self._accepting = False
        if self._server is not None:
            self._server.close()
        if self._failed is None:
            await self._port.quiet()
        self._control.send(FromChild.QUIET)

    async def _run_rounds(self) -> None:
        try:
            await self._rounds.run()
        except EngineStoppedError as error:
            violation = Violation.found_by_host(self._config.index, str(error), error.store_key)
            self._control.send_json(FromChild.STOPPED, violation.to_json())
        except MonitorLostError as error:
            # Either the monitor has failed, and tells the supervisor why, or it is gone, and the supervisor sees it.
            logger.error("%s", error)
        except Exception as error:
            logger.exception("unexpected fault")
            self._control.fault(f"worker {self._config.index}: unexpected fault: {error!r}")

    # --- the supervisor ---

    def control_message(self, kind: int, body: bytes) -> None:
        match kind:
            case ToChild.BEGIN:
                self._spawn(self._begin_and_report(json.loads(body)))
            case ToChild.SERVE:
                self._spawn(self.serve())
            case ToChild.ANSWER:
                self._supervisor_answer(TOKEN.unpack_from(body)[0], body[TOKEN.size :])
            case ToChild.CUT:
                _, all_to_merkle = CUT.unpack(body)
                self._rounds.cut(all_to_merkle=bool(all_to_merkle))
            case ToChild.DURABLE:
                self._durable(EPOCH.unpack(body)[0])
            case ToChild.APPLIED:
                self._applied(EPOCH.unpack(body)[0])
            case ToChild.DEGRADED:
                self._trouble = body.decode()
                self._applied_more.set()
            case ToChild.CERTIFICATE:
                self._archive.set_newest(EPOCH.unpack_from(body)[0], body[EPOCH.size :])
                self._port.broadcast(pack_frame(Server.CERTIFICATE, body[EPOCH.size :]), greeted_only=True)
            case ToChild.VIOLATION:
                self._fail(Violation(**json.loads(body)))
            case ToChild.FINDINGS:
                violation = Violation(**json.loads(body[TOKEN.size :]))
                self._control.send(FromChild.FINDINGS, body[: TOKEN.size], json.dumps(self._find(violation)).encode())
            case ToChild.STATS:
                self._control.send(FromChild.STATS, body, json.dumps(self._stats()).encode())
            case ToChild.QUIESCE:
                self._spawn(self.quiesce())
            case ToChild.END:
                self._port.close_connections()
                if self._log is not None:
                    self._log.close()
                self._control.end()

    async def _begin_and_report(self, begin: Json) -> None:
        try:
            await self.begin(begin)
            self._control.send_json(FromChild.READY, {})
        except EngineStoppedError as error:
            violation = Violation.found_by_host(self._config.index, str(error), error.store_key)
            self._control.send_json(FromChild.STOPPED, violation.to_json())
        except (DamagedLogError, FrameError) as error:
            self._control.fatal(f"worker {self._config.index}: {error}")
        except (MonitorLostError, OSError) as error:
            # The end of another process; the supervisor sees that, too.
            self._control.fault(f"worker {self._config.index}: {error}")

    def _durable(self, epoch: int) -> None:
        self._durable_epoch = epoch
        self._checkpointing = False
        if self._log is not None:
            self._log.certified(epoch)
        self._after_round()
        if not self._config.serve.verified:
            self._port.broadcast(pack_frame(Server.CHECKPOINT, EPOCH.pack(epoch)), greeted_only=False)

    def _applied(self, epoch: int) -> None:
        # Until now the engine answered from memory whatever this checkpoint has, so rows that came into the store
        # meanwhile, one transaction after the other, were not read.
        failpoints.hit("worker.before_release")
        self._engine.release_checkpoint(epoch)
        self._applied_epoch = epoch
        self._applied_more.set()
        self._after_round()

    def _fail(self, violation: Violation) -> None:
        self._failed = violation
        for frame in self._failure_frames(violation):
            self._port.broadcast(frame, greeted_only=False)

    def _find(self, violation: Violation) -> Json:
        mine = violation.thread == self._config.index
        return findings.find(self._store, violation if mine else None, self._suspects())

    @staticmethod
    def _failure_frames(violation: Violation) -> list[bytes]:
        error = error_frame(ErrorCode.MONITOR_FAILED, violation.summary())
        if not violation.signed:
            return [error]
        return [
            pack_frame(Server.VIOLATION, bytes.fromhex(violation.signed) + violation.host_finding.encode()),
            error,
        ]

    def _stats(self) -> Json:
        return {
            "worker": self._config.index,
            "open_epoch": self._open_epoch,
            "connections": self._port.connections,
            "dirty_bytes": self._engine.dirty_bytes,
            **self._engine.stats(),
        }

    # --- rounds ---

    def _handed_over(self, epoch: int) -> None:
        self._checkpointing = True
        failpoints.hit("worker.before_hand_over")
        rows = self._engine.take_checkpoint()
        self._checkpointer.send(Rows.CHECKPOINT, ROWS.pack(epoch, self._config.index), rows)
        failpoints.hit("worker.after_rows")
        self._control.send(FromChild.HANDED_OVER, EPOCH.pack(epoch))
        self._open_epoch = epoch + 1

    def _after_round(self) -> None:
        self._hold(self._engine.dirty_bytes > self._memory.dirty_bytes_max or self._engine.cut_overdue)
        if self._rounds.cutting:
            return
        if self._engine.active and self._active_reported < self._open_epoch:
            self._active_reported = self._open_epoch
            self._control.send(FromChild.ACTIVE, EPOCH.pack(self._open_epoch))
        # No cut would make the checkpoint that is on its way go sooner.
        many = self._engine.changed_bytes > self._memory.dirty_bytes_soon and not self._checkpointing
        if (many or self._engine.cut_wanted) and self._urgent_reported < self._open_epoch:
            self._urgent_reported = self._open_epoch
            self._control.send(FromChild.URGENT, EPOCH.pack(self._open_epoch))

    def _hold(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            self._port.hold(held)
            self._peers.hold(held)

    def _round_answered(self, answers: list[tuple[int, bytes]]) -> None:
        if self._log is None:
            self._deliver(answers)
        else:
            assert isinstance(self._engine, Prover), "only a verified service has a log"
            self._log.hold(self._engine.epoch, self._engine.take_record(), answers)

    def _answer_released(self) -> None:
        assert self._log is not None, "it calls"
        self._deliver(self._log.released())

    def _deliver(self, answers: list[tuple[int, bytes]]) -> None:
        own: dict[int, list[bytes]] = {}
        for origin, frame in answers:
            link, connection = divmod(origin, 1 << 32)
            if link == _OWN:
                own.setdefault(connection, []).append(frame)
            else:
                self._peers.answer(link, connection, frame)
        for connection, frames in own.items():
            self._answer(connection, *frames)

    # --- clients ---

    def client_frame(self, connection: Connection, kind: int, body: bytes) -> None:
        serve = self._config.serve
        if not serve.verified and kind in _VERIFIED_FRAMES:
            connection.refuse(ErrorCode.NOT_UNVERIFIED, "this server is unverified: no sessions and no certificates")
        elif kind in _PROVED_FRAMES and self._failed is not None:
            for frame in self._failure_frames(self._failed):
                connection.send(frame)
        elif kind in _PROVED_FRAMES and not self._accepting:
            connection.refuse(ErrorCode.NOT_NOW, "the service is stopping")
        elif self._trouble and changes_something(kind, body):
            # A get is still answered: provisionally, and that is what its client is told, as always.
            connection.refuse(ErrorCode.CHANGES_REFUSED, f"no change can be made durable now: {self._trouble}")
        elif kind in _SUPERVISOR_FRAMES:
            self._tokens = (self._tokens + 1) % 2**32
            self._asked[self._tokens] = (connection.number, kind)
            connection.expect_answer(len(body))
            self._control.send(FromChild.CLIENT, TOKEN.pack(self._tokens), bytes((kind,)), body)
        elif kind == _REQUEST or kind == Client.RESUME:
            self._route(connection, kind, body)
        elif kind == Client.CERTIFICATES and len(body) == _CERTIFICATES.size:
            from_epoch, at_most = _CERTIFICATES.unpack(body)
            if not connection.greeted:
                at_most = min(at_most, limits.UNGREETED_CERTIFICATES_MAX)
            connection.expect_answer(_CERTIFICATES_COST)
            self._spawn(self._send_certificates(connection.number, from_epoch, at_most))
        elif kind == Client.KEYS and len(body) == _KEYS.size:
            after, at_most = _KEYS.unpack(body)
            if serve.verified and not connection.greeted:
                connection.refuse(ErrorCode.NOT_ACCEPTABLE, "a listing of keys needs a session: say hello first")
            elif 0 < at_most <= self._keys_at_once_max:
                connection.expect_answer(len(body))
                self._spawn(self._list_keys(connection.number, after, at_most))
            else:
                text = f"a listing asks for 1 to {self._keys_at_once_max} keys"
                connection.refuse(ErrorCode.NOT_ACCEPTABLE, text)
        elif kind in Client.__members__.values():
            connection.refuse(ErrorCode.MALFORMED, "the frame's body has the wrong length")
        else:
            connection.refuse(ErrorCode.UNKNOWN_TYPE, f"no frame of type {kind:#04x} is known")

    def client_lost(self, connection: Connection) -> None:
        for session in connection.sessions:
            self._control.send(FromChild.SESSION_LOST, SESSION.pack(session))

    def _route(self, connection: Connection, kind: int, body: bytes) -> None:
        at = _THREAD_AT_IN_REQUEST if kind == _REQUEST else _THREAD_AT_IN_RESUME
        if len(body) < _REQUEST_IDS.size:
            connection.refuse(ErrorCode.MALFORMED, "the frame is too short to name its session and thread")
            return
        owner = int.from_bytes(body[at : at + 2], "little")
        if owner == self._config.index:
            connection.expect_answer(len(body))
            self._submit(connection.number, kind, body)
        elif owner < self._config.serve.workers:
            connection.expect_answer(len(body))
            self._peers.forward(owner, connection.number, kind, body)
        elif kind == _REQUEST:
            _, session, _, _, _, sequence = _REQUEST_IDS.unpack_from(body)
            connection.send(rejected_frame(session, owner, sequence, REJECTED_WRONG_THREAD))
        else:
            # A client of an earlier incarnation that had more workers: it will ask for a new session.
            (session,) = SESSION.unpack_from(body)
            connection.send(rejected_frame(session, owner, 0, REJECTED_WRONG_THREAD))

    def _submit(self, origin: int, kind: int, body: bytes) -> None:
        if self._log is not None and self._log.refusal:
            self._deliver([(origin, self._log.refusal)])
            return
        try:
            if kind == _REQUEST:
                self._engine.submit(origin, body)
            else:
                self._engine.submit_resume(origin, body)
        except FrameError as error:
            code, text = error.args
            self._deliver([(origin, error_frame(code, text))])
        else:
            self._rounds.wake()

    def _answer(self, number: int, *frames: bytes) -> None:
        for frame in frames:
            if frame[HEADER_BYTES - 1] == _RESUMED and (connection := self._port.find(number)) is not None:
                self._adopt(connection, SESSION.unpack_from(frame, HEADER_BYTES)[0])
        self._port.answer(number, *frames)

    def _adopt(self, connection: Connection, session: int) -> None:
        if session not in connection.sessions:
            connection.sessions.add(session)
            connection.greet()
            self._control.send(FromChild.SESSION_FOUND, SESSION.pack(session))

    async def _send_certificates(self, number: int, from_epoch: int, at_most: int) -> None:
        async with self._archive_turn:
            # One page at a time, and others between: it costs its client a few bytes, and the worker thousands of rows.
            await asyncio.sleep(0)
            is_there = self._port.find(number) is not None
            frames = self._archive.certificate_frames(from_epoch, at_most) if is_there else ()
            self._port.answer(number, b"".join(frames))

    async def _list_keys(self, number: int, after: bytes, at_most: int) -> None:
        # What is durable is listed.
        durable_epoch = self._durable_epoch
        while self._applied_epoch < durable_epoch and not self._trouble:
            self._applied_more.clear()
            await self._applied_more.wait()
        frame = await self._archive.keys_frame(after, at_most)
        self._answer(number, frame)

    def _supervisor_answer(self, token: int, frame: bytes) -> None:
        number, kind = self._asked.pop(token)
        connection = self._port.find(number)
        if kind == Client.HELLO and frame[HEADER_BYTES - 1] == Server.HELLO_OK:
            (session,) = SESSION.unpack_from(frame, HEADER_BYTES + _SESSION_AT_IN_HELLO)
            if connection is None:
                self._control.send(FromChild.SESSION_LOST, SESSION.pack(session))
            else:
                connection.greet()
                connection.sessions.add(session)
        self._port.answer(number, frame)

    # --- peers ---

    def _peer_request(self, link: int, connection: int, kind: int, body: bytes) -> None:
        self._submit(link << 32 | connection, kind, body)

    def _peer_answer(self, connection: int, frame: bytes) -> None:
        self._answer(connection, frame)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("unexpected fault", exc_info=error)
            self._control.fault(f"worker {self._config.index}: unexpected fault: {error!r}")


def changes_something(kind: int, body: bytes) -> bool:
    """Whether a frame may bring about what has to be made durable."""
    if kind == Client.ADMIN:
        return body[_ADMIN_OP_AT : _ADMIN_OP_AT + 1] != _ADMIN_LIST
    return kind == _REQUEST and not only_reads(body)


def only_reads(body: bytes) -> bool:
    """Whether a request frame has nothing but gets: they are the only operations of their code."""
    (length,) = _REQUEST_LENGTH.unpack_from(body.ljust(_REQUEST_LENGTH.size, b"\0"))
    operations = body[_REQUEST_LENGTH.size :][_REQUEST_HEADER_BYTES : length - _MAC_BYTES]
    return len(operations) % _GET_BYTES == 0 and set(operations[::_GET_BYTES]) <= {_GET}


async def main(config: ChildConfig, control: Control) -> None:
    worker: Worker | None = None

    def handle(kind: int, body: bytes) -> None:
        nonlocal worker
        if worker is None and kind == ToChild.END:
            control.end()
            return
        if worker is None:
            # The store exists only when the supervisor says BEGIN.
            worker = Worker(config, control)
        worker.control_message(kind, body)

    await control.connect(config, handle)


if __name__ == "__main__":
    run_child("worker", main)
