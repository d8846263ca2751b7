"""A stand-in for monitor and server in tests of the client: real MACs and signatures, one process, no proofs.

`Monitor` is honest and knows what a monitor knows; it is built on the plain encoders beside the golden vectors, not on
the client's code. `Host` serves it over TCP, and lies where a test tells it to: `to_client` and `to_monitor` may drop,
change or repeat frames. While it is `full` it refuses changes, as a server whose disk takes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import reference as ref
from blake3 import blake3

HELLO, REQUEST, RESUME, CERTIFICATES, ADMIN, STATUS, KEYS = range(0x01, 0x08)
GREETING, HELLO_OK, RECEIPT, REJECTED, RESUMED, CERTIFICATE, VIOLATION, ADMIN_ANSWER = range(0x80, 0x88)
STATUS_ANSWER, KEYS_ANSWER, CHECKPOINT, ERROR = 0x88, 0x89, 0x8A, 0x8F

KEY_MAX, VALUE_MAX, FRAME_MAX = 4096, 1 << 20, (16 << 20) + (64 << 10)
READ_COMMITMENT_BYTES = {0: 1, 2: 37}


def seed(name: str) -> bytes:
    """A fixed secret of 32 bytes."""
    return hashlib.sha256(name.encode()).digest()


@dataclass
class DoubleSession:
    keys: ref.Keys
    role: int
    incarnation: bytes
    generation: list[int]
    last: list[int]
    admin_last: int = 0


@dataclass
class Sealed:
    """What survives a restart: the state at the last certificate."""

    store: dict[bytes, bytes] = field(default_factory=dict)
    lasts: dict[int, tuple[bytes, bytes, list[int]]] = field(default_factory=dict)


class Monitor:
    """Honest. `store` maps key hashes to commitments."""

    def __init__(self, threads: int = 2, name: str = "monitor") -> None:
        self.identity_seed = seed(name)
        self.identity = ref.ed25519_public(self.identity_seed)
        self.instance = seed(name + " instance")[:16]
        self.threads = threads
        self.epoch = 1
        self.certificates: list[bytes] = []
        self.clients: dict[bytes, tuple[int, bytes]] = {}
        self.open = True
        self.sessions_count = 0
        self.overrides: list[bytes] = []
        self.gaps: set[int] = set()
        self.has_log = False
        self.log: list[bytes] = []
        """With a write-ahead log: the requests since the last certificate, in order."""
        self.replayed_end = 0
        self._sealed = Sealed()
        self._starts = 0
        self._start()

    @property
    def hashes(self) -> list[bytes]:
        return [ref.certificate_hash(certificate) for certificate in self.certificates]

    def _start(self) -> None:
        self._starts += 1
        self.incarnation = seed(f"incarnation {self._starts}")[:16]
        self.store = dict(self._sealed.store)
        self.sessions: dict[int, DoubleSession] = {}
        self.former = dict(self._sealed.lasts)
        self.replayed: dict[int, list[int]] = {}
        self.counters = [1] * self.threads
        self.replay_epoch = self.epoch

    def close_epoch(self) -> bytes:
        hashes = self.hashes
        previous = hashes[-1] if hashes else bytes(32)
        certificate = ref.certificate(
            self.identity_seed, self.instance, self.incarnation, self.epoch, previous, ref.range_root(hashes)
        )
        self.certificates.append(certificate)
        lasts = {number: (s.incarnation, s.keys.former, list(s.last)) for number, s in self.sessions.items()}
        for number, replayed in self.replayed.items():
            incarnation, key, _ = self.former[number]
            lasts[number] = (incarnation, key, list(replayed))
        self._sealed = Sealed(dict(self.store), lasts)
        self.log.clear()
        self.epoch += 1
        self.counters = [1] * self.threads
        return certificate

    def restart(self, threads: int | None = None, replayed_max: int | None = None) -> None:
        """What was not certified is lost, but for what is replayed: all of the log, or its first `replayed_max`."""
        tickets = {number: (s.incarnation, s.keys.former, [0] * len(s.last)) for number, s in self.sessions.items()}
        tickets |= self.former if self.has_log else {}
        self.threads = threads or self.threads
        log, self.log = self.log[:replayed_max], []
        self._start()
        if self.has_log:
            self.former = tickets | self.former
            for request in log:
                self._replay(request)

    def _replay(self, request: bytes) -> None:
        number, _, thread, count, sequence, _ = struct.unpack_from("<QIHHQQ", request)
        self.replayed_end = max(self.replayed_end, number + 1)
        self.replayed.setdefault(number, list(self.former[number][2]))[thread] = sequence
        self.log.append(request)
        self.counters[thread] += 1
        position = 32
        for _ in range(count):
            _, position = self._run(2, request, position, thread)

    def override(self, epoch: int, reason: str = "the disk is lost", **changes: Any) -> bytes:
        """The operator goes on from the store of `epoch`, under a new instance. Its certificate is not to be had."""
        self.certificates = self.certificates[:epoch]
        self.gaps.add(epoch)
        self.epoch = epoch + 1
        fields = {"old_instance": self.instance, "epoch": epoch, "head": self.hashes[-1], **changes}
        statement = ref.override_statement(
            seed("operator"),
            replaced_sealed=seed("sealed"),
            replaced_incarnation=self.incarnation,
            time=1_800_000_000,
            reason=reason,
            **fields,
        )
        self.overrides.append(statement)
        self.instance = ref.new_instance(statement)
        self._sealed = Sealed()
        self.restart()
        return statement

    def hello(self, hello: bytes) -> tuple[int, bytes]:
        """The answering frame."""
        client_key, former = hello[36:68], struct.unpack("<16sQ", hello[68:92])
        role = 2
        if hello[2] & 1:
            entry = self.clients.get(client_key)
            if entry is None:
                return ERROR, struct.pack("<H", 4) + b"3: unknown client key"
            role = entry[0]
        elif not self.open:
            return ERROR, struct.pack("<H", 4) + b"4: key required"
        former_last: list[int] = []
        former_replayed: list[int] | None = None
        replay_epoch = status = 0
        if former[1]:
            known = self.former.get(former[1]) if self.has_log else self.former.pop(former[1], None)
            proven = known and known[0] == former[0] and ref.mac(known[1], "F", hello[:92]) == hello[92:108]
            unknown = 3 if former[1] < self.replayed_end else 2
            status, former_last = (1, known[2]) if known and proven else (unknown, [])
            if status == 1 and former[1] in self.replayed:
                former_replayed, replay_epoch = self.replayed[former[1]], self.replay_epoch
        self.sessions_count += 1
        number = 1000 + self.sessions_count
        secret = seed(f"ephemeral {number}")
        hashes = self.hashes
        answer = ref.server_hello(
            self.identity_seed,
            hello,
            role=role,
            former_status=status,
            threads=self.threads,
            instance=self.instance,
            incarnation=self.incarnation,
            session=number,
            epoch=self.epoch - 1,
            head=hashes[-1] if hashes else bytes(32),
            ephemeral=ref.x25519_public(secret),
            former_last=former_last,
            former_replayed=former_replayed,
            replay_epoch=replay_epoch,
            overrides=self.overrides,
        )
        keys = ref.session_keys(secret, hello[4:36], hello, answer, self.threads)
        generations, lasts = [1] * self.threads, [0] * self.threads
        self.sessions[number] = DoubleSession(keys, role, self.incarnation, generations, lasts)
        return HELLO_OK, answer

    def request(self, request: bytes) -> bytes | int:
        """The receipt, or the reason for the rejection."""
        number, generation, thread, count, sequence, after_ts = struct.unpack_from("<QIHHQQ", request)
        session = self.sessions.get(number)
        if session is None:
            return 1
        if ref.mac(session.keys.request[thread], "Q", request[:-16]) != request[-16:]:
            return 2
        if sequence != session.last[thread] + 1:
            return 3
        if generation != session.generation[thread]:
            return 4
        session.last[thread] = sequence
        if self.has_log:
            self.log.append(request)
        self._pass(thread, after_ts)
        results, position = [], 32
        for _ in range(count):
            result, position = self._run(session.role, request, position, thread)
            results.append(result)
        assert position == len(request) - 16
        return ref.receipt(
            session.keys.receipt[thread],
            number,
            generation,
            thread,
            sequence,
            self.now(thread),
            0,
            results,
            request[-16:],
        )

    def now(self, thread: int) -> int:
        return self.epoch << 32 | self.counters[thread]

    def _pass(self, thread: int, after_ts: int) -> None:
        assert after_ts >> 32 <= self.epoch
        if after_ts >> 32 == self.epoch:
            self.counters[thread] = max(self.counters[thread], after_ts & 0xFFFFFFFF)
        self.counters[thread] += 1

    def _run(self, role: int, request: bytes, position: int, thread: int) -> tuple[bytes, int]:
        code, key = request[position], request[position + 1 : position + 33]
        assert key[0] * self.threads >> 8 == thread, "an operation on the wrong thread"
        position += 33

        def take() -> bytes:
            nonlocal position
            length = READ_COMMITMENT_BYTES.get(request[position]) or 2 + request[position + 1]
            position += length
            return request[position - length : position]

        old = self.store.get(key, b"\x00")
        result = b"\x00"
        if code == 1:
            result = b"\x01" + old
        elif code == 2:
            self._set(role, key, take())
        elif code == 3:
            self._set(role, key, b"\x00")
        elif code == 4:
            new = take()
            if old == b"\x00":
                self._set(role, key, new)
            else:
                result = b"\x03"
        elif code == 5:
            expected, new = take(), take()
            if old == expected:
                self._set(role, key, new)
            else:
                result = b"\x02" + old
        else:
            delta = struct.unpack_from("<q", request, position)[0]
            position += 8
            if old != b"\x00" and old[:2] != b"\x01\x08":
                result = b"\x05"
            else:
                number = delta + (0 if old == b"\x00" else struct.unpack("<q", old[2:])[0])
                if -(1 << 63) <= number < 1 << 63:
                    new = ref.commitment(struct.pack("<q", number))
                    self._set(role, key, new)
                    result = b"\x01" + new
                else:
                    result = b"\x06"
        return (b"\x04" if role < 2 and code != 1 else result), position

    def _set(self, role: int, key: bytes, commitment: bytes) -> None:
        if role < 2:
            return
        if commitment == b"\x00":
            self.store.pop(key, None)
        else:
            self.store[key] = commitment

    def resume(self, resume: bytes) -> bytes | int:
        number, generation, thread = struct.unpack_from("<QIH", resume)
        session = self.sessions.get(number)
        if session is None:
            return 1
        if ref.mac(session.keys.request[thread], "S", resume[:-16]) != resume[-16:]:
            return 2
        if generation <= session.generation[thread]:
            return 4
        session.generation[thread] = generation
        key, last = session.keys.receipt[thread], session.last[thread]
        return ref.resumed(key, number, generation, thread, last, self.now(thread), resume[16:32])

    def admin(self, request: bytes) -> bytes | int:
        number, sequence, op = struct.unpack_from("<QQB", request)
        session = self.sessions.get(number)
        if session is None:
            return 1
        if ref.mac(session.keys.admin, "A", request[:-16]) != request[-16:]:
            return 2
        if sequence != session.admin_last + 1:
            return 3
        session.admin_last = sequence
        status, payload = 0, b""
        if session.role < 3:
            status = 2
        elif op == 1:
            public_key = request[18:50]
            status = 3 if public_key in self.clients else 0
            self.clients.setdefault(public_key, (request[17], request[51:-16]))
        elif op == 2:
            status = 0 if self.clients.pop(request[17:49], None) else 4
        else:
            entries = [ref.client_entry(role, key, name) for key, (role, name) in self.clients.items()]
            payload = struct.pack("<H", len(entries)) + b"".join(entries)
        return ref.admin_answer(session.keys.admin, number, sequence, status, self.epoch, payload, request[-16:])

    def violation(self, code: int = 10) -> bytes:
        return ref.violation(
            self.identity_seed, self.instance, self.incarnation, code, 1, self.epoch, 4096, 256, seed("key")
        )


Frames = list[tuple[int, bytes]]
CHANGES_REFUSED = ERROR, struct.pack("<H", 9) + b"no space left"
NO_ANSWER_NOW = ERROR, struct.pack("<H", 10) + b"no space left"
Hook = Callable[[int, bytes], Frames]


def honest(kind: int, body: bytes) -> Frames:
    return [(kind, body)]


class Host:
    """Serves a monitor on 127.0.0.1. `values`: bytes of long values by their hash; `requests`: frames that arrived."""

    def __init__(self, monitor: Monitor, *, unverified: bool = False) -> None:
        self.monitor = monitor
        self.unverified = unverified
        self.to_client: Hook = honest
        self.to_monitor: Hook = honest
        self.full = False
        self.values: dict[bytes, bytes] = {}
        self.keys: dict[bytes, bytes] = {}
        self.requests: list[bytes] = []
        self.connections_count = 0
        self.frame_max = FRAME_MAX
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Host:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.drop_connections()
        await self._server.wait_closed()
        await eventually(lambda: not self._writers)

    def drop_connections(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def close_epoch(self) -> None:
        """The monitor certifies, and everybody hears of it."""
        if self.unverified:
            self.push(CHECKPOINT, struct.pack("<I", self.monitor.epoch))
            self.monitor.close_epoch()
        else:
            self.push(CERTIFICATE, self.monitor.close_epoch())

    def push(self, kind: int, body: bytes) -> None:
        for writer in self._writers:
            self._send(writer, kind, body)

    def restart(self, threads: int | None = None, replayed_max: int | None = None) -> None:
        self.monitor.restart(threads, replayed_max)
        self.drop_connections()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections_count += 1
        self._send(writer, GREETING, self._greeting())
        try:
            while True:
                length, kind = struct.unpack("<IB", await reader.readexactly(5))
                body = await reader.readexactly(length - 1)
                for taken in self.to_monitor(kind, body):
                    for answer in self._answer(*taken):
                        self._send(writer, *answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    def _greeting(self) -> bytes:
        monitor = self.monitor
        greeting = ref.greeting(self.unverified, monitor.threads, KEY_MAX, VALUE_MAX, self.frame_max)
        return greeting[:2] + bytes((greeting[2] | (4 if monitor.has_log else 0),)) + greeting[3:]

    def _send(self, writer: asyncio.StreamWriter, kind: int, body: bytes) -> None:
        for frame in self.to_client(kind, body):
            writer.write(ref.frame(*frame))

    def _answer(self, kind: int, body: bytes) -> Frames:
        monitor = self.monitor
        if self.full and _changes_something(kind, body):
            return [CHANGES_REFUSED]
        if kind == HELLO:
            return [monitor.hello(body)]
        if kind == REQUEST:
            return [self._request(body)]
        if kind == RESUME:
            answer = monitor.resume(body)
            turn = struct.unpack_from("<QIH", body)
            return [_answer_or_rejected(RESUMED, answer, turn[0], turn[2], 0)]
        if kind == CERTIFICATES:
            first, at_most = struct.unpack("<IH", body)
            epochs = range(first, min(first + at_most, monitor.epoch))
            return [(CERTIFICATE, monitor.certificates[e - 1]) for e in epochs if e not in monitor.gaps]
        if kind == ADMIN:
            return [_answer_or_rejected(ADMIN_ANSWER, monitor.admin(body), *_admin_turn(body))]
        if kind == STATUS:
            return [(STATUS_ANSWER, json.dumps({"epoch": monitor.epoch}).encode())]
        assert kind == KEYS
        after, at_most = body[:32], struct.unpack_from("<I", body, 32)[0]
        page = [key for digest, key in sorted(self.keys.items()) if digest > after][:at_most]
        listed = b"".join(struct.pack("<H", len(key)) + key for key in page)
        return [(KEYS_ANSWER, struct.pack("<I", len(page)) + listed)]

    def _request(self, body: bytes) -> tuple[int, bytes]:
        length = struct.unpack_from("<I", body)[0]
        request = body[4 : 4 + length]
        self.requests.append(request)
        self._keep_values(request, body[4 + length :])
        if self.unverified:
            answer: bytes | int = self._unverified_receipt(request)
        else:
            answer = self.monitor.request(request)
        session, _, thread, _, sequence = struct.unpack_from("<QIHHQ", request)
        if isinstance(answer, int):
            return _answer_or_rejected(RECEIPT, answer, session, thread, sequence)
        return RECEIPT, struct.pack("<I", len(answer)) + answer + self._payload(answer)

    def _unverified_receipt(self, request: bytes) -> bytes:
        _, _, thread, count, sequence, _ = struct.unpack_from("<QIHHQQ", request)
        assert request[-16:] == bytes(16)
        self.monitor.counters[thread] += 1
        results, position = [], 32
        for _ in range(count):
            result, position = self.monitor._run(2, request, position, thread)
            results.append(result)
        head = struct.pack("<QIHHQQB", 0, 1, thread, count, sequence, self.monitor.now(thread), 0)
        return head + b"".join(results) + bytes(16)

    def _keep_values(self, request: bytes, payload: bytes) -> None:
        """Check the payload against the request, and keep what get may ask for."""
        position, at = 0, 32
        for _ in range(struct.unpack_from("<H", request, 14)[0]):
            code, key_hash = request[at], request[at + 1 : at + 33]
            at += 33
            new = b""
            for _ in range({2: 1, 4: 1, 5: 2}.get(code, 0)):
                length = READ_COMMITMENT_BYTES.get(request[at]) or 2 + request[at + 1]
                new = request[at : at + length]
                at += length
            at += 8 if code == 6 else 0
            if code == 1:
                continue
            key_length = struct.unpack_from("<H", payload, position)[0]
            key = payload[position + 2 : position + 2 + key_length]
            assert blake3(key).digest() == key_hash
            self.keys[key_hash] = key
            position += 2 + key_length
            if new[:1] == b"\x02":
                length = struct.unpack_from("<I", new, 1)[0]
                value = payload[position : position + length]
                assert blake3(value).digest() == new[5:]
                self.values[new[5:]] = value
                position += length
        assert position == len(payload)

    def _payload(self, receipt: bytes) -> bytes:
        """The values of the results, or left out where the frame would be too long."""
        parts, size, at = [], len(receipt), 33
        while at < len(receipt) - 16:
            status = receipt[at]
            at += 1
            if status not in (1, 2):
                continue
            length = READ_COMMITMENT_BYTES.get(receipt[at]) or 2 + receipt[at + 1]
            if receipt[at] == 2:
                value = self.values[receipt[at + 5 : at + 37]]
                size += len(value) + 1
                parts.append(b"\x00" if size > self.frame_max else b"\x01" + value)
            at += length
        return b"".join(parts)


def _changes_something(kind: int, body: bytes) -> bool:
    if kind == REQUEST:
        operations = body[4 + 32 : 4 + struct.unpack_from("<I", body)[0] - 16]
        return len(operations) % 33 != 0 or any(code != 1 for code in operations[::33])
    return kind == ADMIN and body[16] != 3


def _admin_turn(body: bytes) -> tuple[int, int, int]:
    session, sequence = struct.unpack_from("<QQ", body)
    return session, 65535, sequence


def _answer_or_rejected(kind: int, answer: bytes | int, session: int, thread: int, sequence: int) -> tuple[int, bytes]:
    if isinstance(answer, int):
        return REJECTED, struct.pack("<QHQB", session, thread, sequence, answer)
    return kind, answer


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait, briefly, until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the condition is the client's inside, which has no event for it
            await asyncio.sleep(0.005)
