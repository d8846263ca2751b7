"""The client's encoders and decoders against the golden bytes, and the golden bytes against their generator."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import generate
import pytest
from kvstore_client import _operations
from kvstore_client._certificates import Chain, MountainRange, UnverifiedCertificate
from kvstore_client._crypto import SessionKeys, ephemeral_public, public_key_of
from kvstore_client._errors import CertificateError, IdentityError, KVStoreError, ProtocolError, ReceiptError
from kvstore_client._frames import encode_request_frame
from kvstore_client._lane import Lane, Sent, Turn
from kvstore_client._messages import (
    AdminOp,
    AuthorizedClient,
    FormerSession,
    Role,
    UnverifiedAdminAnswer,
    UnverifiedResumed,
    UnverifiedServerHello,
    encode_admin_request,
    encode_client_entry,
    encode_client_hello,
    encode_request,
    encode_resume,
)
from kvstore_client._receipts import Answer, Attempt, EpochOutcome, Number, Value, Written
from kvstore_client._violations import VIOLATION_NAMES, UnverifiedViolation

ROOT = Path(__file__).parents[2]


def load(name: str) -> Any:
    return json.loads((ROOT / "tests" / "vectors" / f"{name}.json").read_text())


def flip(data: bytes, position: int) -> bytes:
    """The same bytes with one bit turned."""
    return data[:position] + bytes((data[position] ^ 1,)) + data[position + 1 :]


class Collector:
    """A call that keeps what it is told."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self.errors: dict[int, KVStoreError] = {}
        self.settled = False

    def deliver(self, index: int, answer: Answer) -> None:
        self.answers[index] = answer

    def fail(self, index: int, error: KVStoreError) -> None:
        self.errors[index] = error


@pytest.mark.parametrize("name", generate.vectors().keys())
def test_vectors_are_those_of_the_generator(name: str) -> None:
    assert load(name) == generate.to_json(generate.vectors()[name])


def test_commitments() -> None:
    for case in load("commitments"):
        value = None if case["value"] is None else bytes.fromhex(case["value"])
        assert _operations.commitment(value).hex() == case["commitment"]


def operations(call: Collector) -> list[_operations.Operation]:
    long_value = bytes.fromhex(load("requests")["operations"][1]["new"])
    return [
        _operations.get(b"a", call, 0),
        _operations.put(b"bb", long_value, call, 1),
        _operations.delete(b"", call, 2),
        _operations.insert(b"c", b"new", call, 3),
        _operations.compare_and_set(b"d", None, b"new", call, 4),
        _operations.increment(b"e", -5, call, 5),
    ]


def test_request() -> None:
    vector = load("requests")
    ops = operations(Collector())
    for op, expected in zip(ops, vector["operations"], strict=True):
        assert (op.encoded.hex(), op.payload.hex()) == (expected["operation"], expected["payload"])
    turn = vector["request"]
    request = encode_request(
        bytes.fromhex(vector["request_key"]),
        turn["session"],
        turn["generation"],
        turn["thread"],
        turn["sequence"],
        turn["after_ts"],
        [op.encoded for op in ops],
    )
    assert request.hex() == turn["request"]
    assert encode_request_frame(request, [op.payload for op in ops]).hex() == turn["frame"]


def lane_with_request(call: Collector) -> Lane:
    vector = load("requests")
    turn = vector["request"]
    shared = Turn(turn["session"], turn["generation"], turn["after_ts"], 0)
    keys = bytes.fromhex(vector["request_key"]), bytes.fromhex(vector["receipt_key"])
    lane = Lane(turn["thread"], *keys, shared)
    request = bytes.fromhex(turn["request"])
    lane.in_flight.append(
        Sent(turn["sequence"], operations(call), request, turn["generation"], turn["after_ts"], epoch_min=8)
    )
    return lane


def receive(lane: Lane, frame_body: bytes) -> int:
    end = 4 + int.from_bytes(frame_body[:4], "little")
    return lane.receive(frame_body[4:end], frame_body[end:], lambda epoch: EpochOutcome(b"", epoch, epoch, 1.0))


def test_receipt() -> None:
    vector, call = load("requests"), Collector()
    assert receive(lane_with_request(call), bytes.fromhex(vector["receipt"]["frame"])[5:]) == vector["receipt"]["ts"]
    got, put, delete, insert, swap, count = (call.answers[i] for i in range(6))
    assert isinstance(got, Value)
    assert got.value == bytes.fromhex(vector["operations"][1]["new"])
    assert isinstance(put, Written)
    assert isinstance(delete, Written)
    assert isinstance(insert, Attempt)
    assert not insert.applied
    assert isinstance(swap, Attempt)
    assert (swap.applied, swap.value) == (False, b"old")
    assert isinstance(count, Number)
    assert (count.value, count.epoch) == (-5, 8)


def test_value_left_out_is_asked_for_alone() -> None:
    vector, call = load("requests"), Collector()
    lane = lane_with_request(call)
    receive(lane, bytes.fromhex(vector["receipt"]["frame_with_value_left_out"])[5:])
    assert sorted(call.answers) == [1, 2, 3, 4, 5]
    assert [(operation.index, operation.alone) for operation in lane.queue] == [(0, True)]


def test_error_receipt() -> None:
    vector, call = load("requests"), Collector()
    receipt = bytes.fromhex(vector["error_receipt"]["receipt"])
    receive(lane_with_request(call), struct.pack("<I", len(receipt)) + receipt)
    assert sorted(call.errors) == list(range(6))
    assert "after_ts" in str(call.errors[0])


def test_every_bit_of_a_receipt_counts() -> None:
    receipt = bytes.fromhex(load("requests")["receipt"]["receipt"])
    value = b"\x01" + bytes.fromhex(load("requests")["operations"][1]["new"])
    for position in range(len(receipt)):
        call = Collector()
        body = struct.pack("<I", len(receipt)) + flip(receipt, position) + value
        with pytest.raises(ReceiptError):
            receive(lane_with_request(call), body)
        assert not call.answers


def test_resume() -> None:
    vector = load("requests")
    turn = vector["resume"]
    request_key, receipt_key = bytes.fromhex(vector["request_key"]), bytes.fromhex(vector["receipt_key"])
    nonce = bytes.fromhex(turn["nonce"])
    resume = encode_resume(request_key, turn["session"], turn["generation"], turn["thread"], nonce)
    assert resume.hex() == turn["resume"]
    resumed = bytes.fromhex(vector["resumed"]["resumed"])
    answer = UnverifiedResumed(resumed).verify(receipt_key, resume)
    assert answer == (vector["resumed"]["sequence"], vector["resumed"]["ts"])
    for position in range(len(resumed)):
        with pytest.raises((ReceiptError, ProtocolError)):
            UnverifiedResumed(flip(resumed, position)).verify(receipt_key, resume)
    with pytest.raises(ReceiptError):
        UnverifiedResumed(resumed).verify(receipt_key, flip(resume, 20))


def test_handshake() -> None:
    vector = load("handshake")
    identity = bytes.fromhex(vector["identity"])
    secret = bytes.fromhex(vector["client_ephemeral_secret"])
    for case in vector["cases"]:
        client_seed = bytes.fromhex(case["client_seed"]) if case["client_seed"] else None
        former = None
        if case["former_key"]:
            incarnation, key = bytes.fromhex(case["former_incarnation"]), bytes.fromhex(case["former_key"])
            former = FormerSession(incarnation, case["former_session"], key)
        client_hello = encode_client_hello(identity, ephemeral_public(secret), client_seed, former)
        assert client_hello.hex() == case["client_hello"]
        data = bytes.fromhex(case["server_hello"])
        hello = UnverifiedServerHello(data).verify(identity, client_hello)
        assert (hello.role, hello.threads, hello.session) == (case["role"], vector["threads"], vector["session"])
        assert [statement.hex() for statement in hello.overrides] == case["overrides"]
        assert hello.head.instance.hex() == case["instance"]
        assert hello.former_last == (case["former_last"] if case["former_status"] == 1 else None)
        assert hello.former_replayed == (case["former_replayed"] if case["former_status"] == 1 else None)
        assert hello.replay_epoch == case["replay_epoch"]
        assert hello.former_may_be_replayed == (case["former_status"] == 3)
        assert (hello.head.epoch, hello.head.hash.hex()) == (vector["epoch"], vector["head"])
        keys = SessionKeys(secret, hello.ephemeral, client_hello, data)
        assert [keys.request(thread).hex() for thread in range(2)] == case["request_keys"]
        assert [keys.receipt(thread).hex() for thread in range(2)] == case["receipt_keys"]
        assert (keys.admin.hex(), keys.former.hex()) == (case["admin_key"], case["former_key_of_this_session"])
        for position in range(len(data)):
            with pytest.raises((IdentityError, ProtocolError)):
                UnverifiedServerHello(flip(data, position)).verify(identity, client_hello)
        with pytest.raises(IdentityError):
            UnverifiedServerHello(data).verify(identity, flip(client_hello, 4))


def test_useless_ephemeral_key_is_refused() -> None:
    with pytest.raises(ValueError, match="shared key"):
        SessionKeys(b"\x01" * 32, bytes(32), b"", b"")


def test_certificates() -> None:
    vector = load("certificates")
    identity, mountains = bytes.fromhex(vector["identity"]), MountainRange()
    chain = Chain(identity, bytes.fromhex(vector["instance"]), 0, MountainRange())
    for entry in vector["chain"]:
        assert mountains.root().hex() == entry["range_root"]
        certificate = chain.extend([UnverifiedCertificate(bytes.fromhex(entry["certificate"]))])
        assert certificate is not None
        assert (certificate.epoch, certificate.hash.hex()) == (entry["epoch"], entry["hash"])
        mountains.append(certificate.hash)
        assert [peak.hex() for peak in mountains.peaks] == entry["range_peaks_with_this"]
    for entry in vector["chain"]:
        assert chain.incarnation_of(entry["epoch"]) == bytes.fromhex(entry["incarnation"])
    assert chain.last_epoch_of(bytes.fromhex(vector["chain"][0]["incarnation"])) == 5
    data = bytes.fromhex(vector["chain"][0]["certificate"])
    for position in range(len(data)):
        with pytest.raises((CertificateError, ProtocolError)):
            UnverifiedCertificate(flip(data, position)).verify(identity)


def test_violations() -> None:
    vector = load("violations")
    identity = bytes.fromhex(vector["identity"])
    for entry in vector["violations"]:
        data = bytes.fromhex(entry["violation"])
        violation = UnverifiedViolation(data).verify(identity)
        assert (violation.name, violation.code) == (entry["name"], entry["code"])
        assert violation.thread == (None if entry["thread"] == 65535 else entry["thread"])
        assert (violation.epoch, violation.offset) == (entry["epoch"], entry["offset"])
        assert (violation.key_depth, violation.key_bits.hex()) == (entry["key_depth"], entry["key_bits"])
        assert entry["name"] in violation.describe()
        for position in range(len(data)):
            with pytest.raises(ProtocolError):
                UnverifiedViolation(flip(data, position)).verify(identity)
        with_text = UnverifiedViolation(data + "record 'é'\x1b[2J".encode() + b"\xff")
        assert with_text.signed == data
        added = with_text.verify(identity)
        assert added.host_finding == "record 'é'\ufffd[2J\ufffd"
        assert "the host adds, unproved: record" in added.describe()
        assert replace(added, host_finding="") == violation


def test_administration() -> None:
    vector = load("administration")
    key, session = bytes.fromhex(vector["admin_key"]), vector["session"]
    client = vector["client"]
    public_key = bytes.fromhex(client["public_key"])
    assert public_key == public_key_of(generate.CLIENT_SEED)
    arguments = {
        AdminOp.ADD: encode_client_entry(Role(client["role"]), public_key, client["name"]),
        AdminOp.REMOVE: public_key,
        AdminOp.LIST: b"",
    }
    for case in vector["cases"]:
        op = AdminOp(case["op"])
        request = encode_admin_request(key, session, case["sequence"], op, arguments[op])
        assert request.hex() == case["request"]
        data = bytes.fromhex(case["answer"])
        answer = UnverifiedAdminAnswer(data).verify(key, request)
        assert (answer.status, answer.epoch) == (vector["answer_status"], vector["answer_epoch"])
        listed = [AuthorizedClient(Role.WRITE, public_key, client["name"])] if op is AdminOp.LIST else []
        assert answer.clients == listed
        for position in range(len(data)):
            with pytest.raises(ReceiptError):
                UnverifiedAdminAnswer(flip(data, position)).verify(key, request)


def test_violation_names_are_those_of_the_protocol() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    table = text[text.index("### Violation codes") :].split("\n## ")[0]
    documented = {int(code): name for code, name in re.findall(r"^\| (\d+) \| (\w+) \|", table, re.MULTILINE)}
    assert len(documented) > 30
    assert documented == VIOLATION_NAMES
