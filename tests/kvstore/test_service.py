"""What a service asks its workers for: an answer that does not come in time leaves nothing behind."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any, cast

import pytest

from kvstore import service as service_module
from kvstore.config import ServeConfig
from kvstore.messages import FromChild, Json, ToChild
from kvstore.restarts import Restarts
from kvstore.service import Service


class Worker:
    """Remembers what it was asked, and answers when it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tokens: list[bytes] = []

    def send(self, kind: ToChild, token: bytes, _body: bytes = b"") -> None:
        assert kind == ToChild.STATS
        self.tokens.append(token)

    def answer(self, service: Service, content: Json) -> None:
        body = self.tokens[-1] + json.dumps(content).encode()
        service.child_message(cast(Any, self), FromChild.STATS, body)


@pytest.fixture
def workers() -> list[Worker]:
    return [Worker("worker-0"), Worker("worker-1")]


@pytest.fixture
def service(tmp_path: Path, workers: list[Worker]) -> Service:
    unused = cast(Any, None)
    return Service(ServeConfig(data=tmp_path, workers=2), unused, cast(Any, workers), Restarts(), unused)


async def test_a_worker_that_does_not_answer_in_time_is_not_waited_for_any_more(
    service: Service, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_STATS_SECONDS", 0.05)
    asking = asyncio.create_task(service.status())
    await asyncio.sleep(0)
    workers[1].answer(service, {"worker": 1, "connections": 3})
    assert (await asking)["workers"] == [{"worker": 0}, {"worker": 1, "connections": 3}]
    assert not service._asked
    workers[0].answer(service, {"worker": 0, "connections": 7})


async def test_a_question_that_is_given_up_is_forgotten(service: Service, workers: list[Worker]) -> None:
    """As at the end of a run, when one of its processes has died."""
    asking = asyncio.create_task(service.status())
    await asyncio.sleep(0)
    assert len(workers[0].tokens) == 1
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    assert not service._asked
