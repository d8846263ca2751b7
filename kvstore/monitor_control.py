"""The supervisor's control connection to the monitor (protocol section 8).

One connection for the life of an incarnation: when it ends, so does the incarnation. What the monitor says is passed
on by callbacks; answers to hellos and admin requests come back as whole client frames.
"""

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kvstore_client import Override, ProtocolError

from kvstore import limits
from kvstore.client_port import error_frame, rejected_frame
from kvstore.framing import FrameProtocol, pack_frame
from kvstore.messages import EPOCH, SESSION, TOKEN, ErrorCode, Monitor, Server
from kvstore.monitor_link import PROTOCOL_VERSION, MonitorLostError, connect_monitor
from kvstore.overrides import split_overrides
from kvstore.violation import IntegrityViolationError, Violation, violation_name

_VERSION: Final = struct.Struct("<H")
_START: Final = struct.Struct("<HIB")
_TICKET: Final = struct.Struct("<I98s")
_STARTED: Final = struct.Struct("<16s16s32sIB")
_CODE: Final = struct.Struct("<H")
_EPOCH_AT_IN_CERTIFICATE: Final = 36
_SESSION_AT_IN_HELLO: Final = 40
# A rejected admin request names its session first and its sequence next (protocol section 4).
_ADMIN_IDS: Final = struct.Struct("<QQ")
_ADMIN_STATUS_AT: Final = 16
_ADMIN_OP_AT: Final = 16
_ADMIN_LIST: Final = 3
_NO_THREAD: Final = 65_535
# Code of `not started` for a second host, which is no violation.
_OCCUPIED: Final = 0

OnAnswer = Callable[[bytes], None]


class MonitorEvents(Protocol):
    """What the monitor says unasked."""

    def monitor_sealed(self, epoch: int, state: bytes) -> None: ...
    def monitor_certified(self, epoch: int, certificate: bytes) -> None: ...
    def monitor_not_committed(self, epoch: int, text: str) -> None:
        """In place of a certificate: the disk of its register did not take it. `durable` may be said again."""

    def monitor_failed(self, violation: Violation) -> None: ...
    def monitor_changed(self) -> None:
        """An admin request has changed what the next certificate makes durable."""

    def monitor_session(self, session: int) -> None:
        """A hello has opened a session."""

    def monitor_ticket(self, ticket: bytes, then: Callable[[], None]) -> None:
        """A hello opens a session, whose ticket must be durable before `then`."""

    def monitor_lost(self, text: str) -> None: ...


@dataclass(frozen=True)
class Started:
    """The monitor's answer to `start`."""

    instance: bytes
    incarnation: bytes
    fingerprint: str
    epoch: int
    """The first open one."""
    open: bool
    overrides: tuple[Override, ...]
    """The oldest first."""
    certificate: bytes
    """Of the epoch before; empty at first."""


class MonitorControl:
    def __init__(self, events: MonitorEvents) -> None:
        self._events = events
        self._protocol = FrameProtocol(self._received, self._lost, limits.MONITOR_MESSAGE_BYTES_MAX)
        self._started: asyncio.Future[Started] | None = None
        self._live: asyncio.Future[None] | None = None
        self._closing = False
        self._tokens = 0
        self._asked: dict[int, tuple[bytes, OnAnswer]] = {}

    async def start(self, address: str, *, threads: int, slots: int, has_log: bool, sealed: bytes) -> Started:
        """Connect and start an incarnation; with a log, it is to `go_live` when that is replayed.

        Raises MonitorLostError, IntegrityViolationError.
        """
        self._started = asyncio.get_running_loop().create_future()
        await connect_monitor(address, self._protocol)
        self._protocol.send(Monitor.CONTROL, _VERSION.pack(PROTOCOL_VERSION))
        self._protocol.send(Monitor.START, _START.pack(threads, slots, has_log), sealed)
        return await self._started

    async def go_live(self, tickets: Sequence[bytes]) -> None:
        """All is replayed, and the marks are durable; `tickets` of earlier incarnations go first.

        Raises MonitorLostError.
        """
        self._live = asyncio.get_running_loop().create_future()
        for ticket in tickets:
            self._protocol.send(Monitor.TICKET, ticket)
        self._protocol.send(Monitor.LIVE)
        await self._live

    def hello(self, hello: bytes, on_answer: OnAnswer) -> None:
        self._ask(Monitor.HELLO, hello, on_answer)

    def admin(self, request: bytes, on_answer: OnAnswer) -> None:
        self._ask(Monitor.ADMIN, request, on_answer)

    def durable(self, epoch: int) -> None:
        self._protocol.send(Monitor.DURABLE, EPOCH.pack(epoch))

    def close_session(self, session: int) -> None:
        self._protocol.send(Monitor.CLOSE_SESSION, SESSION.pack(session))

    def close(self) -> None:
        """End the incarnation."""
        self._closing = True
        self._protocol.close()

    def _ask(self, kind: Monitor, body: bytes, on_answer: OnAnswer) -> None:
        self._tokens = (self._tokens + 1) % 2**32
        self._asked[self._tokens] = (body, on_answer)
        self._protocol.send(kind, TOKEN.pack(self._tokens), body)

    def _received(self, _: FrameProtocol, kind: int, body: bytes) -> None:
        try:
            self._dispatch(kind, body)
        except (struct.error, ValueError, KeyError, ProtocolError) as error:
            self._lost(_, MonitorLostError(f"a message of type {kind:#04x} that cannot be understood ({error})"))
            self.close()

    def _dispatch(self, kind: int, body: bytes) -> None:
        events = self._events
        match kind:
            case Monitor.STARTED:
                instance, incarnation, identity, epoch, is_open = _STARTED.unpack_from(body)
                overrides, certificate = split_overrides(body[_STARTED.size :])
                started = Started(instance, incarnation, identity.hex(), epoch, bool(is_open), overrides, certificate)
                self._resolve(started)
            case Monitor.NOT_STARTED:
                (code,) = _CODE.unpack_from(body)
                text = body[_CODE.size :].decode(errors="replace")
                if code == _OCCUPIED:
                    self._resolve(
                        MonitorLostError(f"the monitor serves another server, or has not noticed our end: {text}")
                    )
                else:
                    self._resolve(IntegrityViolationError(violation_name(code), text))
            case Monitor.SEALED:
                events.monitor_sealed(EPOCH.unpack_from(body)[0], body[EPOCH.size :])
            case Monitor.CERTIFICATE:
                events.monitor_certified(EPOCH.unpack_from(body, _EPOCH_AT_IN_CERTIFICATE)[0], body)
            case Monitor.NOT_COMMITTED:
                text = body[EPOCH.size :].decode(errors="replace")
                events.monitor_not_committed(EPOCH.unpack_from(body)[0], f"the monitor's register: {text}")
            case Monitor.FAILED:
                events.monitor_failed(Violation.from_monitor(body))
            case Monitor.IS_LIVE if self._live is not None:
                self._live.set_result(None)
            case Monitor.HELLO_OK_WITH_TICKET:
                token, ticket = _TICKET.unpack_from(body)
                request, on_answer = self._asked.pop(token)
                frame = self._client_frame(Monitor.HELLO_OK, request, body[_TICKET.size :])
                events.monitor_ticket(ticket, lambda: on_answer(frame))
            case Monitor.HELLO_OK | Monitor.HELLO_REFUSED | Monitor.ADMIN_ANSWER | Monitor.ADMIN_REJECTED:
                request, on_answer = self._asked.pop(TOKEN.unpack_from(body)[0])
                on_answer(self._client_frame(kind, request, body[TOKEN.size :]))
            case _:
                raise ValueError("unknown type")

    def _client_frame(self, kind: int, request: bytes, answer: bytes) -> bytes:
        match kind:
            case Monitor.HELLO_OK:
                self._events.monitor_session(SESSION.unpack_from(answer, _SESSION_AT_IN_HELLO)[0])
                return pack_frame(Server.HELLO_OK, answer)
            case Monitor.HELLO_REFUSED:
                (code,) = _CODE.unpack_from(answer)
                text = answer[_CODE.size :].decode(errors="replace")
                return error_frame(ErrorCode.HELLO_REFUSED, f"{code} {text}")
            case Monitor.ADMIN_ANSWER:
                if answer[_ADMIN_STATUS_AT] == 0 and request[_ADMIN_OP_AT] != _ADMIN_LIST:
                    self._events.monitor_changed()
                return pack_frame(Server.ADMIN_ANSWER, answer)
            case _:
                session, sequence = _ADMIN_IDS.unpack_from(request.ljust(_ADMIN_IDS.size, b"\0"))
                return rejected_frame(session, _NO_THREAD, sequence, answer[0])

    def _resolve(self, outcome: Started | Exception) -> None:
        if self._started is None or self._started.done():
            raise ValueError("out of turn")
        if isinstance(outcome, Exception):
            self._started.set_exception(outcome)
        else:
            self._started.set_result(outcome)

    def _lost(self, _: FrameProtocol, error: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        text = "the control connection to the monitor has ended" + ("" if error is None else f": {error}")
        if self._started is not None and not self._started.done():
            self._started.set_exception(MonitorLostError(text))
        elif self._live is not None and not self._live.done():
            self._live.set_exception(MonitorLostError(text))
        else:
            self._events.monitor_lost(text)
