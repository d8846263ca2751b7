"""Connections to a monitor: outputs of logs in flight, what a second host is told, and when a machine that has vanished
is missed."""

import asyncio
import socket
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from kvstore.framing import FrameProtocol
from kvstore.messages import Monitor
from kvstore.monitor_control import MonitorControl
from kvstore.monitor_link import LogLink, MonitorLostError, connect_monitor
from kvstore.violation import IntegrityViolationError

SILENCE_SECONDS = 30
"""Protocol section 9."""


async def start_at_one_that_refuses(code: int) -> None:
    """Raises what the code means to a host."""

    def answer(link: FrameProtocol, kind: int, _body: bytes) -> None:
        if kind == Monitor.CONTROL:
            link.send(Monitor.NOT_STARTED, code.to_bytes(2, "little"), b"some text")

    server = await asyncio.get_running_loop().create_server(
        lambda: FrameProtocol(answer, lambda *_: None), "127.0.0.1", 0
    )
    control = MonitorControl(cast(Any, None))
    try:
        port = server.sockets[0].getsockname()[1]
        await control.start(f"tcp:127.0.0.1:{port}", threads=1, slots=16, sealed=b"", has_log=False)
    finally:
        control.close()
        server.close()


async def test_a_second_host_is_no_violation_and_may_try_again() -> None:
    with pytest.raises(MonitorLostError, match="the monitor serves another server"):
        await start_at_one_that_refuses(0)
    with pytest.raises(IntegrityViolationError, match=r"^bad_host_message: some text"):
        await start_at_one_that_refuses(43)


async def test_outputs_come_in_the_order_of_their_logs_and_no_more_of_them(tmp_path: Path) -> None:
    logs: list[bytes] = []

    def answer(monitor: FrameProtocol, kind: int, body: bytes) -> None:
        if kind == Monitor.LOG:
            logs.append(body)
        if len(logs) == 2:
            for outputs in (b"first", b"second", b"of no log"):
                monitor.send(Monitor.OUTPUTS, outputs)

    path = tmp_path / "monitor"
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: FrameProtocol(answer, lambda *_: None), str(path))
    link, news = LogLink(), asyncio.Event()
    link.on_news = news.set
    try:
        await link.connect(f"unix:{path}", 0, bytes(16))
        link.send(b"one")
        link.send(b"other")
        assert link.in_flight == 2
        assert link.receive() is None
        async with asyncio.timeout(5):
            await news.wait()
            assert (link.receive(), link.receive(), link.in_flight, logs) == (
                b"first",
                b"second",
                0,
                [b"one", b"other"],
            )
            assert link.receive() is None, "who waits for nothing need not know that the connection has ended"
            link.send(b"third")
            with pytest.raises(MonitorLostError, match="out of turn"):
                link.receive()
    finally:
        server.close()


def test_a_machine_that_has_vanished_is_missed() -> None:
    """On the loop that the service runs on: its transports have sockets of their own kind."""

    async def options() -> dict[str, int]:
        protocol = FrameProtocol(lambda *_: None, lambda *_: None)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await connect_monitor(f"tcp:127.0.0.1:{listener.getsockname()[1]}", protocol)
            assert protocol._transport is not None
            connected = protocol._transport.get_extra_info("socket")
            found = {name: connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in _TCP_OPTIONS}
            found["SO_KEEPALIVE"] = connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            protocol.close()
        return found

    found = uvloop.run(options())
    assert found["SO_KEEPALIVE"] == 1
    assert found["TCP_KEEPIDLE"] + found["TCP_KEEPCNT"] * found["TCP_KEEPINTVL"] == SILENCE_SECONDS
    assert found["TCP_USER_TIMEOUT"] == 1000 * SILENCE_SECONDS


_TCP_OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
