"""One verifier thread: reads its log, entry by entry, checks each, and answers. See docs/verification.md, section 2.

A violation is final, and nothing that was answered in the same piece of log leaves with it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from . import entries, macs, operations, requests
from .book import Book
from .cache import Cache
from .chain import Chain, LogConfig
from .check import Fault, check, require
from .epochs import Clocks, Element, Epochs, Moment, Multiset, Sums
from .keys import ROOT, Key, is_ancestor, path_of
from .macs import Mac
from .operations import Operation, Result
from .queue import Queue, QueuedRequest, QueuedResume
from .sessions import Rejected, Sessions
from .values import Commitment, Node, Null
from .wire import Malformed, Reader

ADMITTED, REJECTED, NOT_YET, REFUSED, RECEIPT, RESUMED, HANDED_OVER, EPOCH_NOT_YET, FAILED, LOGGED = range(1, 11)


@dataclass
class EpochEnd:
    """What a thread has at the end of an epoch, beside what is in Blum."""

    root: Node | None
    sessions: list[tuple[int, int]]
    tag: Mac | None


@dataclass
class Snapshot:
    """What a thread hands over of an epoch."""

    thread: int
    epoch: int
    added: Multiset
    evicted: Multiset
    carried: Multiset
    end: EpochEnd


@dataclass(frozen=True)
class Violation:
    check: str
    code: str
    epoch: int
    offset: int
    key: Key


@dataclass(frozen=True)
class Waiting:
    """The entry after `consumed` bytes waits for another thread's clock."""

    consumed: int


class Wait(Exception):  # noqa: N818  not an error
    """This entry waits for another thread's clock."""


class Thread:
    def __init__(
        self,
        number: int,
        slots: int,
        queue_bytes: int,
        leaf_depth: int,
        certified: int,
        root: Node | None,
        carried: Multiset,
        clocks: Clocks,
        book: Book,
    ) -> None:
        self.number = number
        self.leaf_depth = leaf_depth
        self.book = book
        self.cache = Cache(slots, root, leaf_depth, book)
        self.epochs = Epochs(number, clocks, Moment(certified + 1, 1), Sums(evicted=carried.copy()))
        self.sessions = Sessions(number, book)
        self.queue = Queue(queue_bytes, book)
        self.chain: Chain | None = None
        self.results: list[Result] = []
        """Of the request at the head of the queue, so far."""
        self.end: EpochEnd | None = None
        """Of the closing epoch."""
        self.snapshot: Snapshot | None = None
        self.offset = 0
        self.waiting_for: Key = ROOT
        self.failed: Violation | None = None
        self.outputs = b""

    def keep_log(self, config: LogConfig) -> None:
        self.chain = Chain(config, self.number, self.book)

    def process(self, log: bytes) -> tuple[Waiting | Violation | None, bytes]:
        """Check a piece of the log. How far it came (None: all is done), and the outputs."""
        if self.failed:
            return self.failed, b""
        self.outputs = b""
        reader, consumed = Reader(log, self.book), 0
        while not reader.is_at_end:
            try:
                self.step(reader.entry())
            except Malformed:
                return self.fail("malformed_log", "malformed_log", ROOT), b""
            except Fault as fault:
                return self.fail(fault.check, fault.code, fault.key), b""
            except Wait:
                return Waiting(consumed), self.outputs
            self.offset += reader.at - consumed
            consumed = reader.at
        if self.chain and self.chain.is_untold:
            self.chain.is_untold = False
            self.answer(LOGGED, self.chain.tag.name)
        return None, self.outputs

    def time_out(self) -> Violation:
        return self.failed or self.fail("time_out", "clock_not_passed", self.waiting_for)

    def fail(self, check: str, code: str, key: Key) -> Violation:
        self.failed = Violation(check, code, self.epochs.clock.epoch, self.offset, key)
        return self.failed

    def answer(self, kind: int, content: bytes = b"") -> None:
        self.outputs += bytes((kind,)) + content

    def answer_counted(self, kind: int, content: bytes) -> None:
        self.answer(kind, len(content).to_bytes(4, "little") + content)

    def step(self, entry: entries.Entry) -> None:
        match entry:
            case entries.AddMerkle(slot, parent, key, value):
                self.cache.add_merkle(slot, parent, key, value)
            case entries.EvictMerkle(slot, parent):
                self.cache.evict_merkle(slot, parent)
            case entries.AddBlum(slot, ts, thread, key, value):
                self.add_blum(slot, Element(key, value, ts, thread))
            case entries.EvictBlum(slot, ts):
                self.evict_blum(slot, ts)
            case entries.EvictBlumMerkle(slot, parent, ts):
                self.evict_blum_merkle(slot, parent, ts)
            case entries.NextEpoch():
                self.next_epoch()
            case entries.CarryOver(ts, thread, key, value):
                self.epochs.carry_over(Element(key, value, ts, thread))
            case entries.VerifyEpoch():
                self.verify_epoch()
            case entries.Tick():
                self.epochs.tick()
            case entries.Request(request):
                self.request(request)
            case entries.Run(slots):
                self.run(slots)
            case entries.RunAbsent(parent):
                self.run_absent(parent)
            case entries.Resume(resume):
                self.resume(resume)
            case entries.ReplayMark(incarnation):
                self.replaying().mark(incarnation)
            case entries.Replay(role, request):
                self.replay(role, request)
            case entries.EndReplay(tag):
                self.replaying().end_replay(self.book.mac_named(tag))

    # Records and epochs

    def add_blum(self, slot: int, element: Element) -> None:
        key = element.key
        self.cache.check_addable(slot, key, element.value)
        check("add_blum_not_root", key != ROOT, "root_is_permanent", key)
        if not self.epochs.may_add(key, element.ts, element.thread):
            self.waiting_for = key
            raise Wait
        self.epochs.add(element)
        self.cache.insert(slot, key, element.value)

    def evict_blum(self, slot: int, ts: Moment) -> None:
        record = self.cache.evictable(slot)
        check("evict_blum_came_from_blum", record.parent is None, "not_added_by_blum", record.key)
        self.epochs.evict(record.key, record.value, ts)
        self.cache.remove(slot)

    def evict_blum_merkle(self, slot: int, parent: int, ts: Moment) -> None:
        record = self.cache.evictable(slot)
        came_from_merkle = record.parent is not None
        check("evict_blum_merkle_came_from_merkle", came_from_merkle, "not_added_by_merkle", record.key)
        self.cache.evict_to_blum(slot, parent)
        self.epochs.evict(record.key, record.value, ts)

    def next_epoch(self) -> None:
        check("next_epoch_between_requests", not self.queue.in_progress, "request_in_progress")
        nothing_left = not self.chain or (not self.chain.is_replaying and not self.queue.waiting)
        check("next_epoch_after_all_logged", nothing_left, "request_in_progress")
        root = self.cache.root
        permanent = 0 if root is None else 1
        check("next_epoch_cache_empty", len(self.cache.records) == permanent, "cache_not_empty")
        if not self.epochs.next_epoch():
            self.answer(EPOCH_NOT_YET)
            return
        sessions = self.sessions.hand_over(self.queue.first_sequences())
        if self.chain:
            sessions += self.chain.hand_over()
        self.end = EpochEnd(root, sessions, self.chain.tag if self.chain else None)

    def verify_epoch(self) -> None:
        epoch, closing = self.epochs.verify_epoch()
        end, self.end = self.end, None
        assert end is not None
        sums = closing.sums
        self.snapshot = Snapshot(self.number, epoch, sums.added, sums.evicted, closing.carried, end)
        self.answer(HANDED_OVER, epoch.to_bytes(4, "little"))

    # Requests

    def request(self, data: bytes) -> None:
        """Admit a request, or say why not."""
        try:
            request, session = self.sessions.authenticate(data)
        except Rejected as rejected:
            self.answer(REJECTED, bytes((rejected.reason,)))
            return
        if self.epochs.is_ahead_of_all(request.after_ts):
            self.refuse(request, session.receipt_key, requests.AFTER_TS_AHEAD)
            admitted_role = 0
        elif self.epochs.is_for_later(request.after_ts) or not self.queue.has_room(len(request.operations)):
            self.answer(NOT_YET)
            return
        elif not self.is_well_formed(request):
            self.refuse(request, session.receipt_key, requests.MALFORMED)
            admitted_role = 0
        else:
            assert session.role is not None
            self.queue.push(QueuedRequest(request, session.role, session.receipt_key))
            self.answer(ADMITTED, bytes((session.role,)))
            admitted_role = session.role
        session.sequence = request.sequence
        if self.chain:
            self.chain.admitted(admitted_role, data)

    def is_well_formed(self, request: requests.Request) -> bool:
        """Whether it has as many operations as it says, not too many, on keys that are allowed."""
        if not 1 <= request.count <= requests.OPERATIONS_MAX:
            return False
        reader = Reader(request.operations, self.book)
        try:
            decoded = [operations.decode(reader) for _ in range(request.count)]
        except Malformed:
            return False
        keys = [key for operation in decoded for key in operation.key_hashes]
        return reader.is_at_end and (not self.chain or all(map(self.chain.owns, keys)))

    def refuse(self, request: requests.Request, receipt_key: bytes, error: int) -> None:
        """Answer with an error receipt."""
        receipt = requests.receipt_head(request, self.number, 0, self.epochs.clock, error)
        self.answer_counted(REFUSED, receipt + self.receipt_mac(receipt_key, receipt, request).name)

    def receipt_mac(self, key: bytes, receipt: bytes, request: requests.Request) -> Mac:
        request_mac = request.mac if isinstance(request.mac, Mac) else request.mac.name
        return self.book.mac(key, macs.RECEIPT, receipt, request_mac)

    def resume(self, data: bytes) -> None:
        """Admit a resume, and answer at once if nothing is before it."""
        if not self.queue.has_room(0):
            self.answer(NOT_YET)
            return
        try:
            resume, session = self.sessions.resume(data)
        except Rejected as rejected:
            self.answer(REJECTED, bytes((rejected.reason,)))
            return
        queued = QueuedResume(resume, session.sequence, session.receipt_key)
        if self.queue.waiting:
            self.queue.waiting.append(queued)
        else:
            self.resumed(queued)

    def resumed(self, queued: QueuedResume) -> None:
        resume, clock = queued.resume, self.epochs.clock
        numbers = resume.session, resume.generation, resume.thread, 0, queued.last_sequence
        answer = struct.pack("<QIHHQQ", *numbers, clock.epoch << 32 | clock.counter)
        mac = self.book.mac(queued.receipt_key, macs.RESUMED, answer, resume.nonce)
        self.answer_counted(RESUMED, answer + mac.name)

    def replaying(self) -> Chain:
        require(self.chain is not None, "not_replaying")
        assert self.chain is not None
        return self.chain

    def replay(self, role: int, data: bytes) -> None:
        """Put a request that an earlier incarnation admitted into the queue again."""
        chain = self.replaying()
        request = requests.split_request(data, self.book)
        if role and not self.queue.has_room(len(request.operations)):
            self.answer(NOT_YET)
            return
        chain.replayed(role, data, request.session, request.sequence)
        if role:
            of_a_clock_that_is_gone = Moment(0, 0)
            self.queue.push(QueuedRequest(request.after(of_a_clock_that_is_gone), role, bytes(32)))

    # Operations

    def run(self, slots: tuple[int, ...]) -> None:
        """Run the next operation on the records in these slots."""
        head, operation, rest = self.next_operation()
        right_number = len(slots) == len(operation.key_hashes)
        check("run_slot_for_each_key", right_number, "wrong_record")
        values: list[Commitment] = []
        for index, (slot, key_hash) in enumerate(zip(slots, operation.key_hashes, strict=False)):
            leaf = path_of(key_hash, self.leaf_depth)
            record = self.cache.record(slot, leaf)
            check("run_slots_distinct", slot not in slots[:index], "wrong_record", leaf)
            check("run_slot_holds_key", record.key == leaf, "wrong_record", leaf)
            if isinstance(record.value, Node):
                raise Fault("wrong_record", "wrong_record", leaf)
            values.append(record.value)
        result, new = operations.execute(operation, head.role, values)
        for slot, value in zip(slots, new, strict=False):
            self.cache.records[slot].value = value
        self.finish(result, rest)

    def run_absent(self, parent: int) -> None:
        """Run the next operation on a key that no record has, as a parent in the cache proves: as if it were null."""
        head, operation, rest = self.next_operation()
        require(len(operation.key_hashes) == 1, "not_absent")
        leaf = path_of(operation.key_hashes[0], self.leaf_depth)
        child = self.cache.side_above(parent, leaf)
        absent = child is None or (child.key != leaf and not is_ancestor(child.key, leaf))
        check("run_absent_proved", absent, "not_absent", leaf)
        result, [new] = operations.execute(operation, head.role, [Null()])
        check("run_absent_changes_nothing", new == Null(), "not_absent", leaf)
        self.finish(result, rest)

    def next_operation(self) -> tuple[QueuedRequest, Operation, bytes]:
        """The request at the head, its next operation, and what comes after it in the queue."""
        head = self.queue.head
        require(head is not None, "no_request")
        assert head is not None
        if head.done == 0:
            self.epochs.pass_moment(head.request.after_ts, ROOT)
            self.results = []
        return head, *self.queue.next_operation()

    def finish(self, result: Result, rest: bytes) -> None:
        """An operation has run. After the last of a request, answer it and the resumes that waited for it."""
        self.results.append(result)
        finished = self.queue.finish_operation(rest)
        if finished is None:
            return
        request = finished.request
        receipt = requests.receipt_head(request, self.number, request.count, self.epochs.clock, 0)
        receipt += b"".join(result.encode() for result in self.results)
        self.answer_counted(RECEIPT, receipt + self.receipt_mac(finished.receipt_key, receipt, request).name)
        while resume := self.queue.pop_resume():
            self.resumed(resume)
