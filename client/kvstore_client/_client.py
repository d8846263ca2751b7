"""The client: `connect`, and the `KV` that it gives. A thin asyncio shell over the session."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from os import PathLike
from typing import Any, TypeVar, cast

from kvstore_client import _operations
from kvstore_client._authorized import AuthorizedClients
from kvstore_client._calls import ManyCall, SingleCall, settled_by
from kvstore_client._crypto import hash_bytes
from kvstore_client._errors import (
    CertificateTimeoutError,
    ConnectionLostError,
    KVStoreError,
    NumberOverflowError,
    OperationError,
    ProtocolError,
    RefusedError,
    StateError,
    TooLongError,
)
from kvstore_client._frames import FrameType, decode_keys, encode_frame, encode_keys
from kvstore_client._heads import Head, Relation, verified_head
from kvstore_client._keys import ClientKey
from kvstore_client._link import Link
from kvstore_client._local import find_local, parse_address, parse_fingerprint, parse_instance, record_path
from kvstore_client._messages import Role
from kvstore_client._operations import INTEGER_MAX, INTEGER_MIN, Operation
from kvstore_client._overrides import Override
from kvstore_client._receipts import Answer, Attempt, Number, Value, Written
from kvstore_client._session import Session
from kvstore_client._state import Memory, StateFile

KEYS_PAGE = 1000
"""Keys per page of a listing: with the longest usual keys a few megabytes."""
_KEYS_FRAME_ROOM = 1 << 10
"""Of a frame of keys, for all but these."""

AnswerT = TypeVar("AnswerT", bound=Answer)


@asynccontextmanager
async def connect(
    address: str,
    monitor: str | None = None,
    *,
    key: ClientKey | str | PathLike[str] | None = None,
    state: str | PathLike[str] | None = None,
    timeout: float = 30.0,  # noqa: ASYNC109 - of every later call, too
    certificate_timeout: float = 60.0,
    tls: ssl.SSLContext | None = None,
    unverified: bool = False,
    accept_override: str | None = None,
) -> AsyncIterator[KV]:
    """Connect to a server, and check that it talks for the monitor.

    `address`: `host:port`. `monitor`: its fingerprint, 64 hex digits, from somebody you trust; on a loopback address
    it may be left out, and is then taken from the record that the server leaves for its own user.
    `key`: this client's key, or the path of its file. `state`: a directory for the last certificate, so that the
    next run notices a rollback.
    `timeout`: seconds to connect (longer only while a long chain of certificates is followed), and to wait for an
    answer: a call fails when its thread has answered nothing for twice that. `certificate_timeout`: seconds that
    `certified()` waits.
    `tls`: to encrypt the connection; integrity does not depend on it. `unverified=True`: talk to a server without a
    monitor, and believe everything it says: no protection at all, for comparison only.
    `accept_override`: the instance (hex) that an operator's override of a rollback began, as the RollbackError names
    it: go on with it, though certified operations that this client knows of are lost.

    Raises TransportError, RefusedError, IntegrityError, StateError, or ValueError for a bad address or fingerprint; and
    at the end of the block StateError or ForkError, if the state could not be kept.
    """
    host, port = parse_address(address)
    identity, chain, state_file, client_key = None, None, None, None
    if not unverified:
        identity, client_key = _who(host, port, monitor, key)
        if state is not None:
            state_file = StateFile(state, identity)
            chain = state_file.chain()
    seed = client_key.seed if client_key else None
    accepted = parse_instance(accept_override) if accept_override is not None else None
    if accepted is None and state_file is not None:
        accepted = state_file.accepted()
    session = Session(identity, seed, chain, secrets.token_bytes, certificate_timeout, accepted)
    kv = KV(session, host, port, tls, timeout, state_file)
    try:
        await kv._link.ready()
        if accepted is not None and state_file is not None and session.chain is not None and session.chain.accepted:
            await asyncio.to_thread(state_file.accept, accepted)
        yield kv
    finally:
        await kv.close()


def _who(
    host: str, port: int, monitor: str | None, key: ClientKey | str | PathLike[str] | None
) -> tuple[bytes, ClientKey | None]:
    """The monitor's identity and this client's key, from the arguments and the record of a local server."""
    local = find_local(host, port) if monitor is None or key is None else None
    if monitor is None:
        if local is None:
            raise StateError(
                f"no monitor is named, and {record_path(port)} has no record of a server at {host}:{port}: "
                f"pass monitor=<fingerprint>, which `zetakv serve` prints"
            )
        if local.fingerprint is None:
            raise StateError(f"the server at {host}:{port} runs without a monitor; if that is meant: unverified=True")
        monitor = local.fingerprint
    identity = parse_fingerprint(monitor)
    if key is None and local is not None and local.key_file and local.fingerprint == monitor.lower():
        key = local.key_file
    return identity, key if key is None or isinstance(key, ClientKey) else ClientKey.load(key)


class KV:
    """A connected client. Methods may be called concurrently; what is called in one turn of the loop shares requests.

    Answers are *provisional* until the monitor certifies their epoch: `await answer.certified()`, or pass
    `certified=True`. Keys and values are bytes. An IntegrityError is final: every later call raises it again.
    A call that is cancelled may have taken effect, unless it was still waiting to be sent: then it never will.
    """

    def __init__(
        self,
        session: Session,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        timeout_seconds: float,
        state_file: StateFile | None,
    ) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._state_file = state_file
        self._saved = b""
        """The last certificate in the state file, as far as this client has written it."""
        self._saving: asyncio.Task[None] | None = None
        self._save_error: KVStoreError | None = None
        self._timeout_seconds = timeout_seconds
        self._link = Link(session, host, port, tls, timeout_seconds, self._remember)
        self._comparing = asyncio.Lock()
        self.clients = AuthorizedClients(session, self._link)

    # Operations.

    async def get(self, key: bytes, *, certified: bool = False) -> Value:
        """The value of a key, None if it has none."""
        call = SingleCall(self._loop)
        return await self._one(call, _operations.get(self._key(key), call), Value, certified)

    async def put(self, key: bytes, value: bytes, *, certified: bool = False) -> Written:
        """Set the value of a key."""
        call = SingleCall(self._loop)
        return await self._one(call, _operations.put(self._key(key), self._value(value), call), Written, certified)

    async def delete(self, key: bytes, *, certified: bool = False) -> Written:
        """Take the value of a key away, if it has one."""
        call = SingleCall(self._loop)
        return await self._one(call, _operations.delete(self._key(key), call), Written, certified)

    async def insert(self, key: bytes, value: bytes, *, certified: bool = False) -> Attempt:
        """Set the value of a key that has none; else `applied` is False."""
        call = SingleCall(self._loop)
        return await self._one(call, _operations.insert(self._key(key), self._value(value), call), Attempt, certified)

    async def compare_and_set(
        self, key: bytes, expected: bytes | None, new: bytes | None, *, certified: bool = False
    ) -> Attempt:
        """Change the value of a key from `expected` to `new` (None: no value); else `applied` is False."""
        call = SingleCall(self._loop)
        for value in (expected, new):
            if value is not None:
                self._value(value)
        operation = _operations.compare_and_set(self._key(key), expected, new, call)
        return await self._one(call, operation, Attempt, certified)

    async def increment(self, key: bytes, delta: int = 1, *, certified: bool = False) -> Number:
        """Add to a number (8 bytes, little-endian, signed; no value counts as 0).

        Raises NotANumberError, NumberOverflowError: if `certified`, when that is certified, too.
        """
        if not isinstance(delta, int):
            raise TypeError(f"the delta is an int, not {type(delta).__name__}")
        if not INTEGER_MIN <= delta <= INTEGER_MAX:
            raise NumberOverflowError("increment: the delta is outside the range of 64 bits")
        call = SingleCall(self._loop)
        return await self._one(call, _operations.increment(self._key(key), delta, call), Number, certified)

    async def get_many(self, keys: Iterable[bytes], *, certified: bool = False) -> list[Value]:
        """The values of many keys, in their order. Not one atomic operation: others may write in between."""
        keys = [self._key(key) for key in keys]
        call = ManyCall(self._loop, len(keys))
        operations = [_operations.get(key, call, i) for i, key in enumerate(keys)]
        return cast(list[Value], await self._many(call, operations, certified))

    async def put_many(
        self, items: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], *, certified: bool = False
    ) -> list[Written]:
        """Set many values. Not one atomic operation. Pairs with the same key are applied in their order.

        Raises the first error when all are answered; the others may have been applied.
        """
        pairs = list(items.items() if isinstance(items, Mapping) else items)
        call = ManyCall(self._loop, len(pairs))
        key_of, value_of = self._key, self._value
        operations = [_operations.put(key_of(key), value_of(value), call, i) for i, (key, value) in enumerate(pairs)]
        return cast(list[Written], await self._many(call, operations, certified))

    # Certification.

    async def barrier(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - its error names the epoch
        """Wait until everything that this client has been answered is certified.

        Raises what `certified()` would raise for the first answer that was lost since the last barrier.
        """
        outcomes = self._session.outcomes
        for provisional in outcomes.open():
            outcome = provisional
            try:
                await outcome.wait(timeout)
                while outcome.replay is not None:
                    outcome = outcome.replay.again
                    await outcome.wait(timeout)
            except CertificateTimeoutError:
                raise
            except KVStoreError:
                # It is lost, and with it `unreported` is set.
                continue
        lost, outcomes.unreported = outcomes.unreported, None
        if lost is not None:
            raise lost
        self._check()

    def head(self) -> Head | None:
        """The last certificate that this client has; None before the first one, and of an unverified server.

        Give it to another client of the same monitor, which compares it with its own: so no two can be shown different
        stores for long.
        """
        chain = self._session.chain
        return Head.of(chain.last) if chain is not None and chain.last is not None else None

    async def compare(
        self,
        head: Head | str,
        timeout: float | None = None,  # noqa: ASYNC109 - its error names the epoch
    ) -> Relation:
        """How another client's head stands to this client's: the same, older and in its chain, or newer.

        A newer one is waited for, `timeout` seconds (default: as `certified()`); for a much older one the certificates
        between are asked for.

        Raises ForkError or RollbackError, with the evidence, if they contradict each other: final, as every
        IntegrityError of a call. ValueError or CertificateError if it is no head of this monitor;
        CertificateTimeoutError if the server did not show that its chain holds it; RefusedError if it has no monitor.
        """
        identity = self._session.identity
        if identity is None:
            raise RefusedError("an unverified server has no certificates: there is nothing to compare")
        theirs = verified_head(head, identity)
        seconds = self._session.outcomes.timeout_seconds if timeout is None else timeout
        async with self._comparing:
            await self._link.ready()
            future: asyncio.Future[Relation] = self._loop.create_future()
            self._session.compare(theirs, settled_by(future))
            self._link.wake()
            try:
                async with asyncio.timeout(seconds):
                    return await future
            except TimeoutError:
                raise CertificateTimeoutError(
                    theirs.epoch, seconds, "whether the server's chain holds the other head stays open"
                ) from None
            finally:
                self._session.end_comparison()

    # About the server.

    @property
    def role(self) -> Role:
        """What this client may do, as the monitor signed it."""
        role = self._session.role
        assert role is not None
        return role

    @property
    def epoch(self) -> int:
        """The last epoch whose certificate this client has; 0 at first."""
        return self._session.chain.epoch if self._session.chain else 0

    @property
    def overrides(self) -> tuple[Override, ...]:
        """The operator's overrides of a rollback in the life of this store, as the monitor says, the oldest first."""
        return self._session.chain.overrides if self._session.chain else ()

    async def status(self) -> dict[str, Any]:
        """The server's own account of itself: not verified."""
        body = await self._ask(FrameType.STATUS, encode_frame(FrameType.STATUS))
        try:
            status = json.loads(body)
        except (ValueError, RecursionError):
            status = None
        if not isinstance(status, dict):
            raise ProtocolError("the server's status is not a JSON object")
        return status

    async def keys(self) -> AsyncIterator[bytes]:
        """All keys as of the last checkpoint, in the order of their hashes.

        Not verified: the server may leave keys out, or make them up. Each key that it names may be verified by `get`.
        """
        after = bytes(32)
        while True:
            await self._link.ready()
            greeting = self._session.greeting
            assert greeting is not None, "the server is ready"
            page_length = min(KEYS_PAGE, (greeting.frame_bytes_max - _KEYS_FRAME_ROOM) // (greeting.key_bytes_max + 2))
            if page_length < 1:
                raise ProtocolError("the server's frames are too short for the longest of its keys")
            page = decode_keys(await self._ask(FrameType.KEYS, encode_keys(after, page_length)))
            for key in page:
                yield key
            if len(page) < page_length:
                return
            last = hash_bytes(page[-1])
            if last <= after:
                raise ProtocolError("the server's list of keys is not in order")
            after = last

    async def close(self) -> None:
        """End the connection. Calls that wait fail. `connect` does this at the end of its block.

        Raises StateError if the state cannot be kept, ForkError if another client has kept another chain.
        """
        await self._link.close(ConnectionLostError("the client is closed"))
        if self._saving is not None:
            await self._saving
        if self._save_error is None:
            await self._save()
        if self._save_error is not None:
            raise self._save_error

    # Inside.

    async def _one(self, call: SingleCall, operation: Operation, kind: type[AnswerT], certified: bool) -> AnswerT:
        self._session.submit(operation)
        self._link.wake()
        try:
            answer = await call.future
        except OperationError as error:
            if certified and error.receipt is not None:
                await error.receipt.certified()
            raise
        assert isinstance(answer, kind)
        if certified:
            await answer.certified()
        return answer

    async def _many(self, call: ManyCall, operations: list[Operation], certified: bool) -> list[Answer]:
        submit = self._session.submit
        for operation in operations:
            submit(operation)
        self._link.wake()
        answers = await call.future
        if certified:
            for receipt in {answer.receipt for answer in answers}:
                await receipt.certified()
        return answers

    async def _ask(self, kind: FrameType, frame: bytes) -> bytes:
        """Ask the host, again if the connection breaks: these questions change nothing."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while True:
                    await self._link.ready()
                    try:
                        return await self._ask_once(kind, frame)
                    except ConnectionLostError:
                        self._check()
        except CertificateTimeoutError:
            raise
        except TimeoutError:
            raise ConnectionLostError(f"the server did not answer within {self._timeout_seconds:g} s") from None

    async def _ask_once(self, kind: FrameType, frame: bytes) -> bytes:
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._session.ask_host(kind, frame, settled_by(future))
        self._link.wake()
        return await future

    def _check(self) -> None:
        if self._session.failure is not None:
            raise self._session.failure

    def _key(self, key: bytes) -> bytes:
        if type(key) is not bytes:
            raise TypeError(f"keys are bytes, not {type(key).__name__}: encode text, as in key.encode()")
        greeting = self._session.greeting
        if greeting is not None and len(key) > greeting.key_bytes_max:
            raise TooLongError(f"the key has {len(key)} bytes; this server takes {greeting.key_bytes_max}")
        return key

    def _value(self, value: bytes) -> bytes:
        if type(value) is not bytes:
            raise TypeError(f"values are bytes, not {type(value).__name__}: encode text, as in value.encode()")
        greeting = self._session.greeting
        if greeting is not None and len(value) > greeting.value_bytes_max:
            raise TooLongError(f"the value has {len(value)} bytes; this server takes {greeting.value_bytes_max}")
        return value

    def _remember(self) -> None:
        """After input: if there is a new certificate, save it beside the loop; one save at a time."""
        chain = self._session.chain
        if self._state_file is None or self._saving is not None or chain is None or chain.last is None:
            return
        if chain.last.data == self._saved:
            return
        self._saving = self._loop.create_task(self._save())

    async def _save(self) -> None:
        chain = self._session.chain
        memory = Memory.of(chain) if chain is not None else None
        if memory is not None and memory.certificate.data == self._saved:
            memory = None
        try:
            if self._state_file is not None and memory is not None:
                await asyncio.to_thread(self._state_file.save, memory)
                self._saved = memory.certificate.data
                if memory.accepted and chain is not None:
                    chain.accepted = False  # it is what is remembered now: no other chain may replace that unnoticed
        except KVStoreError as error:
            self._save_error = error
            self._link.failed(error)
        finally:
            self._saving = None
