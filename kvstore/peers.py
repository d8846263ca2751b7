"""Links between the workers of one service: a request that reached the wrong worker is carried to the right one.

Each worker listens on a Unix socket and connects to every other before clients are let in. The bytes of a forwarded
frame are those that the client sent; the owner answers over the same link. A link ends only with a process, and then
so does the run, so nothing is sent again.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from kvstore.framing import FrameProtocol
from kvstore.messages import FORWARD, TOKEN, Peer

OnRequest = Callable[[int, int, int, bytes], None]
OnAnswer = Callable[[int, bytes], None]


class Peers:
    """`on_request(link, connection, frame type, body)` at the owner; `on_answer(connection, frame)` at the origin.

    A link is a number, from 1 on: the peer that the request came from, and that `answer` goes to.
    """

    def __init__(self, paths: list[Path], on_request: OnRequest, on_answer: OnAnswer) -> None:
        self._paths = paths
        self._on_request = on_request
        self._on_answer = on_answer
        self._outward: dict[int, FrameProtocol] = {}
        self._inward: list[FrameProtocol] = []
        self._server: asyncio.Server | None = None

    async def listen(self, index: int) -> None:
        """Serve the peers of worker `index`, which is this one."""
        loop = asyncio.get_running_loop()
        # Kept, since the loop does not: without a reference it is collected, and its socket with it.
        self._server = await loop.create_unix_server(self._accept, str(self._paths[index]))

    async def connect(self, own_index: int) -> None:
        """Connect to all others. All of them must be listening."""
        loop = asyncio.get_running_loop()
        for index, path in enumerate(self._paths):
            if index != own_index:
                _, self._outward[index] = await loop.create_unix_connection(
                    lambda: FrameProtocol(self._answered, _lost), str(path)
                )

    def forward(self, owner: int, connection: int, kind: int, body: bytes) -> None:
        self._outward[owner].send(Peer.REQUEST, FORWARD.pack(connection, kind), body)

    def answer(self, link: int, connection: int, frame: bytes) -> None:
        self._inward[link - 1].send(Peer.ANSWER, TOKEN.pack(connection), frame)

    def hold(self, held: bool) -> None:
        """Stop, or go on, taking requests; to be called in turns. What waits then counts against its own clients."""
        for link in self._inward:
            link.hold(held)

    def _accept(self) -> FrameProtocol:
        number = len(self._inward) + 1

        def requested(_: FrameProtocol, kind: int, body: bytes) -> None:
            assert kind == Peer.REQUEST
            connection, frame_kind = FORWARD.unpack_from(body)
            self._on_request(number, connection, frame_kind, body[FORWARD.size :])

        link = FrameProtocol(requested, _lost)
        self._inward.append(link)
        return link

    def _answered(self, _: FrameProtocol, kind: int, body: bytes) -> None:
        assert kind == Peer.ANSWER
        (connection,) = TOKEN.unpack_from(body)
        self._on_answer(connection, body[TOKEN.size :])


def _lost(_link: FrameProtocol, _error: Exception | None) -> None:
    """The supervisor notices that a process is gone, and ends the run."""
