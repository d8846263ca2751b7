"""A worker's write-ahead log: what the monitor admitted is durable before an answer to it goes out.

A round's record holds what its log message had admitted; the receipts of those requests come with a later round. So
the sync of the one overlaps with the proofs of the other. Records are the prover's, opaque here.

While the disk takes nothing, answers are held, and requests refused. If that lasts, the log gives them up: each client
is told, in place of its answer, that there is none now. The receipt is dropped, the record is not: whether its request
took effect is told by the monitor, when the client resumes its session.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from kvstore import failpoints, limits
from kvstore._prover import Prover
from kvstore.client_port import error_frame
from kvstore.framing import HEADER_BYTES
from kvstore.messages import ErrorCode, Server
from kvstore.wal import files
from kvstore.wal.gate import Answers, Gate
from kvstore.wal.writer import LogWriter

logger = logging.getLogger(__name__)

_TYPE_AT: Final = HEADER_BYTES - 1
# In a receipt's frame: header, length, then the receipt up to its ts (protocol section 3).
_ERROR_AT: Final = HEADER_BYTES + 4 + 32
_REPLAYED_AT_ONCE_BYTES: Final = 8 << 20
"""Of records that are in the prover before it is let run: bounds memory, and is enough for its largest batches."""
_PROGRESS_SECONDS: Final = 5.0


class RequestLog:
    """The log of one verifier thread."""

    def __init__(
        self,
        directory: Path,
        index: int,
        threads: int,
        open_epoch: int,
        on_release: Callable[[], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        """Finds what is to be replayed. `on_release`: call `released()`. Raises DamagedLogError, OSError.

        `on_trouble(text)`: the disk does not take records, and why; empty: it does again.
        """
        stream = files.worker_stream(index)
        found = files.segments(directory, stream)
        outdated = [segment for segment in found if segment.epoch < open_epoch]
        files.remove(directory, outdated)
        self._replayed = found[len(outdated) :]
        for segment in self._replayed:
            segment.epoch = open_epoch  # that it is replayed in
        self._on_release = on_release
        self._on_trouble = on_trouble
        self._gate = Gate()
        self._appended = 0
        self._durable = asyncio.Event()
        self._durable_number = 0
        self.refusal = b""
        """The error frame for what arrives now; empty if requests are taken."""
        self._giving_up: asyncio.TimerHandle | None = None
        self._writer = LogWriter(
            directory,
            stream,
            thread=index,
            threads=threads,
            on_durable=self._is_durable,
            on_trouble=self._is_troubled,
            segments=self._replayed,
        )

    async def replay(self, prover: Prover, run: Callable[[], Awaitable[None]]) -> None:
        """Have the prover replay what is there, and make the mark of this incarnation durable. `run`: until it is idle.

        Raises DamagedLogError, OSError, FrameError, and what `run` raises.
        """
        loop = asyncio.get_running_loop()
        records = waiting = 0
        told = loop.time()
        for segment in self._replayed:
            for record in segment.records():
                failpoints.hit("worker.in_replay")
                prover.replay(record)
                records += 1
                waiting += len(record)
                if waiting > _REPLAYED_AT_ONCE_BYTES:
                    waiting = 0
                    await run()
                if loop.time() - told > _PROGRESS_SECONDS:
                    told = loop.time()
                    logger.info("replaying the write-ahead log: %d records so far", records)
        prover.end_replay()
        await run()
        while self._durable_number < self._appended:
            self._durable.clear()
            await self._durable.wait()
        if records:
            logger.info("replayed %d records of the write-ahead log", records)

    def hold(self, epoch: int, record: bytes, answers: Answers) -> None:
        """A round is over: `record` is of what it had admitted (b"": nothing), `answers` are due, when they may go."""
        needed = self._appended
        if record:
            self._appended = self._writer.append(epoch, record)
            # Only what was refused is answered in the round of its record.
            if any(frame[_TYPE_AT] == Server.RECEIPT and frame[_ERROR_AT] for _, frame in answers):
                needed = self._appended
        if answers:
            self._gate.hold(needed, answers)
            self._on_release()

    def released(self) -> Answers:
        """The answers that may go out now."""
        return self._gate.release()

    def certified(self, epoch: int) -> None:
        self._writer.certified(epoch)

    def close(self) -> None:
        self._writer.close()

    def _is_durable(self, number: int) -> None:
        self._durable_number = max(self._durable_number, number)
        self._durable.set()
        self._gate.durable(number)
        self._on_release()

    def _is_troubled(self, text: str | None) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
        if text is None:
            self.refusal = b""
        else:
            self.refusal = error_frame(ErrorCode.NOT_NOW, text)
            self._give_up_later(text)
        self._on_trouble(text or "")

    def _give_up_later(self, text: str) -> None:
        loop = asyncio.get_running_loop()
        self._giving_up = loop.call_later(limits.LOG_PATIENCE_SECONDS, self._give_up, text)

    def _give_up(self, text: str) -> None:
        self.refusal = error_frame(ErrorCode.NO_ANSWER_NOW, text)
        self._gate.give_up(self.refusal)
        self._on_release()
        # What was let in before the trouble may be answered after this.
        self._give_up_later(text)
