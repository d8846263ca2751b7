"""The messages of the protocol, written down a second time, plainly, after docs/protocol.md: for golden vectors.

It shares no code with the client or the monitor, so that a vector is a second opinion. Nothing here is fast.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand


def domain_hash(domain: str, data: bytes) -> bytes:
    return blake3(data, key=domain.encode() + bytes(32 - len(domain))).digest()


def mac(key: bytes, letter: str, data: bytes) -> bytes:
    return blake3(data + letter.encode(), key=key).digest()[:16]


def sign(seed: bytes, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def ed25519_public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def x25519_public(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def commitment(value: bytes | None) -> bytes:
    if value is None:
        return b"\x00"
    if len(value) <= 32:
        return b"\x01" + struct.pack("<B", len(value)) + value
    return b"\x02" + struct.pack("<I", len(value)) + blake3(value).digest()


def operation(code: int, key: bytes, arguments: bytes = b"") -> bytes:
    return struct.pack("<B", code) + blake3(key).digest() + arguments


def request(
    key: bytes, session: int, generation: int, thread: int, sequence: int, after_ts: int, operations: list[bytes]
) -> bytes:
    body = struct.pack("<QIHHQQ", session, generation, thread, len(operations), sequence, after_ts)
    body += b"".join(operations)
    return body + mac(key, "Q", body)


def receipt(
    key: bytes,
    session: int,
    generation: int,
    thread: int,
    sequence: int,
    ts: int,
    error: int,
    results: list[bytes],
    request_mac: bytes,
) -> bytes:
    body = struct.pack("<QIHHQQB", session, generation, thread, len(results), sequence, ts, error) + b"".join(results)
    return body + mac(key, "R", body + request_mac)


def resume(key: bytes, session: int, generation: int, thread: int, nonce: bytes) -> bytes:
    body = struct.pack("<QIHH", session, generation, thread, 0) + nonce
    return body + mac(key, "S", body)


def resumed(key: bytes, session: int, generation: int, thread: int, last: int, ts: int, nonce: bytes) -> bytes:
    body = struct.pack("<QIHHQQ", session, generation, thread, 0, last, ts)
    return body + mac(key, "T", body + nonce)


def client_hello(
    identity: bytes,
    ephemeral: bytes,
    client_seed: bytes | None = None,
    former: tuple[bytes, int, bytes] | None = None,
) -> bytes:
    """`former`: incarnation, session, former key."""
    hello = struct.pack("<HH", 1, 1 if client_seed else 0) + ephemeral
    hello += ed25519_public(client_seed) if client_seed else bytes(32)
    if former:
        hello += former[0] + struct.pack("<Q", former[1])
        hello += mac(former[2], "F", hello)
    else:
        hello += bytes(40)
    return hello + (sign(client_seed, b"zetakv/1 client hello" + identity + hello) if client_seed else bytes(64))


def server_hello(
    identity_seed: bytes,
    client_hello: bytes,
    *,
    role: int,
    former_status: int,
    threads: int,
    instance: bytes,
    incarnation: bytes,
    session: int,
    epoch: int,
    head: bytes,
    ephemeral: bytes,
    former_last: list[int],
    overrides: list[bytes],
    former_replayed: list[int] | None = None,
    replay_epoch: int = 0,
) -> bytes:
    """`former_replayed`: the same as `former_last` if None."""
    hello = struct.pack("<HBBHH", 1, role, former_status, threads, len(former_last)) + instance + incarnation
    hello += struct.pack("<QI", session, epoch) + head + ephemeral
    hello += b"".join(struct.pack("<Q", last) for last in former_last)
    if former_status == 1:
        hello += b"".join(struct.pack("<Q", last) for last in former_replayed or former_last)
        hello += struct.pack("<I", replay_epoch)
    hello += struct.pack("<B", len(overrides)) + b"".join(struct.pack("<H", len(it)) + it for it in overrides)
    return hello + sign(identity_seed, b"zetakv/1 server hello" + client_hello + hello)


@dataclass
class Keys:
    """The keys of a session."""

    secret: bytes
    request: list[bytes] = field(default_factory=list)
    receipt: list[bytes] = field(default_factory=list)
    admin: bytes = b""
    former: bytes = b""


def session_keys(secret: bytes, peer: bytes, client_hello: bytes, server_hello: bytes, threads: int) -> Keys:
    exchanged = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer))
    salt = blake3(client_hello + server_hello).digest()
    keys = Keys(HKDF(SHA256(), 32, salt, b"zetakv/1 session").derive(exchanged))

    def expand(info: bytes) -> bytes:
        return HKDFExpand(SHA256(), 32, info).derive(keys.secret)

    keys.request = [expand(b"zetakv/1 request" + struct.pack("<H", thread)) for thread in range(threads)]
    keys.receipt = [expand(b"zetakv/1 receipt" + struct.pack("<H", thread)) for thread in range(threads)]
    keys.admin = expand(b"zetakv/1 admin")
    keys.former = expand(b"zetakv/1 former")
    return keys


def certificate(
    identity_seed: bytes, instance: bytes, incarnation: bytes, epoch: int, previous: bytes, root: bytes
) -> bytes:
    body = b"ZKC1" + instance + incarnation + struct.pack("<I", epoch) + previous + root
    return body + sign(identity_seed, body)


def certificate_hash(data: bytes) -> bytes:
    return domain_hash("zetakv/1 certificate", data[:104])


def override_statement(
    admin_seed: bytes,
    old_instance: bytes,
    epoch: int,
    head: bytes,
    replaced_sealed: bytes,
    replaced_incarnation: bytes,
    time: int,
    reason: str,
) -> bytes:
    body = b"ZKO1" + old_instance + struct.pack("<I", epoch) + head + replaced_sealed + replaced_incarnation
    body += struct.pack("<Q", time) + ed25519_public(admin_seed)
    body += struct.pack("<B", len(reason.encode())) + reason.encode()
    return body + sign(admin_seed, b"zetakv/1 override" + body)


def new_instance(statement: bytes) -> bytes:
    return domain_hash("zetakv/1 instance", statement)[:16]


def range_peaks(hashes: list[bytes]) -> list[bytes]:
    """Cut the leaves into perfect trees, the largest first, and hash each from its leaves."""
    peaks, start = [], 0
    for level in reversed(range(len(hashes).bit_length())):
        if len(hashes) & 1 << level:
            nodes = [domain_hash("zetakv/1 range leaf", leaf) for leaf in hashes[start : start + (1 << level)]]
            while len(nodes) > 1:
                nodes = [domain_hash("zetakv/1 range node", nodes[i] + nodes[i + 1]) for i in range(0, len(nodes), 2)]
            peaks.append(nodes[0])
            start += 1 << level
    return peaks


def range_root(hashes: list[bytes]) -> bytes:
    return domain_hash("zetakv/1 range root", struct.pack("<Q", len(hashes)) + b"".join(range_peaks(hashes)))


def violation(
    identity_seed: bytes,
    instance: bytes,
    incarnation: bytes,
    code: int,
    thread: int,
    epoch: int,
    offset: int,
    depth: int,
    bits: bytes,
) -> bytes:
    body = b"ZKV1" + instance + incarnation + struct.pack("<HHIQ", code, thread, epoch, offset)
    body += struct.pack("<H", depth) + bits
    return body + sign(identity_seed, body)


def admin_request(key: bytes, session: int, sequence: int, op: int, arguments: bytes) -> bytes:
    body = struct.pack("<QQB", session, sequence, op) + arguments
    return body + mac(key, "A", body)


def admin_answer(
    key: bytes, session: int, sequence: int, status: int, epoch: int, payload: bytes, request_mac: bytes
) -> bytes:
    body = struct.pack("<QQBI", session, sequence, status, epoch) + payload
    return body + mac(key, "B", body + request_mac)


def client_entry(role: int, public_key: bytes, name: bytes) -> bytes:
    return struct.pack("<B", role) + public_key + struct.pack("<B", len(name)) + name


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack("<IB", len(body) + 1, kind) + body


def request_frame(request: bytes, payload: bytes) -> bytes:
    return frame(0x02, struct.pack("<I", len(request)) + request + payload)


def receipt_frame(receipt: bytes, payload: bytes) -> bytes:
    return frame(0x82, struct.pack("<I", len(receipt)) + receipt + payload)


def request_payload(key: bytes, long_value: bytes = b"") -> bytes:
    return struct.pack("<H", len(key)) + key + long_value


def greeting(unverified: bool, workers: int, key_max: int, value_max: int, frame_max: int) -> bytes:
    return struct.pack("<HHHHIII", 1, int(unverified), 0, workers, key_max, value_max, frame_max)
