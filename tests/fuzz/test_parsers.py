"""What Python reads from others: whatever the bytes are, it is read, or refused with the error that is meant for it."""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kvstore_client._certificates import UnverifiedCertificate
from kvstore_client._codec import Reader
from kvstore_client._errors import KVStoreError, ProtocolError
from kvstore_client._frames import FrameParser as ClientParser
from kvstore_client._frames import Greeting, Rejected, decode_checkpoint, decode_error, decode_keys
from kvstore_client._heads import Head
from kvstore_client._messages import UnverifiedAdminAnswer, UnverifiedResumed, UnverifiedServerHello
from kvstore_client._overrides import Override
from kvstore_client._violations import UnverifiedViolation

from kvstore.framing import BadFrameError, pack_frame
from kvstore.framing import FrameParser as HostParser
from kvstore.wal.format import HEADER_BYTES, DamagedLogError, Header, LogReader, TornHeaderError, encode_group

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
FRAME_BYTES_MAX = 16 * 1024 * 1024 + 64 * 1024
SALT = bytes(range(16))
KEY = bytes(32)

FUZZ = settings(deadline=None, max_examples=int(os.environ.get("ZETAKV_EXAMPLES", "100")))
"""No deadline: machines are busy. `ZETAKV_EXAMPLES`: more of them. `--hypothesis-seed=N` repeats a run."""

frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8)


def hexes(vector: Any) -> Iterator[bytes]:
    """Every byte string in a file of golden vectors."""
    if isinstance(vector, dict):
        vector = list(vector.values())
    if isinstance(vector, list):
        for part in vector:
            yield from hexes(part)
    elif isinstance(vector, str) and len(vector) >= 40:
        try:
            yield bytes.fromhex(vector)
        except ValueError:
            return


SAMPLES = sorted({sample for path in VECTORS.glob("*.json") for sample in hexes(json.loads(path.read_text()))})


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Golden messages, cut, spliced and with bytes changed, or any bytes."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=400))
    message = bytearray(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(message)))
        until = min(len(message), at + draw(st.integers(0, 8)))
        message[at:until] = draw(st.binary(max_size=8))
    return bytes(message)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def client_frames(chunks: list[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
    parser, found = ClientParser(), []
    for chunk in chunks:
        try:
            found += parser.feed(chunk)
        except ProtocolError:
            return found, True
    return found, False


def host_frames(chunks: list[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
    parser, found = HostParser(FRAME_BYTES_MAX), []
    try:
        for chunk in chunks:
            found += list(parser.feed(chunk))
    except BadFrameError:
        return found, True
    return found, False


@FUZZ
@given(frames, st.lists(st.integers(0, 2000), max_size=8))
def test_frames_are_read_as_written_however_they_arrive(sent: list[tuple[int, bytes]], places: list[int]) -> None:
    chunks = cut(b"".join(pack_frame(kind, body) for kind, body in sent), places)
    assert client_frames(chunks) == (sent, False)
    assert host_frames(chunks) == (sent, False)


@FUZZ
@given(st.lists(st.one_of(st.binary(max_size=12), st.integers(0, 40).map(lambda n: n.to_bytes(4, "little")))))
def test_any_bytes_are_frames_or_refused_and_both_sides_agree(parts: list[bytes]) -> None:
    """Bytes that come one by one: each side has the same frames by then, or has refused them."""
    chunks = [bytes((byte,)) for byte in b"".join(parts)]
    client, client_refused = client_frames(chunks)
    host, host_refused = host_frames(chunks)
    shorter = min(len(client), len(host))
    assert client[:shorter] == host[:shorter]
    assert client_refused or host_refused or client == host


DECODERS: list[Callable[[bytes], object]] = [
    Greeting.decode,
    Rejected.decode,
    decode_error,
    decode_keys,
    decode_checkpoint,
    Override.read,
    lambda data: UnverifiedServerHello(data).verify(KEY, data),
    lambda data: UnverifiedResumed(data).verify(KEY, bytes(48)),
    lambda data: UnverifiedAdminAnswer(data).verify(KEY, data[:16] + bytes(32)),
    lambda data: UnverifiedCertificate(data).verify(KEY),
    lambda data: UnverifiedViolation(data).verify(KEY),
    lambda data: Reader(data, "text").text(),
]


@pytest.mark.parametrize("decoder", range(len(DECODERS)))
@FUZZ
@given(data=messages())
def test_what_a_host_says_is_read_or_refused(decoder: int, data: bytes) -> None:
    with contextlib.suppress(KVStoreError):
        DECODERS[decoder](data)


@FUZZ
@given(st.one_of(st.text(), messages().map(lambda data: f"zetakv-head-1:{data.hex()}")))
def test_any_text_is_a_head_or_refused(text: str) -> None:
    with contextlib.suppress(KVStoreError, ValueError):
        assert str(Head.parse(text, KEY.hex())) == text


@FUZZ
@given(st.binary(max_size=HEADER_BYTES + 4))
def test_any_header_of_a_log_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(TornHeaderError, DamagedLogError):
        assert Header.decode(data).encode() == data[:HEADER_BYTES]


groups = st.lists(st.lists(st.binary(max_size=60), min_size=1, max_size=3), min_size=1, max_size=4)
changes = st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=3)


@FUZZ
@given(groups, changes)
def test_a_changed_log_gives_its_records_in_order_or_is_damaged(
    written: list[list[bytes]], made: list[tuple[int, bytes, int]]
) -> None:
    data = bytearray(Header(1, 0, 1, 1, 0, SALT).encode())
    for group in written:
        data += encode_group(SALT, len(data), group)
    for at, new, removed in made:
        place = HEADER_BYTES + at % (len(data) - HEADER_BYTES + 1)
        data[place : place + removed] = new
    reader = LogReader(lambda at, length: bytes(data[at : at + length]), len(data), SALT)
    records = [record for group in written for record in group]
    found = []
    with contextlib.suppress(DamagedLogError):
        found.extend(reader.records())
    assert found == records[: len(found)]
    assert HEADER_BYTES <= reader.good_bytes <= max(len(data), HEADER_BYTES)
