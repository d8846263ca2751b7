"""The frame parser: every way of cutting the stream gives the same frames, and what is no frame is refused."""

import random

import pytest

from kvstore.framing import BadFrameError, FrameParser, FrameTooLongError, pack_frame

FRAMES = [(1, b""), (2, b"x"), (0x85, bytes(300)), (255, b"\0" * 5), (3, bytes(range(256)))]
STREAM = b"".join(pack_frame(kind, body) for kind, body in FRAMES)


def test_a_frame_has_length_type_and_body() -> None:
    assert pack_frame(0x81, b"ab", b"c") == b"\x04\0\0\0\x81abc"


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 64, len(STREAM)])
def test_any_cutting_gives_the_same_frames(step: int) -> None:
    parser = FrameParser(1_000)
    found = [frame for at in range(0, len(STREAM), step) for frame in parser.feed(STREAM[at : at + step])]
    assert found == FRAMES


def test_random_cutting_gives_the_same_frames() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    randomness = random.Random(seed)
    parser = FrameParser(1_000)
    found, at = [], 0
    while at < len(STREAM):
        size = randomness.randrange(1, 400)
        found += parser.feed(STREAM[at : at + size])
        at += size
    assert found == FRAMES


def test_bodies_are_independent_of_the_buffer() -> None:
    parser = FrameParser(1_000)
    assert list(parser.feed(STREAM[:8])) == [(1, b"")]
    first = list(parser.feed(STREAM[8:]))
    list(parser.feed(b"\xff" * 3))
    assert first == FRAMES[1:]


def test_length_zero_is_refused_after_the_frames_before_it() -> None:
    frames = FrameParser(1_000).feed(pack_frame(7, b"ok") + bytes(4))
    assert next(frames) == (7, b"ok")
    with pytest.raises(BadFrameError, match="no type"):
        next(frames)


def test_too_long_is_refused_by_the_length_alone() -> None:
    with pytest.raises(FrameTooLongError, match="101 bytes, where at most 100"):
        list(FrameParser(100).feed((101).to_bytes(4, "little")))
    assert list(FrameParser(100).feed(pack_frame(1, bytes(99)))) == [(1, bytes(99))]
