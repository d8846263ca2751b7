"""The log's writer: durable before it says so, one sync for many, and no trust in a file that a sync has failed on."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore import limits
from kvstore.framing import HEADER_BYTES, pack_frame
from kvstore.messages import ERROR, ErrorCode, Server
from kvstore.wal import writer as writer_module
from kvstore.wal.files import Segment, segments
from kvstore.wal.gate import Answers, Gate
from kvstore.wal.request_log import RequestLog
from kvstore.wal.tickets import Tickets
from kvstore.wal.writer import LogWriter

STREAM = "worker-00"


class Log:
    """A writer, and what it has told."""

    def __init__(self, directory: Path, found: list[Segment] | None = None) -> None:
        self.durable = 0
        self.troubles: list[str | None] = []
        self.writer = LogWriter(
            directory,
            STREAM,
            thread=0,
            threads=1,
            on_durable=lambda number: setattr(self, "durable", number),
            on_trouble=self.troubles.append,
            segments=found or [],
        )

    async def until_durable(self, number: int) -> None:
        await until(lambda: self.durable >= number)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.005)


@pytest.fixture
async def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    log.writer.close()


def read(directory: Path) -> list[tuple[int, list[bytes]]]:
    return [(segment.epoch, list(segment.records())) for segment in segments(directory, STREAM)]


async def test_records_of_two_epochs_are_two_segments(tmp_path: Path, log: Log) -> None:
    for epoch, record in ((1, b"a"), (1, b"b"), (2, b"c")):
        number = log.writer.append(epoch, record)
    await log.until_durable(number)
    assert read(tmp_path) == [(1, [b"a", b"b"]), (2, [b"c"])]


async def test_certified_segments_are_deleted(tmp_path: Path, log: Log) -> None:
    log.writer.append(1, b"a")
    await log.until_durable(log.writer.append(2, b"b"))
    log.writer.certified(1)
    await until(lambda: len(list(tmp_path.iterdir())) == 1)
    assert read(tmp_path) == [(2, [b"b"])]
    log.writer.certified(2)
    await until(lambda: not list(tmp_path.iterdir()))
    await log.until_durable(log.writer.append(3, b"c"))
    assert read(tmp_path) == [(3, [b"c"])]


async def test_segments_of_before_are_deleted_with_their_epoch(tmp_path: Path, log: Log) -> None:
    log.writer.append(1, b"a")
    await log.until_durable(log.writer.append(2, b"b"))
    log.writer.close()
    found = segments(tmp_path, STREAM)
    for segment in found:
        segment.epoch = 1  # that the second incarnation replays it in
    second = Log(tmp_path, found)
    await second.until_durable(second.writer.append(1, b"c"))
    await second.until_durable(second.writer.append(2, b"d"))
    found = segments(tmp_path, STREAM)
    assert [(segment.epoch, list(segment.records())) for segment in found] == [
        (1, [b"a"]),
        (1, [b"b"]),
        (1, [b"c"]),
        (2, [b"d"]),
    ]
    second.writer.certified(1)
    await until(lambda: len(os.listdir(tmp_path)) == 1)
    second.writer.close()
    assert read(tmp_path) == [(2, [b"d"])]


async def test_many_records_share_a_sync(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    going_on, syncs = threading.Event(), 0
    sync = os.fdatasync

    def slow(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        going_on.wait(5)
        sync(descriptor)

    monkeypatch.setattr(writer_module.os, "fdatasync", slow)
    log.writer.append(1, b"first")
    await until(lambda: syncs == 1)
    numbers = [log.writer.append(1, b"%d" % record) for record in range(100)]
    await asyncio.sleep(0.02)
    assert log.durable == 0, "nothing is durable before the sync has returned"
    going_on.set()
    await log.until_durable(numbers[-1])
    assert syncs == 2


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
async def test_after_a_failure_another_file_goes_on(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    await log.until_durable(log.writer.append(1, b"a"))
    failures = 0

    def fail(*_: object) -> int:
        nonlocal failures
        failures += 1
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(writer_module, "_RETRY_SECONDS", 0.01)
    with monkeypatch.context() as failing:
        failing.setattr(writer_module.os, call, fail)
        log.writer.append(1, b"b")
        await until(lambda: failures > 2)
        number = log.writer.append(1, b"c")
        assert log.durable == 1
        assert len(log.troubles) == 1
        assert os.strerror(code) in str(log.troubles[0])
    await log.until_durable(number)
    await until(lambda: log.troubles[-1] is None)
    # What the first file got behind its durable part is not believed, though it looks good.
    assert read(tmp_path) == [(1, [b"a", b"b", b"c"])]
    assert segments(tmp_path, STREAM)[0].files[-1].header.former_bytes > 0


async def test_what_the_disk_did_not_take_is_not_needed_when_certified(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(writer_module, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(writer_module.os, "fdatasync", fail)
    with monkeypatch.context() as failing:
        failing.setattr(writer_module.os, "fsync", fail)
        number = log.writer.append(1, b"a")
        await until(lambda: bool(log.troubles))
        log.writer.certified(1)
        await log.until_durable(number)
        await asyncio.sleep(0.05)
        assert None not in log.troubles, "the disk is as bad as before"
    # Nobody is let in who would bring another record, so the writer finds out by itself.
    await until(lambda: log.troubles[-1] is None)
    assert not [name for name in os.listdir(tmp_path) if "probe" in name]


async def test_tickets_ask_for_a_cut_and_are_refused_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TICKETS_PER_EPOCH", 3)
    monkeypatch.setattr(limits, "TICKETS_MAX", 5)
    kept: list[int] = []
    tickets = Tickets(tmp_path, threads=1, open_epoch=1, on_trouble=lambda _text: None)
    try:
        enough = [tickets.keep(1, b"%d" % number, lambda: kept.append(1)) for number in range(3)]
        assert enough == [False, False, True]
        enough = [tickets.keep(2, b"%d" % number, lambda: kept.append(2)) for number in range(2)]
        assert enough == [False, False]
        assert tickets.are_too_many
        assert "wait for the next" in tickets.refusal
        await until(lambda: kept == [1, 1, 1, 2, 2])
        tickets.certified(1)
        assert tickets.refusal, "the sealed state of epoch 1 need not have them"
        tickets.certified(2)
        assert not tickets.refusal
    finally:
        tickets.close()


async def test_tickets_are_refused_while_the_disk_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(writer_module, "_RETRY_SECONDS", 0.01)
    troubles: list[str] = []
    kept: list[bool] = []
    tickets = Tickets(tmp_path, threads=1, open_epoch=1, on_trouble=troubles.append)
    try:
        with monkeypatch.context() as failing:
            failing.setattr(writer_module.os, "fdatasync", fail)
            tickets.keep(1, b"ticket", lambda: kept.append(True))
            await until(lambda: bool(tickets.refusal))
            assert "no space" in tickets.refusal
            assert not kept
        await until(lambda: not tickets.refusal)
        assert kept == [True]
        assert troubles[-1] == ""
    finally:
        tickets.close()


def test_gate_lets_answers_out_in_order_when_their_records_are_durable() -> None:
    gate = Gate()
    gate.hold(0, [(1, b"a")])
    gate.hold(1, [(2, b"b")])
    gate.hold(3, [(3, b"c"), (1, b"d")])
    assert gate.release() == [(1, b"a")]
    gate.durable(2)
    assert gate.release() == [(2, b"b")]
    gate.durable(3)
    assert gate.release() == [(3, b"c"), (1, b"d")]
    gate.hold(2, [(4, b"e")])
    assert gate.release() == [(4, b"e")]


def test_gate_gives_up_what_it_holds() -> None:
    gate = Gate()
    gate.durable(1)
    gate.hold(2, [(1, b"a"), (2, b"b")])
    gate.hold(3, [(1, b"c")])
    gate.give_up(b"error")
    gate.hold(3, [(4, b"d")])
    assert gate.release() == [(1, b"error"), (2, b"error"), (1, b"error")]
    gate.durable(3)
    assert gate.release() == [(4, b"d")]


async def test_answers_that_are_held_too_long_are_given_up_and_their_records_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    def released() -> None:
        answers.extend(log.released())

    monkeypatch.setattr(writer_module, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(limits, "LOG_PATIENCE_SECONDS", 0.2)
    answers: Answers = []
    receipt = pack_frame(Server.RECEIPT, bytes(64))
    not_now, no_answer_now = (ERROR.pack(code) for code in (ErrorCode.NOT_NOW, ErrorCode.NO_ANSWER_NOW))
    log = RequestLog(tmp_path, 0, 1, 1, released, lambda _text: None)
    try:
        with monkeypatch.context() as failing:
            failing.setattr(writer_module.os, "fdatasync", fail)
            log.hold(1, b"record", [])
            log.hold(1, b"", [(7, receipt)])
            await until(lambda: bool(log.refusal))
            assert log.refusal[HEADER_BYTES:].startswith(not_now)
            assert not answers, "the disk may soon work again"
            await until(lambda: bool(answers))
            log.hold(1, b"late", [(8, receipt)])
            await until(lambda: len(answers) == 2)
            assert answers == [(7, log.refusal), (8, log.refusal)]
            assert log.refusal[HEADER_BYTES:].startswith(no_answer_now)
            assert b"no space" in log.refusal
        await until(lambda: not log.refusal)
        log.hold(1, b"", [(9, receipt)])
        await until(lambda: len(answers) == 3)
        assert answers[2] == (9, receipt)
    finally:
        log.close()
    assert read(tmp_path) == [(1, [b"record", b"late"])]
