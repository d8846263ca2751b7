"""Write the golden vectors of this directory, from fixed inputs: `python tests/vectors/generate.py`.

Bytes are hex strings; integers are numbers. Fields are named as in docs/protocol.md. A key, nonce or seed here is a
counted-up pattern and protects nothing.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import reference as ref

HERE = Path(__file__).parent


def pattern(tag: int, length: int = 32) -> bytes:
    """`length` fixed bytes, different for each tag."""
    return bytes((tag * 37 + i * 11) % 256 for i in range(length))


IDENTITY_SEED = pattern(1)
CLIENT_SEED = pattern(2)
CLIENT_EPHEMERAL_SECRET = pattern(3)
SERVER_EPHEMERAL_SECRET = pattern(4)
INSTANCE = pattern(5, 16)
INCARNATION = pattern(6, 16)
FORMER_INCARNATION = pattern(7, 16)
FORMER_KEY = pattern(8)
REQUEST_KEY = pattern(9)
RECEIPT_KEY = pattern(10)
ADMIN_KEY = pattern(11)
NONCE = pattern(12, 16)
IDENTITY = ref.ed25519_public(IDENTITY_SEED)
SESSION, GENERATION, THREAD, SEQUENCE = 0x1122334455667788, 3, 1, 42
AFTER_TS, TS = (7 << 32) | 9, (8 << 32) | 1234
LONG_VALUE = pattern(13, 100)
ADMIN_SEED = pattern(16)


def to_json(value: Any) -> Any:
    """Bytes as hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    return value


def write(name: str, content: Any) -> None:
    (HERE / f"{name}.json").write_text(json.dumps(to_json(content), indent=2) + "\n")


def commitments() -> Any:
    values = [None, b"", b"v", bytes(32), bytes(33), LONG_VALUE]
    return [{"value": value, "commitment": ref.commitment(value)} for value in values]


def operations() -> list[dict[str, Any]]:
    """One of each operation, as the request below has them."""
    number = struct.pack("<q", -5)
    inline, digest = ref.commitment(b"new"), ref.commitment(LONG_VALUE)
    return [
        {"name": "get", "key": b"a", "operation": ref.operation(1, b"a"), "payload": b""},
        {
            "name": "put",
            "key": b"bb",
            "new": LONG_VALUE,
            "operation": ref.operation(2, b"bb", digest),
            "payload": ref.request_payload(b"bb", LONG_VALUE),
        },
        {"name": "delete", "key": b"", "operation": ref.operation(3, b""), "payload": ref.request_payload(b"")},
        {
            "name": "insert",
            "key": b"c",
            "new": b"new",
            "operation": ref.operation(4, b"c", inline),
            "payload": ref.request_payload(b"c"),
        },
        {
            "name": "compare_and_set",
            "key": b"d",
            "expected": None,
            "new": b"new",
            "operation": ref.operation(5, b"d", ref.commitment(None) + inline),
            "payload": ref.request_payload(b"d"),
        },
        {
            "name": "increment",
            "key": b"e",
            "delta": -5,
            "operation": ref.operation(6, b"e", number),
            "payload": ref.request_payload(b"e"),
        },
    ]


def requests() -> Any:
    ops = operations()
    encoded = [op["operation"] for op in ops]
    request = ref.request(REQUEST_KEY, SESSION, GENERATION, THREAD, SEQUENCE, AFTER_TS, encoded)
    results: list[dict[str, Any]] = [
        {"status": 1, "value": LONG_VALUE, "result": b"\x01" + ref.commitment(LONG_VALUE)},
        {"status": 0, "result": b"\x00"},
        {"status": 0, "result": b"\x00"},
        {"status": 3, "result": b"\x03"},
        {"status": 2, "value": b"old", "result": b"\x02" + ref.commitment(b"old")},
        {"status": 1, "value": struct.pack("<q", -5), "result": b"\x01" + ref.commitment(struct.pack("<q", -5))},
    ]
    turn = {"session": SESSION, "generation": GENERATION, "thread": THREAD, "sequence": SEQUENCE}

    def receipt(error: int, encoded_results: list[bytes]) -> bytes:
        return ref.receipt(
            RECEIPT_KEY, SESSION, GENERATION, THREAD, SEQUENCE, TS, error, encoded_results, request[-16:]
        )

    ok, failed = receipt(0, [result["result"] for result in results]), receipt(2, [])
    resume = ref.resume(REQUEST_KEY, SESSION, GENERATION, THREAD, NONCE)
    resumed = ref.resumed(RECEIPT_KEY, SESSION, GENERATION, THREAD, SEQUENCE, TS, NONCE)
    return {
        "request_key": REQUEST_KEY,
        "receipt_key": RECEIPT_KEY,
        "operations": ops,
        "request": {
            **turn,
            "after_ts": AFTER_TS,
            "request": request,
            "frame": ref.request_frame(request, b"".join(op["payload"] for op in ops)),
        },
        "receipt": {
            **turn,
            "ts": TS,
            "results": results,
            "receipt": ok,
            "frame": ref.receipt_frame(ok, b"\x01" + LONG_VALUE),
            "frame_with_value_left_out": ref.receipt_frame(ok, b"\x00"),
        },
        "error_receipt": {**turn, "ts": TS, "error": 2, "receipt": failed},
        "resume": {"session": SESSION, "generation": GENERATION, "thread": THREAD, "nonce": NONCE, "resume": resume},
        "resumed": {**turn, "ts": TS, "resumed": resumed},
    }


def handshake() -> Any:
    cases = []
    former_session = (FORMER_INCARNATION, 77, FORMER_KEY)
    chain = overrides()["chain"]
    for name, seed, former, former_last, replayed, instance, statements in (
        ("anonymous", None, None, [], ([], 0), INSTANCE, []),
        ("client key and former session", CLIENT_SEED, former_session, [5, 6], ([5, 6], 0), INSTANCE, []),
        ("former session that was replayed", CLIENT_SEED, former_session, [5, 6], ([8, 6], 13), INSTANCE, []),
        ("unknown former session", CLIENT_SEED, former_session, [], ([], 0), INSTANCE, []),
        ("unknown former session that may have been replayed", CLIENT_SEED, former_session, [], ([], 0), INSTANCE, []),
        ("overrides", None, None, [], ([], 0), chain[-1]["new_instance"], [it["statement"] for it in chain]),
        (
            "former session and override",
            CLIENT_SEED,
            former_session,
            [5, 6],
            ([7, 9], 13),
            chain[0]["new_instance"],
            [chain[0]["statement"]],
        ),
    ):
        status = 3 if name.endswith("may have been replayed") else 1 if former_last else 2 if former else 0
        hello = ref.client_hello(IDENTITY, ref.x25519_public(CLIENT_EPHEMERAL_SECRET), seed, former)
        answer = ref.server_hello(
            IDENTITY_SEED,
            hello,
            role=3 if seed else 2,
            former_status=status,
            threads=2,
            instance=instance,
            incarnation=INCARNATION,
            session=SESSION,
            epoch=12,
            head=pattern(14),
            ephemeral=ref.x25519_public(SERVER_EPHEMERAL_SECRET),
            former_last=former_last,
            overrides=statements,
            former_replayed=replayed[0],
            replay_epoch=replayed[1],
        )
        client_public = ref.x25519_public(CLIENT_EPHEMERAL_SECRET)
        keys = ref.session_keys(SERVER_EPHEMERAL_SECRET, client_public, hello, answer, 2)
        cases.append(
            {
                "name": name,
                "client_seed": seed,
                "former_incarnation": former[0] if former else None,
                "former_session": former[1] if former else None,
                "former_key": former[2] if former else None,
                "client_hello": hello,
                "role": 3 if seed else 2,
                "former_status": status,
                "former_last": former_last,
                "former_replayed": replayed[0],
                "replay_epoch": replayed[1],
                "instance": instance,
                "overrides": statements,
                "server_hello": answer,
                "secret": keys.secret,
                "request_keys": keys.request,
                "receipt_keys": keys.receipt,
                "admin_key": keys.admin,
                "former_key_of_this_session": keys.former,
            }
        )
    return {
        "identity_seed": IDENTITY_SEED,
        "identity": IDENTITY,
        "client_ephemeral_secret": CLIENT_EPHEMERAL_SECRET,
        "server_ephemeral_secret": SERVER_EPHEMERAL_SECRET,
        "incarnation": INCARNATION,
        "session": SESSION,
        "threads": 2,
        "epoch": 12,
        "head": pattern(14),
        "cases": cases,
    }


def overrides() -> dict[str, Any]:
    """Two overrides, the second of the first; at its time the register was lost."""
    chain: list[dict[str, Any]] = []
    for epoch, head, sealed, incarnation, time, reason in (
        (9, pattern(17), pattern(18), pattern(19, 16), 1_800_000_000, "the disk is lost; backup of the night"),
        (11, pattern(20), bytes(32), bytes(16), 1_800_086_400, "Gerät ersetzt"),
    ):
        old_instance = chain[-1]["new_instance"] if chain else INSTANCE
        statement = ref.override_statement(ADMIN_SEED, old_instance, epoch, head, sealed, incarnation, time, reason)
        chain.append(
            {
                "old_instance": old_instance,
                "epoch": epoch,
                "head": head,
                "replaced_sealed": sealed,
                "replaced_incarnation": incarnation,
                "time": time,
                "reason": reason,
                "statement": statement,
                "new_instance": ref.new_instance(statement),
            }
        )
    return {"admin_seed": ADMIN_SEED, "admin_key": ref.ed25519_public(ADMIN_SEED), "chain": chain}


def certificates() -> Any:
    """A chain of nine epochs, the last four of another incarnation."""
    chain: list[bytes] = []
    hashes: list[bytes] = []
    entries = []
    for epoch in range(1, 10):
        incarnation = FORMER_INCARNATION if epoch <= 5 else INCARNATION
        previous = hashes[-1] if hashes else bytes(32)
        root = ref.range_root(hashes)
        chain.append(ref.certificate(IDENTITY_SEED, INSTANCE, incarnation, epoch, previous, root))
        hashes.append(ref.certificate_hash(chain[-1]))
        entries.append(
            {
                "epoch": epoch,
                "incarnation": incarnation,
                "previous": previous,
                "range_root": root,
                "certificate": chain[-1],
                "hash": hashes[-1],
                "range_peaks_with_this": ref.range_peaks(hashes),
            }
        )
    return {"identity_seed": IDENTITY_SEED, "identity": IDENTITY, "instance": INSTANCE, "chain": entries}


def violations() -> Any:
    entries = []
    for name, code, thread, depth, bits in (
        ("hash_mismatch", 10, 1, 256, pattern(15)),
        ("epoch_mismatch", 40, 65535, 0, bytes(32)),
        ("side_names_other", 15, 0, 6, b"\xac" + bytes(31)),
    ):
        data = ref.violation(IDENTITY_SEED, INSTANCE, INCARNATION, code, thread, 8, 4096, depth, bits)
        entries.append(
            {
                "name": name,
                "code": code,
                "thread": thread,
                "epoch": 8,
                "offset": 4096,
                "key_depth": depth,
                "key_bits": bits,
                "violation": data,
            }
        )
    return {
        "identity_seed": IDENTITY_SEED,
        "identity": IDENTITY,
        "instance": INSTANCE,
        "incarnation": INCARNATION,
        "violations": entries,
    }


def administration() -> Any:
    public_key = ref.ed25519_public(CLIENT_SEED)
    entry = ref.client_entry(2, public_key, "sensor ä".encode())
    cases = []
    for sequence, (name, op, arguments, payload) in enumerate(
        (
            ("add", 1, entry, b""),
            ("remove", 2, public_key, b""),
            ("list", 3, b"", struct.pack("<H", 1) + entry),
        ),
        start=1,
    ):
        request = ref.admin_request(ADMIN_KEY, SESSION, sequence, op, arguments)
        answer = ref.admin_answer(ADMIN_KEY, SESSION, sequence, 0, 8, payload, request[-16:])
        cases.append({"name": name, "sequence": sequence, "op": op, "request": request, "answer": answer})
    return {
        "admin_key": ADMIN_KEY,
        "session": SESSION,
        "client": {"role": 2, "public_key": public_key, "name": "sensor ä"},
        "answer_status": 0,
        "answer_epoch": 8,
        "cases": cases,
    }


def vectors() -> dict[str, Any]:
    return {
        "commitments": commitments(),
        "requests": requests(),
        "handshake": handshake(),
        "overrides": overrides(),
        "certificates": certificates(),
        "violations": violations(),
        "administration": administration(),
    }


if __name__ == "__main__":
    for name, content in vectors().items():
        write(name, content)
