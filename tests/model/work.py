"""Honest scripts: random work of clients and an honest host, with cuts, crashes, restarts and write-ahead logs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from . import entries, operations, steps
from .book import Book
from .client import Client, key_hash, operation
from .epochs import U32_MAX, Element, Moment
from .host import LEAF_DEPTH, Host, OutOfReach
from .keys import ROOT, Key, path_of
from .operations import Operation
from .steps import Step
from .thread import ADMITTED, LOGGED, NOT_YET, REFUSED, Thread
from .values import Null

LOG_KEY, INSTANCE = b"L" * 32, b"I" * 16
NODE_PATHS = ["0", "1", "00", "01", "10", "11"]
CUT_STEPS_MAX = 200
"""Not all cuts come to an end: a thread may need a record that another one has taken into the next epoch already."""


@dataclass
class Journal:
    """What a host keeps of one thread's log since the last epoch that held."""

    entries: list[entries.ReplayMark | entries.Replay] = field(default_factory=list)
    tag: bytes = bytes(16)
    closing: int = 0
    """Entries at the cut of the closing epoch: when that holds, they are not needed any more."""


class Work(Host):
    def __init__(self, seed: int) -> None:
        super().__init__(Random(seed))
        random = self.random
        paths = [bin(8 + leaf)[3:] for leaf in range(2**LEAF_DEPTH)]
        self.paths: list[Key] = random.sample(paths, random.choice([1, 2, 4, 8]))
        self.queue_bytes = random.choice([200, 400, 10_000])
        self.keeps_log = random.random() < 0.35
        self.incarnation, self.sealed_by, self.live = bytes(16), bytes(16), bytes(16)
        self.sessions = 0
        self.clients: list[Client] = []
        self.journals: list[Journal] = []
        self.sealed_blum: dict[Key, Element] = {}

    # Starts

    def start(self, threads: int) -> None:
        """Start, or crash and start again from the last epoch that held."""
        random = self.random
        self.do(steps.Start(threads, random.choice([8, 9, 16]), self.queue_bytes))
        self.blum, self.carried = dict(self.sealed_blum), {}
        self.owed = {thread.number: [] for thread in self.threads}
        self.clients = []
        self.incarnation = random.randbytes(16)
        if self.keeps_log:
            latest = self.live if self.live != self.sealed_by else None
            self.do(steps.KeepLog(LOG_KEY, INSTANCE, self.incarnation, self.sealed_by, latest))
            self.journals = self.journals or [Journal() for _ in range(threads)]
            for thread in self.threads:
                self.replay(thread, self.journals[thread.number])
            self.live = self.incarnation
        for _ in range(random.choice([1, 1, 2, 3])):
            self.open_session()

    def open_session(self) -> None:
        self.sessions += 1
        role = self.random.choice([operations.READ, operations.WRITE, operations.WRITE, operations.ADMIN])
        keys = self.random.randbytes(32), self.random.randbytes(32)
        self.do(steps.Open(self.sessions, role, *keys))
        self.clients.append(Client(self.sessions, role, self.book, *keys))

    def replay(self, thread: Thread, journal: Journal) -> None:
        """Replay what the journal has, and begin the log of this incarnation."""
        for entry in journal.entries:
            while True:
                outputs = self.write(thread, entry)
                if not outputs or outputs[0] != NOT_YET:
                    break
                self.run(thread)
        while thread.queue.waiting:
            self.run(thread)
        outputs = self.write(thread, entries.EndReplay(journal.tag))
        journal.entries.append(entries.ReplayMark(self.incarnation))
        journal.tag = outputs[-16:]

    # Requests

    def send(self, thread: Thread) -> None:
        """A client sends a request: usually a good one."""
        random = self.random
        client = random.choice(self.clients)
        content = [operation(random, self.paths) for _ in range(random.choice([1, 1, 2, 3]))]
        clocks = [other.epochs.clock for other in self.threads]
        after_ts = random.choice([Moment(0, 0), Moment(0, 0), thread.epochs.clock, random.choice(clocks)])
        changes: dict[str, int] = {}
        match random.randrange(24):
            case 0:
                changes["sequence"] = random.choice([0, client.sequences.get(thread.number, 0) + 2, 2**64 - 1])
            case 1:
                changes["generation"] = random.choice([0, client.generation(thread.number) + 1])
            case 2:
                changes["thread"] = thread.number + 1
            case 3:
                changes["session"] = random.choice([0, 99])
            case 4:
                after_ts = max(clocks)._replace(counter=max(clocks).counter + random.choice([1, 0]))
            case 5:
                changes["count"] = random.choice([0, 513, len(content) + 1])
            case 6:
                content.append(random.choice([b"\x00", b"\x02", b"\x01" + bytes(33), bytes((7,)) + bytes(32)]))
            case 7:
                after_ts = Moment(random.choice(clocks).epoch, U32_MAX)
        request = client.request(thread.number, content, after_ts, changes)
        if random.randrange(24) == 0:
            at = random.randrange(len(request))
            request = request[:at] + bytes((request[at] ^ 1,)) + request[at + 1 :]
        if random.randrange(60) == 0:
            request = request[: random.randrange(len(request))]
        self.admit(thread, client, request)

    def admit(self, thread: Thread, client: Client, request: bytes) -> None:
        outputs = self.write(thread, entries.Request(request))
        if outputs[0] in (ADMITTED, REFUSED):
            client.sequences[thread.number] = client.sequences.get(thread.number, 0) + 1
            if self.keeps_log:
                assert outputs[-17] == LOGGED
                journal = self.journals[thread.number]
                journal.entries.append(entries.Replay(outputs[1] if outputs[0] == ADMITTED else 0, request))
                journal.tag = outputs[-16:]

    def send_resume(self, thread: Thread) -> None:
        random = self.random
        client = random.choice(self.clients)
        generation = client.generation(thread.number) + random.choice([1, 1, 1, 5, 0])
        resume = client.resume(thread.number, generation, random.randbytes(16))
        if random.randrange(8) == 0:
            at = random.randrange(len(resume))
            resume = resume[:at] + bytes((resume[at] ^ 1,)) + resume[at + 1 :]
        outputs = self.write(thread, entries.Resume(resume))
        if outputs[:1] not in (b"\x02", b"\x03"):
            client.generations[thread.number] = generation

    def send_what_cannot_run(self, thread: Thread) -> None:
        """At the very end: an operation that names its key twice, which the protocol's own operations cannot."""
        while thread.queue.waiting:
            self.run(thread)
        leaf = self.random.choice(self.paths)
        self.bring(thread, leaf, {leaf})
        exchange = bytes((operations.EXCHANGE,)) + 2 * key_hash(leaf)
        client = self.random.choice(self.clients)
        self.admit(thread, client, client.request(thread.number, [exchange], Moment(0, 0), {}))

    def run(self, thread: Thread) -> None:
        """Run the next operation of the request at the head."""
        operation, _ = thread.queue.next_operation()
        head = thread.queue.head
        assert head is not None
        leaves = [path_of(key_hash, LEAF_DEPTH) for key_hash in operation.key_hashes]
        if len(leaves) == 1 and self.is_absent(leaves[0]) and self.leaves_null(operation, head.role):
            above, _ = self.nearest(leaves[0])
            if above != ROOT or thread.number == 0:
                self.write(thread, entries.RunAbsent(self.bring(thread, above, set(leaves))))
                return
        for leaf in leaves * 2:  # the second time, all are there: what makes room for one is not another
            self.bring(thread, leaf, set(leaves))
        self.write(thread, entries.Run(tuple(self.bring(thread, leaf, set(leaves)) for leaf in leaves)))

    def is_absent(self, leaf: Key) -> bool:
        _, child = self.nearest(leaf)
        return child is None or child.key != leaf

    @staticmethod
    def leaves_null(operation: Operation, role: int) -> bool:
        _, [value] = operations.execute(operation, role, [Null()])
        return value == Null()

    # Epochs

    def cut(self, *, certify: bool, steps_max: int = CUT_STEPS_MAX) -> None:
        """Close the epoch on all threads, with other work in between."""
        held = self.monitor.held
        for _ in range(steps_max):
            if self.monitor.held is not held and (self.is_certified or not certify):
                return
            if self.random.random() < 0.3:
                self.act()
            else:
                self.attempt(self.close_further, self.random.choice(self.threads))

    def close_further(self, thread: Thread) -> None:
        """The next step that takes a thread towards the end of the epoch."""
        if not self.is_certified:
            self.do(steps.Certify())
        elif thread.snapshot is not None:
            self.submit(thread)
        elif not self.has_passed(thread):
            self.next_epoch(thread)
        elif thread.epochs.closing and self.random.random() < 0.2:
            self.hand_over(thread)
        else:
            self.carry_over(thread)

    def next_epoch(self, thread: Thread) -> None:
        """Begin to close the epoch on a thread."""
        if not any(map(self.has_passed, self.threads)):
            # what has run will not keep the others from their own cuts
            for other in self.random.sample(self.threads, self.random.randint(0, len(self.threads))):
                self.finish(other)
        self.finish(thread)
        self.empty(thread)
        self.write(thread, entries.NextEpoch())
        if self.journals:
            self.journals[thread.number].closing = len(self.journals[thread.number].entries)
        if self.random.randrange(8) == 0:
            self.ask_too_early(thread)

    def finish(self, thread: Thread) -> None:
        """Run what must have run before the cut."""
        while thread.queue.in_progress or (self.keeps_log and thread.queue.waiting):
            self.run(thread)

    def ask_too_early(self, thread: Thread) -> None:
        """For a next epoch, before the last one is certified: nothing is done."""
        self.finish(thread)
        self.empty(thread)
        self.write(thread, entries.NextEpoch())

    def submit(self, thread: Thread) -> None:
        lines = self.do(steps.Submit(thread.number))
        assert not any(line.startswith("epoch_mismatch") for line in lines), f"an honest epoch does not hold: {lines}"
        if not any(line.startswith("held epoch") for line in lines):
            return
        self.sealed_blum, self.carried = self.carried, {}
        self.sealed_by = self.incarnation
        for journal in self.journals:
            del journal.entries[: journal.closing]
            journal.closing = 0
        if self.random.randrange(4) == 0:
            self.attempt(self.ask_too_early, self.threads[0])

    @property
    def is_certified(self) -> bool:
        """Whether the last epoch that held is certified, so that the next one can be closed."""
        return self.monitor.held is None or self.monitor.clocks.certified == self.monitor.held.epoch

    def has_passed(self, thread: Thread) -> bool:
        """Whether a thread has passed its cut of the epoch that is to be certified next."""
        return thread.epochs.clock.epoch > self.monitor.clocks.certified + 1

    def move(self, thread: Thread) -> None:
        """Move a record, for no reason."""
        random = self.random
        slots = self.evictable(thread, set())
        if slots and random.random() < 0.6:
            self.evict(thread, random.choice(slots))
        elif self.blum and random.random() < 0.5:
            self.add_blum(thread, random.choice(sorted(self.blum)), set())
        else:
            key = random.choice([*NODE_PATHS, *self.paths])
            if self.is_addable(key):
                self.bring(thread, key, set())

    def is_addable(self, key: Key) -> bool:
        """Whether a key is in the tree, or is a leaf, or a node that has something below it or nothing in its way."""
        _, child = self.nearest(key)
        return child is None or child.key.startswith(key) or len(key) == LEAF_DEPTH

    def act_often(self, times: int) -> None:
        for _ in range(times):
            self.act()

    def attempt(self, act: Callable[[Thread], None], thread: Thread) -> None:
        """Do something, as far as its records are within reach."""
        with suppress(OutOfReach):
            act(thread)

    def act(self) -> None:
        random = self.random
        thread = random.choice(self.threads)
        client = random.choice(self.clients)
        is_closing = any(map(self.has_passed, self.threads))
        match random.choices(range(8), [8, 12, 8, 1, 1, 0.3, 0.3, 6 if is_closing else 0.3])[0]:
            case 0:
                self.send(thread)
            case 1 if thread.queue.waiting:
                self.attempt(self.run, thread)
            case 2:
                self.attempt(self.move, thread)
            case 3:
                self.send_resume(thread)
            case 4:
                self.write(thread, entries.Tick())
            case 5:
                self.do(steps.Close(client.session))
                self.clients.remove(client)
                self.open_session()
            case 6:
                self.do(steps.SetRole(client.session, random.choice([0, 1, 2])))
            case 7:
                self.attempt(self.close_further, thread)


def honest_script(seed: int) -> tuple[list[Step], Book]:
    work = Work(seed)
    random = work.random
    threads = random.choice([1, 2] if work.keeps_log else [1, 1, 2, 2, 3])
    work.start(threads)
    work.act_often(random.choice([10, 30, 60]))
    for _ in range(random.choice([1, 2, 3] if work.keeps_log else [0, 0, 1, 1, 2])):
        for _ in range(random.choice([0, 0, 0, 0, 1, 2] if work.keeps_log else [0, 0, 1, 1, 2, 3])):
            work.cut(certify=random.random() < 0.5, steps_max=random.choice([5, 15, *4 * [CUT_STEPS_MAX]]))
            work.act_often(random.choice([0, 10]))
        work.start(threads if work.keeps_log else random.choice([1, 2, 3]))
        work.act_often(random.randrange(20))
    if random.random() < 0.15:
        work.attempt(work.send_what_cannot_run, random.choice(work.threads))
    return work.script, work.book
