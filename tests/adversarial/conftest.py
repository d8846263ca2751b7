"""Services to attack. One honest server is shared by the attacks on the wire to a client, which leave it unharmed; an
attack on the monitor or on the disk latches a violation, and gets a service of its own.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from _harness.monitor_proxy import MonitorProxy
from _harness.service import EPOCH_MS, Interpose, Launch, Service
from support.frames import FrameProxy
from support.server import MonitorProcess, Server


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory with a path short enough for Unix sockets, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory(prefix="zk-") as path:
        yield Path(path)


@pytest.fixture
async def launch(directory: Path) -> AsyncIterator[Launch]:
    servers: list[Server] = []
    monitors: list[MonitorProcess] = []
    proxies: list[MonitorProxy] = []

    async def start_service(
        *options: str, workers: int = 1, epoch_ms: int = EPOCH_MS, through_proxy: bool = False, start: bool = True
    ) -> Service:
        home = directory / str(len(servers))
        home.mkdir()
        arguments = ["--workers", str(workers), "--epoch-ms", str(epoch_ms), *options]
        proxy = admin_key = None
        if through_proxy:
            monitor = await asyncio.to_thread(MonitorProcess(home).start)
            monitors.append(monitor)
            proxy = MonitorProxy(monitor.socket)
            proxies.append(proxy)
            admin_key = monitor.admin_key
            await proxy.listen(home / "proxy.sock")
            arguments += ["--monitor", f"unix:{home / 'proxy.sock'}"]
        server = Server(home, arguments, admin_key=admin_key)
        servers.append(server)
        service = Service(server, proxy)
        if start:
            await service.start()
        return service

    yield start_service
    for server in servers:
        await asyncio.to_thread(server.close)
    for monitor in monitors:
        await asyncio.to_thread(monitor.close)
    for proxy in proxies:
        await proxy.close()


@pytest.fixture(scope="session")
def shared() -> Iterator[Service]:
    """An honest server with two workers. Tests use keys of their own, and leave it as honest as they found it."""
    with tempfile.TemporaryDirectory(prefix="zk-") as path:
        server = Server(Path(path), ["--workers", "2", "--epoch-ms", str(EPOCH_MS)])
        try:
            yield Service(server.start())
        finally:
            server.stop()


@pytest.fixture
async def interpose() -> AsyncIterator[Interpose]:
    proxies: list[FrameProxy] = []

    async def before(service: Service) -> FrameProxy:
        proxy = FrameProxy(service.address)
        proxies.append(proxy)
        await proxy.listen()
        return proxy

    yield before
    for proxy in proxies:
        await proxy.close()


@pytest.fixture
async def wire(shared: Service, interpose: Interpose) -> FrameProxy:
    """The man in the middle before the shared server."""
    return await interpose(shared)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> bytes:
    """A key that no other test uses."""
    return str(request.node.nodeid).encode()
