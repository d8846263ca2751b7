"""The model of a monitor: its threads and its aggregator, driven by a script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from . import observe, steps
from .aggregator import Aggregator, HeldEpoch
from .book import Book
from .chain import LogConfig
from .epochs import Clocks
from .steps import Step
from .thread import Thread
from .values import Node


class Monitor:
    def __init__(self, leaf_depth: int, book: Book) -> None:
        self.leaf_depth = leaf_depth
        self.book = book
        self.threads: list[Thread] = []
        self.held: HeldEpoch | None = None

    def follow(self, script: Iterable[Step]) -> list[list[str]]:
        """What can be seen of each step."""
        return [self.do(step) for step in script]

    def do(self, step: Step) -> list[str]:
        match step:
            case steps.Start(threads, slots, queue_bytes):
                self.start(threads, slots, queue_bytes)
            case steps.KeepLog():
                self.keep_log(step)
            case steps.Open(session, role, request_key, receipt_key):
                for thread in self.threads:
                    thread.sessions.open(session, role, request_key, receipt_key)
            case steps.Close(session):
                for thread in self.threads:
                    thread.sessions.close(session)
            case steps.SetRole(session, role):
                for thread in self.threads:
                    thread.sessions.set_role(session, role or None)
            case steps.Process(thread, log):
                progress, outputs = self.threads[thread].process(log)
                return [observe.progress(progress), observe.data(outputs)]
            case steps.Observe(thread):
                return observe.thread(self.threads[thread], len(self.threads))
            case steps.TimeOut(thread):
                return [observe.progress(self.threads[thread].time_out())]
            case steps.Submit(thread):
                return self.submit(self.threads[thread])
            case steps.Certify():
                if self.held:
                    self.clocks.certified = self.held.epoch
        return []

    def start(self, threads: int, slots: int, queue_bytes: int) -> None:
        held = self.held
        certified, root = (held.epoch, held.root) if held else (0, Node())
        carried = held.carried if held else Counter()
        self.clocks = Clocks(certified)
        self.aggregator = Aggregator(threads, certified + 1)
        self.threads = [
            Thread(
                number=number,
                slots=slots,
                queue_bytes=queue_bytes,
                leaf_depth=self.leaf_depth,
                certified=certified,
                root=root if number == 0 else None,
                carried=carried if number == 0 else Counter(),
                clocks=self.clocks,
                book=self.book,
            )
            for number in range(threads)
        ]

    def keep_log(self, log: steps.KeepLog) -> None:
        threads = len(self.threads)
        tags = self.held.tags if self.held and len(self.held.tags) == threads else [None] * threads
        for thread, tag in zip(self.threads, tags, strict=True):
            thread.keep_log(LogConfig(log.key, threads, log.instance, log.incarnation, log.sealed_by, tag, log.latest))

    def submit(self, thread: Thread) -> list[str]:
        snapshot, thread.snapshot = thread.snapshot, None
        if snapshot is None:
            return ["no snapshot"]
        lines = observe.snapshot(snapshot)
        if self.aggregator.failed:
            return [*lines, "epoch_mismatch before"]
        held = self.aggregator.submit(snapshot)
        if self.aggregator.failed:
            return [*lines, f"epoch_mismatch epoch {self.aggregator.epoch}"]
        if held is None:
            return [*lines, "others are missing"]
        self.held = held
        return [*lines, *observe.held(held)]
