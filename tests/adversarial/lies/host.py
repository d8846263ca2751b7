"""A host in one thread of one process: the real prover and the real monitor, a dictionary for a store, no clock.

It does what `kvstore` does, one step after the other, so that thousands of its lives take minutes and a script decides
what happens when. It is honest; whatever passes between two parties passes through a `Liar`.
"""

import bisect
import contextlib
import copy
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from _harness import verifier_log
from lies.liar import Liar
from lies.monitor import MonitorProcess, Stream, StreamEndedError
from support.frames import Frame

from kvstore import limits
from kvstore._prover import RANGE_ROWS_MAX, FrameError, Prover, ProverError
from kvstore.client_port import error_frame, greeting_frame, rejected_frame
from kvstore.messages import EPOCH, TOKEN, Client, ErrorCode, Monitor, Server
from kvstore.monitor_link import PROTOCOL_VERSION
from kvstore.storage import unpack_rows
from kvstore.violation import Violation, violation_name

SLOTS: Final = 256
KEY_BYTES_MAX: Final = 100
VALUE_BYTES_MAX: Final = 10_000
HOT_BYTES_MAX: Final = 1 << 20
KEPT_VALUE_BYTES_MAX: Final = 60
"""So that some values are read again."""
WARM_BYTES_MAX: Final = 0
"""So that lies in the store are read."""
READ_BYTES_MAX: Final = 100_000
ROUNDS_MAX: Final = 100
"""For what has been submitted at once; an honest host needs a few."""
READS_MAX: Final = 300
"""Of one round; the depth of the tree, and more."""
PATIENCE_SECONDS: Final = 30.0
PATIENCE_AFTER_A_LIE_SECONDS: Final = 0.5
"""Then nobody promises an answer."""
_START: Final = struct.Struct("<HIB")
_STARTED: Final = struct.Struct("<16s16s32sIB")
_CONTROL: Final = struct.Struct("<H")
_LOG_OPEN: Final = struct.Struct("<HH16s")
_CERTIFICATES: Final = struct.Struct("<IH")
_THREAD_AT: Final = {Client.REQUEST: 16, Client.RESUME: 12}
_SESSION_AT: Final = {Client.REQUEST: 4, Client.RESUME: 0}
_WRONG_THREAD: Final = 5
_TICKET_BYTES: Final = 98


@dataclass
class Stored:
    """What survives a crash."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    sealed: bytes = b""
    threads: int = 0
    certificates: dict[int, bytes] = field(default_factory=dict)
    log: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    """The write-ahead log of each thread: epochs and records."""
    log_threads: int = 0
    tickets: list[tuple[int, bytes]] = field(default_factory=list)
    """With the epochs after which they are not needed any more."""

    def forget(self, certified_epoch: int) -> None:
        """What the write-ahead log has of certified epochs."""
        for thread, records in self.log.items():
            self.log[thread] = [(epoch, record) for epoch, record in records if epoch > certified_epoch]
        self.tickets = [(epoch, ticket) for epoch, ticket in self.tickets if epoch > certified_epoch]

    def move_log_to(self, epoch: int) -> None:
        """What is replayed runs again in this epoch."""
        for thread, records in self.log.items():
            self.log[thread] = [(epoch, record) for _, record in records]
        self.tickets = [(epoch, ticket) for _, ticket in self.tickets]


class Crash(Enum):
    """Moments of a checkpoint at which the host may crash."""

    BEFORE_STORE = "before the checkpoint is stored"
    AFTER_STORE = "before the monitor is told"
    AFTER_DURABLE = "before the certificate is out"


class HostStoppedError(Exception):
    """The host cannot go on until it starts again."""


@dataclass(frozen=True)
class Origin:
    """Who sent a frame, on which of its connections."""

    client: int
    connection: int


class Host:
    """`violation`: what the monitor, or an honest host, has found; `refused`: why the monitor did not start."""

    def __init__(self, monitor: MonitorProcess, liar: Liar, hot_records: int, *, has_log: bool) -> None:
        self.stored = Stored()
        self.snapshots: list[Stored] = []
        """After every checkpoint, for a host that puts one back."""
        self.violation: Violation | None = None
        self.refused = ""
        self.stopped = "not started"
        self.hangs = ""
        """Whether a real host would ask its store for ever; and for what."""
        self.epoch = 0
        self.incarnations = 0
        self._hot_records = hot_records
        self._has_log = has_log
        self._monitor = monitor
        self._liar = liar
        self._streams: list[Stream] = []
        self._provers: list[Prover] = []
        self._control: Stream
        self._answers: list[tuple[Origin, Frame]] = []
        self._origins: list[Origin] = []
        self._tokens = 0

    # --- life ---

    def start(self, workers: int) -> None:
        """A new incarnation of a new monitor process, from what is stored. Raises HostStoppedError."""
        self.crash()
        self.incarnations += 1
        self._monitor.start()
        self.violation, self.refused, self.stopped = None, "", ""
        try:
            if any(self.stored.log.values()) and self.stored.log_threads != workers:
                # What is logged is replayed by as many threads as logged it.
                self._start(self.stored.log_threads)
                self._cut(all_to_merkle=False, crash=None)
                self._end_processes()
                self._monitor.start()
            self._start(workers)
        except (StreamEndedError, ProverError, FrameError) as error:
            raise self._stop(error) from error

    def _start(self, workers: int) -> None:
        self._control = self._connect()
        self._control.send(Frame(Monitor.CONTROL, _CONTROL.pack(PROTOCOL_VERSION)))
        self._tell(Frame(Monitor.START, _START.pack(workers, SLOTS, self._has_log) + self.stored.sealed))
        kind, body = self._hear(Monitor.STARTED, Monitor.NOT_STARTED)
        if kind == Monitor.NOT_STARTED:
            self.refused = violation_name(int.from_bytes(body[:2], "little"))
            raise StreamEndedError(f"not started: {self.refused}")
        _, incarnation, _, self.epoch, _ = _STARTED.unpack_from(body)
        assert body[_STARTED.size] == 0, "no overrides"
        if certificate := body[_STARTED.size + 1 :]:
            self.stored.certificates[self.epoch - 1] = certificate
        fresh = not self.stored.sealed
        self.stored.forget(self.epoch - 1)
        self.stored.move_log_to(self.epoch)
        self.stored.log_threads = workers
        self._provers = []
        self._logs = []
        for thread in range(workers):
            self._logs.append(self._connect())
            self._logs[thread].send(Frame(Monitor.LOG_OPEN, _LOG_OPEN.pack(PROTOCOL_VERSION, thread, incarnation)))
            prover = Prover(
                thread=thread,
                threads=workers,
                previous_threads=self.stored.threads or workers,
                epoch=self.epoch,
                fresh=fresh,
                slots=SLOTS,
                hot_records_max=self._hot_records,
                hot_bytes_max=HOT_BYTES_MAX,
                kept_value_bytes_max=KEPT_VALUE_BYTES_MAX,
                warm_bytes_max=WARM_BYTES_MAX,
                read_bytes_max=READ_BYTES_MAX,
                key_bytes_max=KEY_BYTES_MAX,
                value_bytes_max=VALUE_BYTES_MAX,
                response_bytes_max=limits.RESPONSE_BYTES_MAX,
                log_incarnation=incarnation if self._has_log else None,
            )
            prover.load_hot(self._range(*prover.hot_range(), len(self.stored.rows)))
            self._provers.append(prover)
            self._run(thread)
            if self._has_log:
                self._replay(thread)
        if self._has_log:
            for ticket in self._liar.tickets([ticket for _, ticket in self.stored.tickets]):
                self._tell(Frame(Monitor.TICKET, ticket))
            self._tell(Frame(Monitor.LIVE, b""))
            self._hear(Monitor.IS_LIVE)

    def _replay(self, thread: int) -> None:
        prover = self._provers[thread]
        for record in self._liar.replayed([record for _, record in self.stored.log.get(thread, ())]):
            prover.replay(record)
        prover.end_replay()
        self._run(thread)

    def crash(self) -> None:
        """Everything but what is stored is lost."""
        self._end_processes()
        self.stopped = self.stopped or "crashed"

    def _end_processes(self) -> None:
        for stream in self._streams:
            stream.close()
        self._streams.clear()
        self._monitor.kill()
        self._answers.clear()

    def _connect(self) -> Stream:
        self._streams.append(self._monitor.connect())
        return self._streams[-1]

    # --- clients ---

    def greeting(self) -> Frame:
        return _frame(
            greeting_frame(
                flags=0,
                worker=0,
                workers=len(self._provers),
                key_bytes_max=KEY_BYTES_MAX,
                value_bytes_max=VALUE_BYTES_MAX,
            )
        )

    def receive(self, origin: Origin, frame: Frame) -> None:
        """A client's frame; what it causes comes out of `answers`. Raises HostStoppedError."""
        kind, body = frame
        if self.violation is not None:
            if self.violation.signed:
                self._answers.append((origin, Frame(Server.VIOLATION, bytes.fromhex(self.violation.signed))))
            return
        try:
            match kind:
                case Client.HELLO:
                    self._answers.append((origin, self._hello(body)))
                case Client.REQUEST | Client.RESUME if len(body) >= 30:
                    self._submit(origin, Client(kind), body)
                case Client.CERTIFICATES if len(body) == _CERTIFICATES.size:
                    first, count = _CERTIFICATES.unpack(body)
                    found = self.stored.certificates
                    self._answers += [
                        (origin, Frame(Server.CERTIFICATE, found[epoch]))
                        for epoch in sorted(found)
                        if first <= epoch < first + count
                    ]
                case _:
                    self._answers.append((origin, _frame(error_frame(ErrorCode.MALFORMED, "not understood"))))
        except StreamEndedError as error:
            raise self._stop(error) from error

    def answers(self) -> list[tuple[Origin, Frame]]:
        """Run what has been submitted, and take all frames that are due. Raises HostStoppedError."""
        try:
            for thread in range(len(self._provers)):
                self._run(thread)
        except (StreamEndedError, ProverError) as error:
            raise self._stop(error) from error
        taken, self._answers = self._answers, []
        return taken

    def _hello(self, hello: bytes) -> Frame:
        self._tokens += 1
        self._tell(Frame(Monitor.HELLO, TOKEN.pack(self._tokens) + hello))
        kind, body = self._hear(Monitor.HELLO_OK, Monitor.HELLO_OK_WITH_TICKET, Monitor.HELLO_REFUSED)
        if kind == Monitor.HELLO_OK_WITH_TICKET:
            self.stored.tickets.append((self.epoch + 1, body[TOKEN.size : TOKEN.size + _TICKET_BYTES]))
            return Frame(Server.HELLO_OK, body[TOKEN.size + _TICKET_BYTES :])
        if kind == Monitor.HELLO_OK:
            return Frame(Server.HELLO_OK, body[TOKEN.size :])
        text = body[TOKEN.size + 2 :].decode(errors="replace")
        code = int.from_bytes(body[TOKEN.size : TOKEN.size + 2], "little")
        return _frame(error_frame(ErrorCode.HELLO_REFUSED, f"{code} {text}"))

    def _submit(self, origin: Origin, kind: Client, body: bytes) -> None:
        thread = int.from_bytes(body[_THREAD_AT[kind] : _THREAD_AT[kind] + 2], "little")
        if thread >= len(self._provers):
            session = int.from_bytes(body[_SESSION_AT[kind] : _SESSION_AT[kind] + 8], "little")
            self._answers.append((origin, _frame(rejected_frame(session, thread, 0, _WRONG_THREAD))))
            return
        self._origins.append(origin)
        number = len(self._origins) - 1
        try:
            if kind == Client.REQUEST:
                self._provers[thread].submit(number, body)
            else:
                self._provers[thread].submit_resume(number, body)
        except FrameError as error:
            code, text = error.args
            self._answers.append((origin, _frame(error_frame(code, text))))

    # --- rounds and epochs ---

    def _run(self, thread: int) -> None:
        prover = self._provers[thread]
        for _ in range(ROUNDS_MAX):
            if not prover.busy:
                return
            for _ in range(READS_MAX):
                if not any(reads := prover.reads()):
                    break
                keys, ranges = reads
                rows = [self._liar.row_read(key, self.stored.rows.get(key)) for key in keys]
                prover.supply(rows, [self._range(first, end, RANGE_ROWS_MAX) for first, end in ranges])
            else:
                self.hangs = f"the prover asks for {keys} and {ranges} again and again"
                raise StreamEndedError(self.hangs)
            log = prover.log()
            outputs = self._exchange(thread, log) if log else b""
            answers = prover.absorb(outputs)
            if record := prover.take_record():
                self.stored.log.setdefault(thread, []).append((prover.epoch, record))
            self._answers += [(self._origins[number], _frame(frame)) for number, frame in answers]
        raise StreamEndedError("the prover waits for what does not come")

    def _exchange(self, thread: int, log: bytes) -> bytes:
        entries = self._liar.log(thread, verifier_log.decode(log))
        self._logs[thread].send(Frame(Monitor.LOG, verifier_log.encode(entries)))
        kind, body = self._logs[thread].receive(self._patience)
        if kind != Monitor.OUTPUTS:
            raise StreamEndedError(f"message of type {kind:#x}")
        return verifier_log.encode_outputs(self._liar.outputs(thread, verifier_log.decode_outputs(body)))

    def cut(self, *, all_to_merkle: bool = False, crash: Crash | None = None) -> Frame | None:
        """Close the epoch. Its certificate, unless the host crashes meanwhile. Raises HostStoppedError."""
        try:
            return self._cut(all_to_merkle, crash)
        except (StreamEndedError, ProverError) as error:
            raise self._stop(error) from error

    def _cut(self, all_to_merkle: bool, crash: Crash | None) -> Frame | None:
        for thread, prover in enumerate(self._provers):
            prover.start_cut(all_to_merkle=all_to_merkle)
            self._run(thread)
            if prover.handed_over() != self.epoch:
                raise StreamEndedError("the epoch was not handed over")
        _, body = self._hear(Monitor.SEALED)
        (epoch,) = EPOCH.unpack_from(body)
        packed = [prover.take_checkpoint() for prover in self._provers]
        if crash is Crash.BEFORE_STORE:
            return self.crash()
        self.snapshots.append(copy.deepcopy(self.stored))
        self._liar.store(self.stored, (row for rows in packed for row in unpack_rows(rows)), body[EPOCH.size :])
        self.stored.threads = len(self._provers)
        if crash is Crash.AFTER_STORE:
            return self.crash()
        self._tell(Frame(Monitor.DURABLE, EPOCH.pack(epoch)))
        if crash is Crash.AFTER_DURABLE:
            # It may have come to that or not: the process is killed.
            return self.crash()
        _, certificate = self._hear(Monitor.CERTIFICATE)
        self.stored.certificates[epoch] = certificate
        self.stored.forget(epoch)
        for prover in self._provers:
            prover.release_checkpoint(epoch)
        self.epoch = epoch + 1
        return Frame(Server.CERTIFICATE, certificate)

    def _range(self, first: bytes, end: bytes, at_most: int) -> list[tuple[bytes, bytes]]:
        keys = sorted(self.stored.rows)
        found = keys[bisect.bisect_left(keys, first) : bisect.bisect_left(keys, end)]
        return [(key, self.stored.rows[key]) for key in found[:at_most]]

    # --- the monitor's control side ---

    @property
    def _patience(self) -> float:
        return PATIENCE_AFTER_A_LIE_SECONDS if self._liar.told else PATIENCE_SECONDS

    def tell_monitor(self, frame: Frame) -> None:
        """A control message of a lying host's own."""
        if not self.stopped:
            self._control.send(frame)

    def _tell(self, frame: Frame) -> None:
        for sent in self._liar.to_monitor(frame):
            self._control.send(sent)

    def _hear(self, *kinds: Monitor) -> Frame:
        """The next control message of one of these types. Raises StreamEndedError."""
        while True:
            for frame in self._liar.to_host(self._control.receive(self._patience)):
                if frame.kind == Monitor.FAILED:
                    self.violation = Violation.from_monitor(frame.body)
                    raise StreamEndedError(self.violation.name)
                if frame.kind in kinds:
                    return frame

    def _stop(self, error: Exception) -> HostStoppedError:
        """Its monitor may have said why on the other connection."""
        if self.violation is None and not self.refused:
            with contextlib.suppress(StreamEndedError):
                self._hear()
        self.stopped = repr(error)
        return HostStoppedError(self.stopped)


def _frame(packed: bytes) -> Frame:
    return Frame(packed[4], packed[5:])


def split(data: bytes) -> Iterable[Frame]:
    """Whole frames of a stream."""
    while data:
        length = int.from_bytes(data[:4], "little")
        yield Frame(data[4], data[5 : 4 + length])
        data = data[4 + length :]
