"""The checkpointer: the one process that writes the store (`python -m kvstore.checkpointer CONFIG`).

It collects the changed rows of an epoch from every worker; when it has them all and the supervisor has passed on the
sealed state, it makes them durable, with the sealed state, the meta row and the former certificate, in one synced
transaction; and then applies them in small ones, between which the next epoch may become durable. It is a process of
its own because a long transaction in a thread would have to fight a busy event loop for the interpreter.

A disk that does not take a write is tried again until it does, or the service is stopped: nothing is lost meanwhile,
and nothing is reported durable.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from kvstore import failpoints, limits
from kvstore.child import Control, run_child
from kvstore.config import FORMAT_VERSION, ChildConfig
from kvstore.framing import FrameProtocol
from kvstore.messages import EPOCH, ROWS, STORE, FromChild, Json, Rows, ToChild
from kvstore.pending import Pending
from kvstore.storage import (
    META_KEY,
    SEALED_KEY,
    LmdbWriter,
    Row,
    StorageError,
    StoreWriter,
    certificate_key,
)

logger = logging.getLogger(__name__)

_SLOW_SECONDS: Final = 5.0


_Result = TypeVar("_Result")


class Checkpointer:
    """Gathers the parts of one checkpoint. Parts of two epochs never mix: one cut is in flight."""

    def __init__(self, *, workers: int, verified: bool) -> None:
        self._workers = workers
        self._verified = verified
        self._rows: dict[int, tuple[int, bytes]] = {}
        self._order: tuple[int, bytes, bytes] | None = None

    def rows(self, epoch: int, worker: int, packed: bytes) -> None:
        """A worker's part."""
        self._rows[worker] = (epoch, packed)

    def store(self, epoch: int, former_certificate: bytes, sealed: bytes) -> None:
        """The supervisor's part."""
        self._order = (epoch, former_certificate, sealed)

    @property
    def is_complete(self) -> bool:
        if self._order is None or len(self._rows) < self._workers:
            return False
        return all(epoch == self._order[0] for epoch, _ in self._rows.values())

    @property
    def rows_bytes(self) -> int:
        """Of all workers' parts."""
        return sum(len(packed) for _, packed in self._rows.values())

    def write(self, pending: Pending) -> int:
        """Make the complete checkpoint durable; returns its epoch. It is kept if that raises StorageError."""
        assert self._order is not None, "only a complete checkpoint is written"
        epoch, former_certificate, sealed = self._order
        meta = {"format": FORMAT_VERSION, "verified": self._verified, "epoch": epoch, "threads": self._workers}
        rows: list[Row] = [(META_KEY, json.dumps(meta).encode())]
        if sealed:
            rows.append((SEALED_KEY, sealed))
        if former_certificate:
            rows.append((certificate_key(epoch - 1), former_certificate))
        pending.append(epoch, b"".join(packed for _, packed in self._rows.values()), rows)
        self._rows.clear()
        self._order = None
        return epoch


def opening(store: StoreWriter, *, verified: bool) -> Json:
    """What a store says of its last checkpoint. Raises StorageError if it cannot be served."""
    meta_row, sealed = store.read([META_KEY, SEALED_KEY])
    return {"meta": check_meta(meta_row, verified=verified), "sealed": (sealed or b"").hex()}


def check_meta(row: bytes | None, *, verified: bool) -> Json | None:
    """The meta row of a store, or None if it is new. Raises StorageError if this release or mode cannot serve it."""
    if row is None:
        return None
    try:
        meta: Json = json.loads(row)
        version, store_verified = int(meta["format"]), bool(meta["verified"])
        int(meta["epoch"]), int(meta["threads"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            "the store's meta row cannot be read: this is not a ZetaKV store, or it is damaged"
        ) from error
    if version != FORMAT_VERSION:
        raise StorageError(
            f"the store has format {version}, this release reads format {FORMAT_VERSION}: use the release that wrote it"
        )
    if store_verified and not verified:
        raise StorageError("the store is a verified one: start without --unverified, or with another data directory")
    if verified and not store_verified:
        raise StorageError("the store is an unverified one: start with --unverified, or with another data directory")
    return meta


async def main(config: ChildConfig, control: Control) -> None:
    serve = config.serve
    ending = False

    def handle(kind: int, body: bytes) -> None:
        nonlocal ending
        match kind:
            case ToChild.STORE:
                epoch, certificate_bytes = STORE.unpack_from(body)
                sealed_at = STORE.size + certificate_bytes
                checkpointer.store(epoch, body[STORE.size : sealed_at], body[sealed_at:])
            case ToChild.END:
                ending = True
        work.set()

    def receive(_: FrameProtocol, kind: int, body: bytes) -> None:
        assert kind == Rows.CHECKPOINT
        epoch, worker = ROWS.unpack_from(body)
        checkpointer.rows(epoch, worker, body[ROWS.size :])
        work.set()

    async def in_thread(step: Callable[[], _Result]) -> _Result:
        # So that the next checkpoint can arrive meanwhile. There is one thread, so the steps never overlap.
        started = loop.time()
        result = await loop.run_in_executor(thread, step)
        if loop.time() - started > _SLOW_SECONDS:
            logger.warning("a transaction of the store took %.1f s", loop.time() - started)
        return result

    async def write() -> None:
        is_failing = False
        while not ending:
            try:
                await write_next()
            except StorageError as error:
                # Everything is kept: the parts of a checkpoint in memory, what is durable in the pending tables.
                if not is_failing:
                    control.send(FromChild.TROUBLE, str(error).encode())
                is_failing = True
                await asyncio.sleep(limits.RETRY_DISK_SECONDS)
            else:
                if is_failing:
                    control.send(FromChild.TROUBLE)
                is_failing = False

    async def write_next() -> None:
        if checkpointer.is_complete and pending.has_room(checkpointer.rows_bytes):
            epoch = await in_thread(lambda: checkpointer.write(pending))
            control.send(FromChild.STORED, EPOCH.pack(epoch))
        elif not pending.is_empty:
            applied = await in_thread(pending.apply_some)
            if applied is not None:
                control.send(FromChild.APPLIED, EPOCH.pack(applied))
        else:
            await work.wait()
            work.clear()

    loop = asyncio.get_running_loop()
    work = asyncio.Event()
    checkpointer = Checkpointer(workers=serve.workers, verified=serve.verified)
    await control.connect(config, handle)
    with (
        ThreadPoolExecutor(1) as thread,
        contextlib.closing(LmdbWriter(serve.store_path, serve.map_bytes_start)) as store,
    ):
        failpoints.hit("checkpointer.in_start")
        answer = opening(store, verified=serve.verified)
        pending = Pending(store)
        while not pending.is_empty:
            pending.apply_some()
        # The name keeps it, since the loop does not: without a reference it is collected, and its socket with it.
        listener = await loop.create_unix_server(
            lambda: FrameProtocol(receive, lambda _protocol, _error: None), str(config.checkpoint_socket)
        )
        control.send_json(FromChild.READY, answer)
        await write()
        listener.close()
    control.end()


if __name__ == "__main__":
    run_child("checkpointer", main)
