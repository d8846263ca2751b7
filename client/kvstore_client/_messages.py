"""The messages of a session's life, byte by byte: hellos, requests, resumes, administration (protocol sections 3, 4).

Encoders take keys and give bytes; `Unverified...` classes take bytes and give their contents only through a check of
signature or MAC. Malformed bytes raise ProtocolError. Receipts are read in `_lane`, which is the hot path.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from enum import IntEnum

from kvstore_client._certificates import Claim
from kvstore_client._codec import U16, U64, Reader
from kvstore_client._crypto import MAC_BYTES, SIGNATURE_BYTES, mac, mac_equal, public_key_of, sign, signed_by
from kvstore_client._errors import IdentityError, ProtocolError, ReceiptError

VERSION = 1
THREADS_MAX = 64
NAME_BYTES_MAX = 64

_CLIENT_HELLO_DOMAIN = b"zetakv/1 client hello"
_SERVER_HELLO_DOMAIN = b"zetakv/1 server hello"
_REQUEST_HEADER = struct.Struct("<QIHHQQ")
_TURN = struct.Struct("<QIHH")


class Role(IntEnum):
    """What the monitor lets a client do. Each role may do what the ones before it may."""

    READ = 1
    WRITE = 2
    ADMIN = 3


def decode_role(value: int, what: str) -> Role:
    try:
        return Role(value)
    except ValueError:
        raise ProtocolError(f"{what}: an unknown role") from None


@dataclass(frozen=True, slots=True)
class FormerSession:
    """A session that a new one replaces. `key`: its former key, which proves that it was this client's."""

    incarnation: bytes
    session: int
    key: bytes = field(repr=False)


def encode_client_hello(
    identity: bytes, ephemeral: bytes, client_seed: bytes | None, former: FormerSession | None
) -> bytes:
    hello = U16.pack(VERSION) + U16.pack(1 if client_seed else 0) + ephemeral
    hello += public_key_of(client_seed) if client_seed else bytes(32)
    if former is None:
        hello += bytes(16 + 8 + MAC_BYTES)
    else:
        hello += former.incarnation + U64.pack(former.session)
        hello += mac(former.key, b"F", hello)
    return hello + (sign(client_seed, _CLIENT_HELLO_DOMAIN + identity + hello) if client_seed else bytes(64))


@dataclass(frozen=True, slots=True)
class FormerAnswer:
    """Of a former session, per thread: its `last` sequence that took effect, certified, and the last one that was
    `replayed` from a write-ahead log: the certificate of `replay_epoch` certifies those (0: there are none)."""

    last: list[int]
    replayed: list[int]
    replay_epoch: int


@dataclass(frozen=True, slots=True)
class ServerHello:
    """A verified server hello.

    `former_last`: per thread of the former session; None if the monitor knows nothing. `former_replayed`: the same,
    with what took effect again from a write-ahead log: certified by `replay_epoch` of this incarnation (0: nothing).
    `former_may_be_replayed`: the monitor knows nothing of the former session, but a log may have had requests of it.
    `overrides`: the statements of all overrides of a rollback, the oldest first.
    """

    role: Role
    threads: int
    session: int
    incarnation: bytes
    ephemeral: bytes
    head: Claim
    former_last: list[int] | None
    former_replayed: list[int] | None
    former_may_be_replayed: bool
    replay_epoch: int
    overrides: list[bytes]
    data: bytes

    @property
    def former(self) -> FormerAnswer | None:
        """None if the monitor knows nothing of the former session."""
        if self.former_last is None or self.former_replayed is None:
            return None
        return FormerAnswer(self.former_last, self.former_replayed, self.replay_epoch)


class UnverifiedServerHello:
    """The bytes of a server hello."""

    def __init__(self, data: bytes) -> None:
        reader = Reader(data, "server hello")
        if reader.u16() != VERSION:
            raise ProtocolError("server hello: another version of the protocol")
        role, status = decode_role(reader.u8(), "server hello"), reader.u8()
        threads, former_count = reader.u16(), reader.u16()
        instance, incarnation = reader.take(16), reader.take(16)
        session, epoch, head, ephemeral = reader.u64(), reader.u32(), reader.take(32), reader.take(32)
        former_last = [reader.u64() for _ in range(former_count)]
        former_replayed = [reader.u64() for _ in range(former_count)]
        replay_epoch = reader.u32() if status == 1 else 0
        overrides = [reader.take(reader.u16()) for _ in range(reader.u8())]
        self._body = data[: reader.position()]
        self._signature = reader.take(SIGNATURE_BYTES)
        reader.end()
        if status > 3 or (status != 1 and former_count) or session == 0:
            raise ProtocolError("server hello: a field out of range")
        if any(replayed < last for last, replayed in zip(former_last, former_replayed, strict=True)):
            raise ProtocolError("server hello: less was replayed than took effect")
        if not is_thread_count(threads) or (status == 1 and not is_thread_count(former_count)):
            raise ProtocolError("server hello: the number of threads is not a power of two up to 64")
        self._hello = ServerHello(
            role=role,
            threads=threads,
            session=session,
            incarnation=incarnation,
            ephemeral=ephemeral,
            head=Claim(instance, epoch, head, {"server_hello": data}),
            former_last=former_last if status == 1 else None,
            former_replayed=former_replayed if status == 1 else None,
            former_may_be_replayed=status == 3,
            replay_epoch=replay_epoch,
            overrides=overrides,
            data=data,
        )

    def verify(self, identity: bytes, client_hello: bytes) -> ServerHello:
        """Raises IdentityError if the identity did not sign it as the answer to `client_hello`."""
        if not signed_by(identity, self._signature, _SERVER_HELLO_DOMAIN + client_hello + self._body):
            raise IdentityError(
                f"the server does not talk for the monitor {identity.hex()}: it is another server, or somebody between",
                {"client_hello": client_hello, "server_hello": self._hello.data},
            )
        # Only with the client hello can anyone else check what the monitor signed.
        evidence = {"client_hello": client_hello, "server_hello": self._hello.data}
        return replace(self._hello, head=replace(self._hello.head, evidence=evidence))


def is_thread_count(threads: int) -> bool:
    return 1 <= threads <= THREADS_MAX and threads.bit_count() == 1


def encode_request(
    key: bytes | None, session: int, generation: int, thread: int, sequence: int, after_ts: int, encoded: list[bytes]
) -> bytes:
    """`key`: the request key; None for an unverified server, which takes a MAC of zeros."""
    head = _REQUEST_HEADER.pack(session, generation, thread, len(encoded), sequence, after_ts)
    request = head + b"".join(encoded)
    return request + (bytes(MAC_BYTES) if key is None else mac(key, b"Q", request))


def encode_resume(key: bytes, session: int, generation: int, thread: int, nonce: bytes) -> bytes:
    body = _TURN.pack(session, generation, thread, 0) + nonce
    return body + mac(key, b"S", body)


class UnverifiedResumed:
    """The bytes of a resumed."""

    def __init__(self, data: bytes) -> None:
        reader = Reader(data, "resumed")
        self.session, self.generation, self.thread = reader.u64(), reader.u32(), reader.u16()
        if reader.u16() != 0:
            raise ProtocolError("resumed: padding that is not zero")
        self._last, self._ts = reader.u64(), reader.u64()
        self._mac = reader.take(MAC_BYTES)
        reader.end()
        self._data = data

    def verify(self, key: bytes, resume: bytes) -> tuple[int, int]:
        """(last sequence that ran, ts). Raises ReceiptError if it is not the answer to `resume`."""
        asked = Reader(resume, "resume")
        same_turn = asked.take(16) == self._data[:16]
        if not same_turn or not mac_equal(mac(key, b"T", self._data[:-MAC_BYTES] + asked.take(16)), self._mac):
            raise ReceiptError(
                f"the answer to the resume of thread {self.thread} is not the monitor's",
                {"resume": resume, "resumed": self._data},
            )
        return self._last, self._ts


class AdminOp(IntEnum):
    ADD = 1
    REMOVE = 2
    LIST = 3


@dataclass(frozen=True, slots=True)
class AuthorizedClient:
    """A client that the monitor admits. `public_key`: Ed25519, 32 bytes."""

    role: Role
    public_key: bytes
    name: str


def encode_client_entry(role: Role, public_key: bytes, name: str) -> bytes:
    """The arguments of `add client`. Raises ValueError if the name is longer than 64 bytes of UTF-8."""
    raw = name.encode()
    if len(raw) > NAME_BYTES_MAX:
        raise ValueError(f"the name has {len(raw)} bytes; at most {NAME_BYTES_MAX} are allowed")
    if len(public_key) != 32:
        raise ValueError("a public key has 32 bytes")
    return bytes((role,)) + public_key + bytes((len(raw),)) + raw


def encode_admin_request(key: bytes, session: int, sequence: int, op: AdminOp, arguments: bytes) -> bytes:
    body = U64.pack(session) + U64.pack(sequence) + bytes((op,)) + arguments
    return body + mac(key, b"A", body)


@dataclass(frozen=True, slots=True)
class AdminAnswer:
    """A verified answer. `status` 0 is success; a change is durable with the certificate of `epoch`."""

    status: int
    epoch: int
    clients: list[AuthorizedClient]


class UnverifiedAdminAnswer:
    """The bytes of an admin answer."""

    def __init__(self, data: bytes) -> None:
        if len(data) < 8 + 8 + 1 + 4 + MAC_BYTES:
            raise ProtocolError(f"admin answer: {len(data)} bytes are too few")
        self._data = data

    def answers(self, key: bytes, request: bytes) -> bool:
        """Whether it is the monitor's answer to `request`."""
        expected = mac(key, b"B", self._data[:-MAC_BYTES] + request[-MAC_BYTES:])
        return self._data[:16] == request[:16] and mac_equal(expected, self._data[-MAC_BYTES:])

    def verify(self, key: bytes, request: bytes) -> AdminAnswer:
        """Raises ReceiptError if it is not the monitor's answer to `request`."""
        body = self._data[:-MAC_BYTES]
        if not self.answers(key, request):
            raise ReceiptError(
                "the answer to an admin request is not the monitor's",
                {"admin_request": request, "admin_answer": self._data},
            )
        reader = Reader(body, "admin answer")
        reader.take(16)
        status, epoch, clients = reader.u8(), reader.u32(), []
        if request[16] == AdminOp.LIST and status == 0:
            for _ in range(reader.u16()):
                role, public_key = decode_role(reader.u8(), "admin answer"), reader.take(32)
                clients.append(AuthorizedClient(role, public_key, reader.text(reader.u8())))
        reader.end()
        return AdminAnswer(status, epoch, clients)
