"""The command line as a person uses it, against a real service: output, exit codes, no tracebacks."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from service import Service

Zetakv = Callable[..., Coroutine[Any, Any, subprocess.CompletedProcess[bytes]]]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with Service(tmp_path) as running:
        yield running


@pytest.fixture
def zetakv(service: Service) -> Zetakv:
    async def run(*arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        done = await asyncio.to_thread(service.zetakv, *arguments, data=data)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    return run


async def test_put_get_delete_need_no_options_on_ones_own_machine(zetakv: Zetakv) -> None:
    put = await zetakv("put", "alice", "100 coins", "--certified")
    assert (put.returncode, put.stderr) == (0, b"certified, epoch 1\n")
    assert (await zetakv("get", "alice")).stdout == b"100 coins\n"
    assert (await zetakv("delete", "alice")).returncode == 0
    absent = await zetakv("get", "alice")
    assert (absent.returncode, absent.stdout) == (1, b"")
    assert b"alice: no value" in absent.stderr
    binary = bytes(range(256)) * 100
    assert (await zetakv("put", "binary", "-", data=binary)).returncode == 0
    assert (await zetakv("get", "binary", "--raw", "--certified")).stdout == binary


async def test_load_and_export_are_inverse(zetakv: Zetakv, tmp_path: Path) -> None:
    source = tmp_path / "records.jsonl"
    lines = [{"key": f"key {number}", "value": f"värde {number}"} for number in range(3_000)]
    lines.append({"key": "object", "value": {"a": [1, None]}})  # type: ignore[dict-item]
    lines.append({"key_base64": "/w==", "value_base64": "AP8="})
    source.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    loaded = await zetakv("load", str(source))
    assert loaded.returncode == 0, loaded.stderr.decode()
    assert b"3002 records loaded and certified" in loaded.stderr
    exported = await zetakv("export")
    assert b"3002 records exported, each verified and certified" in exported.stderr
    lines[-2] = {"key": "object", "value": '{"a":[1,null]}'}

    def in_order(records: list[dict[str, str]]) -> list[str]:
        return sorted(json.dumps(record, sort_keys=True) for record in records)

    assert in_order([json.loads(line) for line in exported.stdout.splitlines()]) == in_order(lines)


async def test_a_line_that_is_no_record_is_named(zetakv: Zetakv, tmp_path: Path) -> None:
    source = tmp_path / "records.jsonl"
    source.write_text('{"key": "a", "value": "b"}\n{"key": 5}\n')
    refused = await zetakv("load", str(source))
    assert refused.returncode == 1
    assert b"line 2 is no record" in refused.stderr


async def test_a_load_that_fails_in_the_middle_says_how_far_it_came(zetakv: Zetakv, tmp_path: Path) -> None:
    source = tmp_path / "records.jsonl"
    lines = [json.dumps({"key": f"key {number}", "value": "v"}) for number in range(2_500)]
    lines.append(json.dumps({"key": "long", "value": "v" * (1 << 20) + "v"}))
    source.write_text("\n".join(lines))
    refused = await zetakv("load", str(source))
    assert refused.returncode == 1
    assert b"its first 2000 records were put" in refused.stderr
    assert b"lines 2001 to 2501: the value has 1048577 bytes" in refused.stderr


async def test_arguments_that_are_not_text_are_bytes(zetakv: Zetakv) -> None:
    key, value = os.fsdecode(b"key \xff"), os.fsdecode(b"value \xfe")
    assert (await zetakv("put", key, value)).returncode == 0
    assert (await zetakv("get", key, "--raw")).stdout == b"value \xfe"
    assert (await zetakv("delete", key)).returncode == 0
    assert (await zetakv("get", key)).returncode == 1


async def test_an_export_that_fails_leaves_the_former_one(zetakv: Zetakv, tmp_path: Path) -> None:
    target = tmp_path / "records.jsonl"
    target.write_text("the former one")
    assert (await zetakv("export", str(target), "--server", "127.0.0.1:1")).returncode == 1
    assert [name for name in os.listdir(tmp_path) if "records" in name] == ["records.jsonl"]
    assert target.read_text() == "the former one"
    assert (await zetakv("put", "a", "b")).returncode == 0
    assert (await zetakv("load", "/dev/null")).returncode == 0
    assert (await zetakv("export", str(target))).returncode == 0


async def test_status_for_people_and_for_programs(zetakv: Zetakv, service: Service) -> None:
    status = json.loads((await zetakv("status", "--json")).stdout)
    assert status["state"] == "ok"
    assert status["fingerprint"] == service.fingerprint
    shown = (await zetakv("status")).stdout.decode()
    assert service.fingerprint in shown
    assert "open_epoch" in shown


async def test_clients_are_admitted_with_a_role_and_removed(zetakv: Zetakv, tmp_path: Path, service: Service) -> None:
    key_file = tmp_path / "reader.key"
    added = await zetakv("client", "add", "--role", "read", "--name", "reader", "--new-key", str(key_file))
    assert added.returncode == 0, added.stderr.decode()
    listed = (await zetakv("client", "list")).stdout.decode().splitlines()
    (line,) = [line for line in listed if line.endswith("reader")]
    public_key, role, _ = line.split()
    assert role == "read"
    assert (await zetakv("get", "key", "--key", str(key_file))).returncode == 1
    forbidden = await zetakv("put", "key", "value", "--key", str(key_file))
    assert forbidden.returncode == 1
    assert b"may only read" in forbidden.stderr
    assert (await zetakv("client", "remove", public_key)).returncode == 0
    refused = await zetakv("get", "key", "--key", str(key_file))
    assert refused.returncode == 1
    assert b"key" in refused.stderr


async def test_wrong_usage_is_exit_code_2(zetakv: Zetakv, tmp_path: Path) -> None:
    assert (await zetakv("serve", "--data", str(tmp_path / "x"), "--workers", "3")).returncode == 2
    assert (await zetakv("client", "add", "--role", "king", "--name", "x", "--public-key", "00")).returncode == 2
    assert (await zetakv("client", "remove", "zz")).returncode == 2
    assert (await zetakv("load", "/does/not/exist")).returncode == 2
    assert (await zetakv("nonsense")).returncode == 2


async def test_another_monitor_than_the_pinned_one_is_exit_code_3(tmp_path: Path) -> None:
    async with Service(tmp_path, "--open") as service:
        lie = await asyncio.to_thread(service.zetakv, "get", "key", "--monitor", "ab" * 32)
    assert lie.returncode == 3
    assert b"INTEGRITY VIOLATION IdentityError" in lie.stderr


async def test_the_record_of_a_server_is_private_and_goes_with_it(tmp_path: Path) -> None:
    async with Service(tmp_path) as service:
        record = service.home / "servers" / f"{service.port}.json"
        assert record.stat().st_mode & 0o777 == 0o600
        content = json.loads(record.read_text())
        assert content["fingerprint"] == service.fingerprint
        assert content["data"] == str(service.data)
    assert not record.exists()


async def test_the_demonstration_catches_the_lie(zetakv: Zetakv) -> None:
    demo = await zetakv("demo", "tamper")
    assert demo.returncode == 0, demo.stdout.decode()
    assert b"caught: hash_mismatch" in demo.stdout


async def test_heads_are_compared(service: Service, zetakv: Zetakv, tmp_path: Path) -> None:
    assert (await zetakv("put", "a", "1", "--certified")).returncode == 0
    printed = await zetakv("head")
    assert printed.returncode == 0, printed.stderr.decode()
    file = tmp_path / "head.txt"
    file.write_bytes(printed.stdout)
    head = printed.stdout.decode().strip()
    assert (await zetakv("put", "a", "2", "--certified")).returncode == 0
    for argument in (head, str(file)):
        older = await zetakv("head", "--compare", argument)
        assert (older.returncode, older.stderr) == (0, b"the other head is older, and in this chain\n")
    offline = ("--against", head, "--monitor", service.fingerprint, "--server", "127.0.0.1:1")
    assert b"the same head" in (await zetakv("head", "--compare", str(file), *offline)).stderr
    assert (await zetakv("head", "--compare", head, "--against", head)).returncode == 2
    assert (await zetakv("head", "--compare", "nonsense")).returncode == 1
    changed = head[:100] + ("A" if head[100] != "A" else "B") + head[101:]
    evidence = tmp_path / "evidence.json"
    lie = await zetakv("head", "--compare", changed, "--evidence", str(evidence))
    assert lie.returncode == 3
    assert b"INTEGRITY VIOLATION CertificateError" in lie.stderr
    assert set(json.loads(evidence.read_text())["evidence"]) == {"certificate"}
