"""Scripts that real provers write, at full depth. The model is their monitor: it answers them."""

from __future__ import annotations

from random import Random

from blake3 import blake3

from kvstore._prover import Prover
from kvstore.storage import unpack_rows

from . import operations, steps
from .book import Book
from .client import COMMITMENTS, Client
from .epochs import Moment
from .monitor import Monitor
from .steps import Process, Step
from .values import Digest

LEAF_DEPTH = 256
LOG_KEY, INSTANCE = b"L" * 32, b"I" * 16
QUEUE_BYTES = 100_000
SLOTS, HOT_RECORDS_MAX = 80, 90
"""Above what a prover needs at the least, and little, so that records come and go in every way."""
BYTES_MAX = 1 << 20
LONG_VALUE = b"v" * 40
TURNS_MAX = 10_000
"""An honest service is idle long before."""


def commitment(value: bytes) -> bytes:
    return Digest(len(value), blake3(value).digest()).encode()


class Provers:
    """One prover for each thread, a store that has only what was checkpointed, and clients."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.book = Book()
        self.monitor = Monitor(LEAF_DEPTH, self.book)
        self.script: list[Step] = []
        self.done: list[Step] = []
        """The script without what a thread did not come to because it had to wait: that is given to it again."""
        self.threads = self.random.choice([1, 2])
        self.keeps_log = self.random.random() < 0.5
        self.rows: dict[bytes, bytes] = {}
        self.records: list[list[tuple[int, bytes]]] = [[] for _ in range(self.threads)]
        """Of each thread, the write-ahead log since the last epoch that held, and the epoch of each record."""
        self.keys = [b"key %d" % number for number in range(self.random.choice([5, 60, 200]))]
        self.sessions = 0
        self.sealed_by, self.live = bytes(16), bytes(16)

    def do(self, step: Step) -> list[str]:
        self.script.append(step)
        self.done.append(step)
        return self.monitor.do(step)

    def start(self) -> None:
        """Start, or crash and start again from the last epoch that held."""
        incarnation = self.random.randbytes(16)
        self.do(steps.Start(self.threads, SLOTS, QUEUE_BYTES))
        held = self.monitor.held
        self.provers = [
            Prover(
                thread=thread,
                threads=self.threads,
                previous_threads=self.threads,
                epoch=held.epoch + 1 if held else 1,
                fresh=held is None,
                slots=SLOTS,
                hot_records_max=HOT_RECORDS_MAX,
                hot_bytes_max=BYTES_MAX,
                kept_value_bytes_max=BYTES_MAX,
                warm_bytes_max=BYTES_MAX,
                read_bytes_max=BYTES_MAX,
                key_bytes_max=BYTES_MAX,
                value_bytes_max=BYTES_MAX,
                response_bytes_max=BYTES_MAX,
                log_incarnation=incarnation if self.keeps_log else None,
            )
            for thread in range(self.threads)
        ]
        self.waiting: dict[int, tuple[bytes, bytes]] = {}
        for prover in self.provers:
            first, end = prover.hot_range()
            prover.load_hot(sorted((key, row) for key, row in self.rows.items() if first <= key < end))
        if self.keeps_log:
            latest = self.live if self.live != self.sealed_by else None
            self.do(steps.KeepLog(LOG_KEY, INSTANCE, incarnation, self.sealed_by, latest))
            for prover, records in zip(self.provers, self.records, strict=True):
                for _, record in records:
                    prover.replay(record)
                prover.end_replay()
            self.settle()
            self.live = incarnation
        self.incarnation = incarnation
        self.clients = [self.open_session(operations.WRITE), self.open_session(operations.READ)]

    def open_session(self, role: int) -> Client:
        self.sessions += 1
        keys = self.random.randbytes(32), self.random.randbytes(32)
        self.do(steps.Open(self.sessions, role, *keys))
        return Client(self.sessions, role, self.book, *keys)

    def turn(self, thread: int) -> None:
        """One round of a worker: what its prover writes, the thread checks."""
        prover = self.provers[thread]
        if thread in self.waiting:
            log, outputs_before = self.waiting.pop(thread)
        elif prover.busy:
            while any(reads := prover.reads()):
                prover.supply([self.rows.get(key) for key in reads[0]], [self.range(*ends) for ends in reads[1]])
            log, outputs_before = prover.log(), b""
        else:
            return
        [progress, outputs] = self.do(Process(thread, log))
        answers = outputs_before + (b"" if outputs == "none" else bytes.fromhex(outputs))
        if progress.startswith("waiting"):
            consumed = int(progress.split()[-1])
            self.done[-1] = Process(thread, log[:consumed])
            self.waiting[thread] = log[consumed:], answers
            return
        assert progress == "done", f"an honest prover is accused: {progress}"
        prover.absorb(answers)
        if record := prover.take_record():
            self.records[thread].append((prover.epoch, record))

    def range(self, first: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        return sorted((key, row) for key, row in self.rows.items() if first <= key < end)

    def settle(self) -> None:
        """Turns until nothing is left to do."""
        for _ in range(TURNS_MAX):
            if not self.waiting and not any(prover.busy for prover in self.provers):
                return
            for thread in range(self.threads):
                self.turn(thread)
        raise AssertionError("the provers do not come to an end")

    def send(self) -> None:
        """A client sends a request, or a resume."""
        random = self.random
        client, thread = random.choice(self.clients), random.randrange(self.threads)
        keys = [key for key in self.keys if blake3(key).digest()[0] * self.threads // 256 == thread]
        if not keys:
            return
        prover = self.provers[thread]
        if random.randrange(12) == 0:
            generation = client.generation(thread) + 1
            prover.submit_resume(client.session, client.resume(thread, generation, random.randbytes(16)))
            client.generations[thread] = generation
            return
        content, payload = [], b""
        for _ in range(random.choice([1, 2, 5])):
            key = random.choice(keys)
            operation, value = self.operation(key)
            content.append(operation)
            if operation[0] != operations.GET:
                payload += len(key).to_bytes(2, "little") + key + value
        after_ts = random.choice([Moment(0, 0), self.monitor.threads[thread].epochs.clock])
        request = client.request(thread, content, after_ts, {})
        client.sequences[thread] = client.sequences.get(thread, 0) + 1
        if random.randrange(12) == 0:
            request = request[:-1] + bytes((request[-1] ^ 1,))  # rejected: its sequence is not used up
            client.sequences[thread] -= 1
        prover.submit(client.session, len(request).to_bytes(4, "little") + request + payload)

    def operation(self, key: bytes) -> tuple[bytes, bytes]:
        """An operation, and the bytes of its value where they go beside it."""
        random = self.random
        code = random.choice([operations.GET, operations.PUT, operations.PUT, operations.DELETE, operations.INCREMENT])
        encoded = bytes((code,)) + blake3(key).digest()
        if code == operations.INCREMENT:
            return encoded + (1).to_bytes(8, "little"), b""
        if code != operations.PUT:
            return encoded, b""
        if random.random() < 0.2:
            return encoded + commitment(LONG_VALUE), LONG_VALUE
        return encoded + random.choice(COMMITMENTS[1:-1]).encode(), b""

    def work(self, rounds: int) -> None:
        for _ in range(rounds):
            self.send()
            self.turn(self.random.randrange(self.threads))

    def cut(self, *, all_to_merkle: bool) -> None:
        """Close the epoch, and make it durable; requests go on meanwhile."""
        for prover in self.random.sample(self.provers, self.threads):
            prover.start_cut(all_to_merkle=all_to_merkle)
            self.work(self.random.choice([0, 5]))
        self.settle()
        packed = []
        for thread, prover in enumerate(self.provers):
            assert prover.handed_over() is not None
            packed.append(prover.take_checkpoint())
            lines = self.do(steps.Submit(thread))
        assert any(line.startswith("held epoch") for line in lines), f"an honest epoch does not hold: {lines}"
        for rows in packed:
            for key, row in unpack_rows(rows):
                if row is None:
                    self.rows.pop(key, None)
                else:
                    self.rows[key] = row
        self.sealed_by = self.incarnation
        held = self.monitor.held
        assert held is not None
        for thread, records in enumerate(self.records):
            self.records[thread] = [(epoch, record) for epoch, record in records if epoch > held.epoch]
        self.do(steps.Certify())
        for prover in self.provers:
            prover.release_checkpoint(held.epoch)


def proved_script(seed: int) -> tuple[list[Step], list[Step], Book]:
    """A script, the same without waits, and what the names in it stand for."""
    provers = Provers(seed)
    random = provers.random
    provers.start()
    for _ in range(random.choice([1, 2, 3])):
        provers.work(random.choice([5, 20]))
        provers.cut(all_to_merkle=random.random() < 0.3)
    provers.work(random.choice([5, 20]))
    provers.start()
    provers.work(10)
    provers.cut(all_to_merkle=random.random() < 0.5)
    return provers.script, provers.done, provers.book
