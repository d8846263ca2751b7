"""The whole data directory, with the monitor's own, is put back to yesterday's copy, and what an operator may do then.

A register in a file was put back with it, so that monitor starts: only a client that remembers can tell
(`test_equivocation.py`). A register in a TPM was not, so the monitor refuses, until an admin signs an override.
"""

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from _harness.expect import EXIT_VIOLATION
from _harness.service import Launch, Service, certified
from support.server import CommandResult
from support.tpm import tpm_register

from kvstore.storage import SEALED_KEY


@pytest.fixture
def register() -> Iterator[str]:
    with tpm_register() as address:
        yield address


async def _put_all_back(service: Service, directory: Path) -> None:
    """Yesterday `old` was certified, today `new`; then the disk is yesterday's."""
    yesterday = directory / "yesterday"
    await certified(service, [(b"k", b"old")])
    await service.stop()
    shutil.copytree(service.server.data, yesterday)
    await service.start()
    await certified(service, [(b"k", b"new")])
    await service.stop()
    shutil.rmtree(service.server.data)
    shutil.copytree(yesterday, service.server.data)


async def _started_by_an_override(service: Service) -> None:
    await service.start()
    status = await service.status()
    assert status.code == 0, status
    if find_spec("kvstore_client._overrides") is None:
        pytest.skip("the service has started; the rest needs an SDK that follows overrides")


async def _value(service: Service) -> bytes | None:
    async with service.client() as kv:
        return (await kv.get(b"k", certified=True)).value


def _override(service: Service, *options: str) -> CommandResult:
    arguments = ["override", "--data", str(service.server.data), "--reason", "the disk is lost", *options]
    return service.server.offline_command(*arguments)


async def test_a_file_register_is_put_back_with_the_rest_and_notices_nothing(launch: Launch, directory: Path) -> None:
    service = await launch("--register", "file")
    await _put_all_back(service, directory)
    await service.start()
    assert await _value(service) == b"old"


async def test_a_tpm_register_notices_and_an_override_goes_on(launch: Launch, directory: Path, register: str) -> None:
    service = await launch("--register", register)
    await _put_all_back(service, directory)
    refused = await service.start_refused()
    assert refused.code == EXIT_VIOLATION, refused
    assert "rollback" in refused.stderr
    assert "--register-lost" in refused.stderr, "what an operator can do about it is said"

    assert _override(service, "--register", register).code == 1, "the TPM's commitment is not to be known any more"
    done = _override(service, "--register", register, "--register-lost")
    assert done.code == 0, done
    assert "the next start continues from epoch" in done.stderr
    await _started_by_an_override(service)
    assert await _value(service) == b"old"
    await certified(service, [(b"k", b"goes on")])
    await service.stop()
    await service.start()
    assert await _value(service) == b"goes on"
    await service.stop()
    # yesterday's copy is as old as it was: it was not made good, the new instance was
    shutil.rmtree(service.server.data)
    shutil.copytree(directory / "yesterday", service.server.data)
    assert (await service.start_refused()).code == EXIT_VIOLATION


async def test_the_store_alone_is_put_back_and_an_override_goes_on(launch: Launch, directory: Path) -> None:
    service = await launch()
    await certified(service, [(b"k", b"old")])
    await service.stop()
    service.disk.copy_to(directory / "yesterday")
    await service.start()
    await certified(service, [(b"k", b"new")])
    await service.stop()
    newest = service.disk.row(SEALED_KEY)
    assert "nothing to override" in _override(service).stderr, "the store is the latest"
    service.disk.put_back(directory / "yesterday")
    assert (await service.start_refused()).code == EXIT_VIOLATION
    done = _override(service)
    assert done.code == 0, done
    await _started_by_an_override(service)
    assert await _value(service) == b"old"
    await certified(service, [(b"k", b"goes on")])
    # after a crash, too
    service.server.kill()
    await service.start()
    assert await _value(service) == b"goes on"
    await service.stop()
    # the state that was given up does not come back
    service.disk.set_row(SEALED_KEY, newest)
    assert (await service.start_refused()).code == EXIT_VIOLATION


async def test_an_override_while_the_server_runs_is_refused(launch: Launch) -> None:
    service = await launch()
    await certified(service, [(b"k", b"1")])
    refused = _override(service)
    assert refused.code == 1
    assert "another server is running" in refused.stderr
    assert await _value(service) == b"1"
