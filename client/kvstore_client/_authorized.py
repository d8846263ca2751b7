"""Administration: the clients that the monitor admits. For clients whose key has the role `admin`."""

from __future__ import annotations

import asyncio

from kvstore_client._errors import ForbiddenError, KVStoreError, ProtocolError, RefusedError
from kvstore_client._link import Link
from kvstore_client._messages import AdminAnswer, AdminOp, AuthorizedClient, Role, encode_client_entry
from kvstore_client._receipts import Receipt, Written
from kvstore_client._session import Session

_STATUSES = {
    1: "malformed request",
    3: "there is a client with this key already",
    4: "there is no client with this key",
    5: "too many clients",
    6: "this would remove the last admin",
}
_FORBIDDEN = 2


class AuthorizedClients:
    """`kv.clients`. Changes take effect at once; they are durable when the answer is certified."""

    def __init__(self, session: Session, link: Link) -> None:
        self._session = session
        self._link = link
        self._turn = asyncio.Lock()

    async def add(self, name: str, public_key: bytes, role: Role) -> Written:
        """Admit a client by its Ed25519 public key (32 bytes). `name`: at most 64 bytes of UTF-8, for people.

        Raises ForbiddenError if this client is no admin, RefusedError if the monitor declines,
        OutcomeUnknownError if the connection is lost.
        """
        return self._written(await self._ask(AdminOp.ADD, encode_client_entry(role, public_key, name)))

    async def remove(self, public_key: bytes) -> Written:
        """Admit a client no more. Raises as `add`."""
        if len(public_key) != 32:
            raise ValueError("a public key has 32 bytes")
        return self._written(await self._ask(AdminOp.REMOVE, public_key))

    async def list(self) -> list[AuthorizedClient]:
        """The clients that are admitted, as the monitor says. Raises as `add`."""
        return (await self._ask(AdminOp.LIST, b"")).clients

    async def _ask(self, op: AdminOp, arguments: bytes) -> AdminAnswer:
        async with self._turn:
            await self._link.ready()
            future: asyncio.Future[AdminAnswer] = asyncio.get_running_loop().create_future()

            def settle(answer: AdminAnswer | None, error: KVStoreError | None) -> None:
                if future.done():
                    return
                if answer is None:
                    future.set_exception(error or ProtocolError("no answer"))
                else:
                    future.set_result(answer)

            self._session.ask_admin(op, arguments, settle)
            self._link.wake()
            # The next request may only be numbered when this one is answered, even if the caller has gone.
            answer = await asyncio.shield(future)
        if answer.status == _FORBIDDEN:
            raise ForbiddenError("only a client with the role admin may do this", answer.status)
        if answer.status != 0:
            reason = _STATUSES.get(answer.status, f"status {answer.status}")
            raise RefusedError(f"the monitor declines: {reason}", answer.status)
        return answer

    def _written(self, answer: AdminAnswer) -> Written:
        return Written(Receipt(answer.epoch << 32, self._session.outcome(answer.epoch)))
