"""A disk that fails once, inside LMDB's own commit: nothing is lost, nothing is certified too early, all goes on."""

import errno
from pathlib import Path

from integration.service import Service
from support.failing_disk import FailingDisk
from support.waiting import until

ROUNDS = [("page", errno.ENOSPC), *((call, errno.EIO) for call in FailingDisk.calls)]
ROWS = 40
WORKS_AGAIN = "everything can be written again"


def value_of(number: int) -> bytes:
    return bytes((number,)) * 3_000


async def test_an_error_in_any_call_of_a_commit_loses_nothing(tmp_path: Path) -> None:
    disk = FailingDisk(tmp_path)
    service = Service(tmp_path, environment=disk.environment)
    async with service, service.connected() as kv:
        process = service.process
        assert process is not None
        for number, (call, error) in enumerate(ROUNDS):
            plan = disk.plan(call, error)
            written = await kv.put_many((b"%d" % key, value_of(number)) for key in range(ROWS))
            await until(lambda plan=plan: not plan.exists(), f"{call} fails")
            await written[0].certified()
            # Where it was the rows' transaction that failed, the certificate is out before that is tried again.
            await until(lambda count=number + 1: process.output.count(WORKS_AGAIN) == count, WORKS_AGAIN)
        status = await kv.status()
        assert (status["state"], status["restarts"]) == ("ok", 0)
        service.kill()
    assert process.output.count("DEGRADED") == len(ROUNDS)
    assert process.output.count("Input/output error") == len(FailingDisk.calls)
    async with Service(tmp_path) as service, service.connected() as kv:
        answers = await kv.get_many([b"%d" % key for key in range(ROWS)], certified=True)
        assert {answer.value for answer in answers} == {value_of(len(ROUNDS) - 1)}
