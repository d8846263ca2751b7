"""The checkpointer: the one process that writes the store (`python -m kvstore.checkpointer CONFIG`).

It collects the changed rows of an epoch from every worker; when it has them all and the supervisor has passed on the
sealed state, it writes rows, sealed state, meta row and the former certificate in one synced transaction. It is a
process of its own because a long transaction in a thread would have to fight a busy event loop for the interpreter.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Final

from kvstore import failpoints
from kvstore.child import Control, run_child
from kvstore.config import FORMAT_VERSION, ChildConfig
from kvstore.framing import FrameProtocol
from kvstore.messages import EPOCH, ROWS, STORE, FromChild, Json, Rows, ToChild
from kvstore.storage import (
    META_KEY,
    SEALED_KEY,
    LmdbWriter,
    Row,
    StorageError,
    StoreWriter,
    certificate_key,
    unpack_rows,
)

logger = logging.getLogger(__name__)

_SLOW_SECONDS: Final = 5.0


class Checkpointer:
    """Gathers the parts of one checkpoint and writes it. Parts of two epochs never mix: one cut is in flight."""

    def __init__(self, store: StoreWriter, *, workers: int, verified: bool) -> None:
        self._store = store
        self._workers = workers
        self._verified = verified
        self._rows: dict[int, tuple[int, bytes]] = {}
        self._order: tuple[int, bytes, bytes] | None = None

    def opening(self) -> Json:
        """What the store says of its last checkpoint. Raises StorageError if it cannot be served."""
        meta_row, sealed = self._store.read([META_KEY, SEALED_KEY])
        return {"meta": check_meta(meta_row, verified=self._verified), "sealed": (sealed or b"").hex()}

    def rows(self, epoch: int, worker: int, packed: bytes) -> int | None:
        """A worker's part; returns the epoch if the checkpoint is thereby complete and written."""
        self._rows[worker] = (epoch, packed)
        return self._write_when_complete()

    def store(self, epoch: int, former_certificate: bytes, sealed: bytes) -> int | None:
        """The supervisor's part; returns as `rows`."""
        self._order = (epoch, former_certificate, sealed)
        return self._write_when_complete()

    def _write_when_complete(self) -> int | None:
        if self._order is None:
            return None
        epoch, former_certificate, sealed = self._order
        if len(self._rows) < self._workers or any(part[0] != epoch for part in self._rows.values()):
            return None
        rows: list[Row] = [row for _, packed in self._rows.values() for row in unpack_rows(packed)]
        meta = {"format": FORMAT_VERSION, "verified": self._verified, "epoch": epoch, "threads": self._workers}
        rows.append((META_KEY, json.dumps(meta).encode()))
        if sealed:
            rows.append((SEALED_KEY, sealed))
        if former_certificate:
            rows.append((certificate_key(epoch - 1), former_certificate))
        self._store.write(rows)
        self._rows.clear()
        self._order = None
        return epoch


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

    def handle(kind: int, body: bytes) -> None:
        match kind:
            case ToChild.STORE:
                epoch, certificate_bytes = STORE.unpack_from(body)
                sealed_at = STORE.size + certificate_bytes
                report(lambda: checkpointer.store(epoch, body[STORE.size : sealed_at], body[sealed_at:]))
            case ToChild.END:
                listener.close()
                store.close()
                control.end()

    def receive(_: FrameProtocol, kind: int, body: bytes) -> None:
        assert kind == Rows.CHECKPOINT
        epoch, worker = ROWS.unpack_from(body)
        report(lambda: checkpointer.rows(epoch, worker, body[ROWS.size :]))

    def report(step: Callable[[], int | None]) -> None:
        started = loop.time()
        try:
            epoch = step()
        except StorageError as error:
            control.fatal(f"the checkpoint failed: {error}")
            return
        if epoch is not None:
            if loop.time() - started > _SLOW_SECONDS:
                logger.warning("the checkpoint of epoch %d took %.1f s", epoch, loop.time() - started)
            control.send(FromChild.STORED, EPOCH.pack(epoch))

    loop = asyncio.get_running_loop()
    await control.connect(config, handle)
    store = LmdbWriter(serve.store_path, serve.map_bytes_start)
    checkpointer = Checkpointer(store, workers=serve.workers, verified=serve.verified)
    failpoints.hit("checkpointer.in_start")
    opening = checkpointer.opening()
    # `handle` keeps it, since the loop does not: without a reference it is collected, and its socket with it.
    listener = await loop.create_unix_server(
        lambda: FrameProtocol(receive, lambda _protocol, _error: None), str(config.checkpoint_socket)
    )
    control.send_json(FromChild.READY, opening)


if __name__ == "__main__":
    run_child("checkpointer", main)
