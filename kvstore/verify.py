"""`zetakv verify`: a whole store against its sealed state, offline. What is wrong is named; nothing is repaired.

The root's value is in the sealed state, and only the monitor can read that: with access to its state directory, every
record in Merkle is proved by the hashes from the root down, and those in Blum by the monitor's sum. Without, rows are
only compared with each other. Nothing is written to the data directory.
"""

import contextlib
import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final

from kvstore._prover import Audit
from kvstore.checkpointer import check_meta
from kvstore.children import ServiceError, find_operator
from kvstore.limits import MIB
from kvstore.snapshot import Snapshot, opened_snapshot
from kvstore.storage import META_KEY, PENDING_TABLES, SEALED_KEY

_PARTITIONS: Final = 64
_PARTITION_STEP: Final = 256 // _PARTITIONS
_ROWS_AT_ONCE: Final = 2_000
_BYTES_AT_ONCE: Final = 16 * MIB
_PREFIXES: Final = (b"c", b"h", b"n", b"r")
_SINGLE_ROWS: Final = (META_KEY, SEALED_KEY, *PENDING_TABLES)
_NOT_OURS: Final = "the sealed state was changed"
"""How `zetakv-monitor-operator` begins its refusal of a sealed state that is not one of its own."""

Progress = Callable[[int, int], None]
"""Told of rows done, and of about all."""


class VerifyError(Exception):
    """The store cannot be checked. The text says why, and what to do."""


@dataclass(frozen=True)
class Finding:
    """`kind`: changed, missing, garbled, extra or subtree_changed. `keys`: application keys, those of the first records
    below a node; `records_below`: how many records a wrong node vouches for, which are unproved without being named."""

    kind: str
    store_key: bytes
    keys: tuple[bytes, ...] = ()
    records_below: int = 0


@dataclass
class Report:
    """What was checked, and what is wrong. `standing`: what a start would say of the sealed state."""

    epoch: int = 0
    records: int = 0
    nodes: int = 0
    in_blum: int = 0
    unproved: int = 0
    findings: list[Finding] = field(default_factory=list)
    findings_total: int = 0
    root_checked: bool = False
    blum_matches: bool | None = None
    standing: str | None = None
    is_backup: bool = False
    not_checked: list[str] = field(default_factory=list)

    @property
    def is_rolled_back(self) -> bool:
        """An older store in the place of the latest. A backup is expected to be older."""
        return self.standing == "rolled_back" and not self.is_backup

    @property
    def is_whole(self) -> bool:
        return self.findings_total == 0 and self.blum_matches is not False and not self.is_rolled_back

    def add(self, kind: str, store_key: bytes) -> None:
        self.findings.append(Finding(kind, store_key))
        self.findings_total += 1


def verify(directory: Path, monitor_state: Path | None, register: str | None, progress: Progress) -> Report:
    """Check a data directory or a backup. `monitor_state`: None: DIR/monitor, if there is one.

    Raises VerifyError, StorageError, ServiceError.
    """
    report = Report(is_backup=(directory / "manifest.json").exists())
    if monitor_state is None and (directory / "monitor").is_dir():
        monitor_state = directory / "monitor"
    with opened_snapshot(directory / "store") as snapshot:
        meta, sealed = snapshot.get(META_KEY), snapshot.get(SEALED_KEY)
        if meta is None and not any(True for _ in chain(snapshot.scan(b"c", b"p"), snapshot.scan(b"q", b"\xff"))):
            report.not_checked.append("there is no checkpoint yet, so nothing to check")
            return report
        found = check_meta(meta, verified=True)
        if found is None:
            raise VerifyError(f"the store in {directory} has rows but no meta row: it is damaged, restore a backup")
        report.epoch = int(found["epoch"])
        if sealed is None:
            report.add("missing", SEALED_KEY)
        monitor = _asked_monitor(report, directory, monitor_state, register, sealed)
        try:
            _walk(snapshot, report, monitor, int(found["threads"]), progress)
        except ValueError as error:
            raise VerifyError(f"the store in {directory}: {error}") from error
    return report


@dataclass(frozen=True)
class _Monitor:
    """A monitor's state directory that knows the sealed state."""

    command: list[str]
    sealed: bytes

    def ask(self, command: str, given: bytes) -> dict[str, Any]:
        done = subprocess.run(self._arguments(command), input=given, capture_output=True, check=False)
        if done.returncode != 0:
            raise ServiceError(done.stderr.decode(errors="replace").strip())
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _arguments(self, command: str) -> list[str]:
        return [self.command[0], command, *self.command[1:]]

    def copy_header(self, threads: int) -> bytes:
        return len(self.sealed).to_bytes(4, "little") + self.sealed + threads.to_bytes(2, "little")

    @contextlib.contextmanager
    def checking(self, threads: int) -> Iterator["subprocess.Popen[bytes]"]:
        with subprocess.Popen(self._arguments("check"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(self.copy_header(threads))
            yield process
            process.kill()


def _asked_monitor(
    report: Report, directory: Path, state: Path | None, register: str | None, sealed: bytes | None
) -> _Monitor | None:
    why = None
    if sealed is None:
        why = "the store has no sealed state"
    elif state is None:
        why = "the monitor's state directory is not here: name it with --monitor-state"
    elif _is_running(directory):
        why = "the server is running, and its monitor with it: stop it, or make a backup and check that later"
    if why is None and state is not None and sealed is not None:
        options = [] if register is None else ["--register", register]
        monitor = _Monitor([find_operator(), "--state", str(state), *options], sealed)
        try:
            report.standing = monitor.ask("inspect", sealed)["standing"]
            return monitor
        except ServiceError as error:
            if _NOT_OURS in str(error):
                report.add("changed", SEALED_KEY)
            why = f"the monitor refuses: {error}"
    report.not_checked += [
        f"the root of the tree, so that only the rows among each other were compared: {why}",
        "the records in Blum, for the same reason",
    ]
    return None


def _is_running(directory: Path) -> bool:
    try:
        descriptor = os.open(directory / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _walk(snapshot: Snapshot, report: Report, monitor: _Monitor | None, threads: int, progress: Progress) -> None:
    root = None
    if monitor is not None:
        told = monitor.ask("check", monitor.copy_header(threads))
        root = bytes.fromhex(told["root"])
        report.root_checked = True
        if told["epoch"] != report.epoch:
            report.add("changed", META_KEY)
    audit = Audit(threads=threads, root=root)
    with contextlib.ExitStack() as stack:
        process = None if monitor is None else stack.enter_context(monitor.checking(threads))
        for blum in _partitions(snapshot, audit, progress):
            if process is not None and process.stdin is not None:
                process.stdin.write(blum)
        if process is not None:
            output, _ = process.communicate()
            if process.returncode != 0:
                raise VerifyError("the monitor did not check what is in Blum; its own message is above")
            report.blum_matches = bool(json.loads(output)["blum_matches"])
    totals = audit.totals()
    report.records, report.nodes = totals["records"], totals["nodes"]
    report.in_blum, report.unproved = totals["in_blum"], totals["unproved"]
    report.findings += [Finding(kind, key, tuple(keys), below) for kind, key, keys, below in audit.findings()]
    report.findings_total += totals["findings"]
    for store_key in _unknown_rows(snapshot):
        report.add("extra", store_key)


def _partitions(snapshot: Snapshot, audit: Audit, progress: Progress) -> Iterator[bytes]:
    """What of each partition is in Blum, as it is walked."""
    done = 0
    for partition in range(_PARTITIONS):
        nodes = list(snapshot.scan(*_range(b"n", partition)))
        markers = [key for key, _ in snapshot.scan(*_range(b"h", partition))]
        audit.begin(nodes, markers)
        done += len(nodes) + len(markers)
        batch: list[tuple[bytes, bytes]] = []
        size = 0
        for key, row in snapshot.scan(*_range(b"r", partition)):
            batch.append((key, row))
            size += len(row)
            if len(batch) == _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE:
                audit.records(batch)
                done += len(batch)
                progress(done, snapshot.rows_about)
                batch, size = [], 0
        audit.records(batch)
        done += len(batch)
        progress(done, snapshot.rows_about)
        yield audit.end()


def _range(prefix: bytes, partition: int) -> tuple[bytes, bytes]:
    """All store keys of a kind in a partition; the first and last partition have also what is no path."""
    following = bytes((prefix[0] + 1,))
    bounds = [prefix + bytes((byte,)) for byte in range(0, 256, _PARTITION_STEP)]
    first, end = [*pairwise([*bounds, following])][partition]
    return (prefix if partition == 0 else first), end


def _unknown_rows(snapshot: Snapshot) -> Iterator[bytes]:
    """Store keys that no release of this format writes."""
    known = sorted([(prefix, bytes((prefix[0] + 1,))) for prefix in _PREFIXES] + [(k, k + b"\0") for k in _SINGLE_ROWS])
    gap_from = b"\0"  # LMDB knows no empty key
    for first, end in [*known, (b"\xff" * 511, b"")]:
        if gap_from < first:
            yield from (key for key, _ in snapshot.scan(gap_from, first))
        gap_from = end
