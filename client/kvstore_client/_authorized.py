"""Administration: the clients that the monitor admits. For clients whose key has the role `admin`."""

from __future__ import annotations

import asyncio

from kvstore_client._calls import AdminCall
from kvstore_client._errors import ForbiddenError, RefusedError
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

    async def add(self, name: str, public_key: bytes, role: Role) -> Written:
        """Admit a client by its Ed25519 public key (32 bytes). `name`: at most 64 bytes of UTF-8, for people.

        Raises ForbiddenError if this client is no admin, RefusedError if the monitor declines, UnavailableError,
        OutcomeUnknownError if the connection or the server is lost with the answer. Cancelled, or failed by a
        TransportError, the change may have been made or not: `list` tells.
        """
        return await self._change(AdminOp.ADD, encode_client_entry(role, public_key, name))

    async def remove(self, public_key: bytes) -> Written:
        """Admit a client no more. Raises as `add`."""
        if len(public_key) != 32:
            raise ValueError("a public key has 32 bytes")
        return await self._change(AdminOp.REMOVE, public_key)

    async def list(self) -> list[AuthorizedClient]:
        """The clients that are admitted, as the monitor says. Raises as `add`."""
        answer, _ = await self._ask(AdminOp.LIST, b"")
        return answer.clients

    async def _change(self, op: AdminOp, arguments: bytes) -> Written:
        _, receipt = await self._ask(op, arguments)
        assert receipt is not None, "a change that was done has a receipt"
        return Written(receipt)

    async def _ask(self, op: AdminOp, arguments: bytes) -> tuple[AdminAnswer, Receipt | None]:
        await self._link.ready()
        call = AdminCall(asyncio.get_running_loop(), op, arguments)
        self._session.ask_admin(call)
        self._link.wake()
        answer, receipt = await call.future
        if answer.status == _FORBIDDEN:
            raise ForbiddenError("only a client with the role admin may do this", answer.status)
        if answer.status != 0:
            reason = _STATUSES.get(answer.status, f"status {answer.status}")
            raise RefusedError(f"the monitor declines: {reason}", answer.status)
        return answer, receipt
