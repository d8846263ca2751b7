"""The state of a thread as lines of text: what is compared with the verifier's (`tests/driver/` in its source)."""

from __future__ import annotations

from . import keys
from .aggregator import HeldEpoch
from .cache import Record
from .chain import Chain
from .epochs import Clocks, Epochs, Multiset
from .queue import Queue, QueuedRequest
from .sessions import Sessions
from .thread import EpochEnd, Snapshot, Thread, Violation, Waiting


def moment(ts: tuple[int, int]) -> str:
    return f"{ts[0]}.{ts[1]}"


def key(of: keys.Key) -> str:
    return of or "root"


def number(of: int | None) -> str:
    return "-" if of is None else str(of)


def data(of: bytes | None) -> str:
    return "-" if of is None else of.hex() or "none"


def progress(of: Waiting | Violation | None) -> str:
    match of:
        case None:
            return "done"
        case Waiting(consumed):
            return f"waiting after {consumed}"
        case Violation():
            return f"failed {of.code} epoch {of.epoch} offset {of.offset} key {key(of.key)}"


def multiset(name: str, elements: Multiset) -> list[str]:
    return sorted(
        f"{name} {moment(element.ts)} by {element.thread} {key(element.key)} {data(element.value.encode())} x{count}"
        for element, count in elements.items()
    )


def record(slot: int, of: Record) -> str:
    links = f"parent {number(of.parent)} linked {number(of.linked[0])} {number(of.linked[1])}"
    return f"slot {slot} {key(of.key)} {data(of.value.encode())} {links}"


def epochs(of: Epochs) -> list[str]:
    lines = [f"clock {moment(of.clock)}", *multiset("added", of.sums.added), *multiset("evicted", of.sums.evicted)]
    if of.closing:
        lines += multiset("closing_added", of.closing.sums.added)
        lines += multiset("closing_evicted", of.closing.sums.evicted)
        lines += multiset("carried", of.closing.carried)
    return lines


def sessions(of: Sessions) -> list[str]:
    return [
        f"session {session_number} {'open' if session.is_open else 'closed'} role {session.role or 0} "
        f"generation {session.generation} sequence {session.sequence}"
        for session_number, session in sorted(of.sessions.items())
    ]


def queue(of: Queue) -> list[str]:
    lines = []
    for queued in of.waiting:
        if isinstance(queued, QueuedRequest):
            request = queued.request
            lines.append(
                f"request {request.session} generation {request.generation} sequence {request.sequence} "
                f"after {moment(request.after_ts)} role {queued.role} mac {data(request.mac.name)} "
                f"key {data(queued.receipt_key)} operations {request.count} done {queued.done}"
            )
        else:
            resume = queued.resume
            lines.append(
                f"resume {resume.session} generation {resume.generation} last {queued.last_sequence} "
                f"nonce {data(resume.nonce)} key {data(queued.receipt_key)}"
            )
    return [*lines, f"operations {data(of.operations)}"]


def chain(of: Chain | None) -> list[str]:
    if of is None:
        return ["no chain"]
    replay = f"replaying {data(of.current)} latest {data(of.latest)}" if of.is_replaying else "not replaying"
    replayed = [
        f"replayed {session} {data(incarnation)} {sequence}"
        for session, (incarnation, sequence) in sorted(of.replayed_sessions.items())
    ]
    handed_over = "handed over" if of.replayed_are_handed_over else "not handed over"
    return [f"chain {data(of.tag.name)} {'untold' if of.is_untold else 'told'} {replay} {handed_over}", *replayed]


def clocks(of: Clocks, threads: int) -> str:
    return f"published {' '.join(map(moment, of.published[:threads]))} certified {of.certified}"


def thread(of: Thread, threads: int) -> list[str]:
    results = b"".join(result.encode() for result in of.results) if of.queue.in_progress else b""
    return [
        f"thread {of.number} offset {of.offset}",
        *epochs(of.epochs),
        *(record(slot, of.cache.records[slot]) for slot in sorted(of.cache.records)),
        *sessions(of.sessions),
        *queue(of.queue),
        f"results {data(results)}",
        *chain(of.chain),
        *(end(of.end) if of.end else ["not closing"]),
        clocks(of.epochs.clocks, threads),
    ]


def end(of: EpochEnd) -> list[str]:
    return [
        f"end root {data(of.root.encode() if of.root else None)}",
        *(f"end session {session} {sequence}" for session, sequence in of.sessions),
        f"end tag {data(of.tag.name if of.tag else None)}",
    ]


def snapshot(of: Snapshot) -> list[str]:
    return [
        f"snapshot of thread {of.thread} epoch {of.epoch}",
        *multiset("added", of.added),
        *multiset("evicted", of.evicted),
        *multiset("carried", of.carried),
        *end(of.end),
    ]


def held(of: HeldEpoch) -> list[str]:
    return [
        f"held epoch {of.epoch}",
        *multiset("carried", of.carried),
        f"root {data(of.root.encode())}",
        *(f"session {session} {' '.join(map(str, last))}" for session, last in sorted(of.sessions.items())),
        *(f"tag {data(tag.name)}" for tag in of.tags),
    ]
