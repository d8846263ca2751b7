"""The connection to the server: an asyncio transport that feeds the session, and is made again when it breaks.

A `Link` holds all that the sans-I/O session must not have: the socket, the clock, the loop. It decides when to send
(in the next turn of the loop after a call, so that concurrent calls share requests) and when to give up.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from kvstore_client._errors import CertificateTimeoutError, ConnectionLostError, KVStoreError, ProtocolError
from kvstore_client._frames import FrameParser
from kvstore_client._lane import Lane
from kvstore_client._questions import AdminLine
from kvstore_client._session import Phase, Session

BACKOFF_MIN_SECONDS = 0.05
BACKOFF_MAX_SECONDS = 2.0
"""Between attempts to connect, doubled each time and spread by half, so that many clients do not come at once."""

_WAITING_FOR = {
    Phase.OFFLINE: "there is no connection",
    Phase.GREETING: "the server does not greet",
    Phase.RESUMING: "the server does not answer the resume of the session",
    Phase.HELLO: "the server does not answer the hello",
    Phase.CATCHING_UP: "the server withholds certificates",
    Phase.READY: "the server does not answer requests",
}


_WATCHES = 4
"""Looks at what waits, per timeout."""


@dataclass(slots=True)
class _Wait:
    """Since when, by the loop's clock, calls wait on a line that settles nothing.

    Certificates that bring a new session nearer count as well, but only until the first one is ready: else a server
    could keep calls waiting by one session after the other.
    """

    settled_count: int
    caught_up_count: int
    ready_count: int
    since: float
    tried_again: bool = False


class Link:
    """`timeout_seconds`: when the calls of one thread wait as long without any answer, the connection is made again;
    after as long again, they fail. `on_progress` is called after every input."""

    def __init__(
        self,
        session: Session,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        timeout_seconds: float,
        on_progress: Callable[[], None],
    ) -> None:
        self._session = session
        self._address = (host, port)
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._flush_scheduled = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._last_error: Exception | None = None
        self._waits: dict[int, _Wait] = {}
        self._runner = self._loop.create_task(self._run())
        self._watchdog = self._loop.call_later(timeout_seconds / _WATCHES, self._watch)

    async def ready(self) -> None:
        """Return when operations can be sent. Raises the session's failure, or after the timeout what is missing."""
        session = self._session
        while session.phase is not Phase.READY and session.failure is None:
            caught_up_count = session.caught_up_count
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.add(waiter)
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await waiter
            except TimeoutError:
                # A long chain of certificates may take longer, as long as it gets on.
                if session.caught_up_count == caught_up_count:
                    missing = self._what_is_missing()
                    self._abort()
                    raise missing from self._last_error
            finally:
                self._waiters.discard(waiter)
        if session.failure is not None:
            raise session.failure

    def wake(self) -> None:
        """Send what has been queued, in the next turn of the loop."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    async def close(self, error: KVStoreError) -> None:
        """End the connection. Waiting and later calls fail with `error`."""
        self._session.fail(error)
        self._watchdog.cancel()
        self._runner.cancel()
        await asyncio.gather(self._runner, return_exceptions=True)
        self._notify()

    async def _run(self) -> None:
        delay = BACKOFF_MIN_SECONDS
        while self._session.failure is None:
            connection = _Connection(self)
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._loop.create_connection(lambda made=connection: made, *self._address, ssl=self._tls)
                await connection.closed
            except (OSError, TimeoutError, UnicodeError) as error:
                # UnicodeError: of a host name that cannot be one.
                self._last_error = error
            finally:
                connection.abort()
            if connection.was_ready:
                delay = BACKOFF_MIN_SECONDS
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(2 * delay, BACKOFF_MAX_SECONDS)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._transport is None:
            return
        if self._writable:
            self._session.flush()
        output = self._session.take_output()
        if output:
            self._transport.write(output[0] if len(output) == 1 else b"".join(output))

    def _notify(self) -> None:
        if self._session.phase is Phase.READY or self._session.failure is not None:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _watch(self) -> None:
        """Notice a server that keeps silent, or cannot be reached, while calls wait.

        Each line is watched by itself: a server may well answer on one thread, and never on another. It is known by its
        number, since a new session has new lines, and settles nothing by being new.
        """
        interval = self._timeout_seconds / _WATCHES
        self._watchdog = self._loop.call_later(interval, self._watch)
        session, now = self._session, self._loop.time()
        waits: dict[int, _Wait] = {}
        stuck: dict[int, Lane | AdminLine] = {}
        for number, line in session.busy_lines().items():
            wait = self._waits.get(number)
            if wait is None or self._got_on(line, wait):
                # It may have begun to wait right after the last look.
                tried_again = wait is not None and wait.settled_count == line.settled_count and wait.tried_again
                wait = self._wait(line, now - interval, tried_again=tried_again)
            elif now - wait.since >= self._timeout_seconds:
                stuck[number] = line
            waits[number] = wait
        self._waits = waits
        if not stuck:
            return
        missing, connected = self._no_answer(), session.phase is Phase.READY
        for number, line in stuck.items():
            if connected and not waits[number].tried_again:
                waits[number] = self._wait(line, now, tried_again=True)
            else:
                del waits[number]
                line.abandon(missing)
        # An answer that comes later, on this connection, would find nobody.
        self._abort()

    def _wait(self, line: Lane | AdminLine, since: float, *, tried_again: bool = False) -> _Wait:
        session = self._session
        return _Wait(line.settled_count, session.caught_up_count, session.ready_count, since, tried_again)

    def _got_on(self, line: Lane | AdminLine, wait: _Wait) -> bool:
        caught_up = self._session.caught_up_count != wait.caught_up_count
        return line.settled_count != wait.settled_count or (caught_up and self._session.ready_count == wait.ready_count)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _what_is_missing(self) -> KVStoreError:
        if self._session.awaited_epoch is not None:
            return CertificateTimeoutError(self._session.awaited_epoch, self._timeout_seconds)
        return self._no_answer()

    def _no_answer(self) -> ConnectionLostError:
        host, port = self._address
        reason = self._session.dropped or self._last_error
        detail = f" ({reason})" if reason is not None and self._session.phase is not Phase.READY else ""
        doubt = "; whether waiting writes took effect is unknown" if self._session.busy else ""
        return ConnectionLostError(
            f"{host}:{port}: {_WAITING_FOR[self._session.phase]} within {self._timeout_seconds:g} s{detail}{doubt}"
        )

    # Called by the connection.

    def connected(self, transport: asyncio.Transport) -> None:
        self._transport, self._writable = transport, True
        self._session.connection_made()

    def received(self, connection: _Connection, frames: list[tuple[int, bytes]]) -> None:
        session = self._session
        for kind, body in frames:
            session.receive(kind, body)
        connection.was_ready |= session.phase is Phase.READY
        self._notify()
        self._on_progress()
        if session.failure is not None or session.dropped is not None:
            connection.abort()
        else:
            self._flush()

    def failed(self, error: KVStoreError) -> None:
        self._session.fail(error)
        self._notify()

    def writable(self, writable: bool) -> None:
        self._writable = writable
        if writable:
            self.wake()

    def disconnected(self, error: Exception | None) -> None:
        self._transport = None
        self._last_error = error or self._last_error
        self._session.connection_lost()


class _Connection(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._parser = FrameParser()
        self._transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.was_ready = False

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Other loops' transports (uvloop's) have the methods, but not the base class.
        self._transport = cast(asyncio.Transport, transport)
        self._link.connected(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._parser.feed(data)
        except ProtocolError as error:
            self._link.failed(error)
            self.abort()
        else:
            if frames:
                self._link.received(self, frames)

    def pause_writing(self) -> None:
        self._link.writable(False)

    def resume_writing(self) -> None:
        self._link.writable(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.disconnected(exc)
        if not self.closed.done():
            self.closed.set_result(None)
