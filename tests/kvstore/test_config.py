"""Options are checked once, with the option's name, and reach the children unchanged."""

from pathlib import Path
from typing import Any

import pytest

from kvstore.config import ChildConfig, ConfigError, ServeConfig, parse_address


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 3}, "--workers must be a power of two"),
        ({"workers": 128}, "--workers must be a power of two"),
        ({"epoch_ms": 0}, "--epoch-ms must be"),
        ({"slots": 1}, "--slots must be"),
        ({"port": 70_000}, "--port must be"),
        ({"value_bytes_max": 2**30}, "--value-bytes must be"),
        ({"key_bytes_max": 65_535, "value_bytes_max": 2**24}, "together"),
        ({"monitor": "tcp:host"}, "unix:PATH or tcp:HOST:PORT"),
        ({"register": "file", "verified": False}, "--register must be left out"),
        ({"register": "file", "monitor": "unix:/x"}, "--register must be left out"),
        ({"monitor": "unix:/x", "verified": False}, "--monitor must be left out"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServeConfig(data=Path("data"), **options)


def test_a_child_gets_exactly_what_the_service_was_told() -> None:
    serve = ServeConfig(data=Path("/data"), workers=4, http_key=Path("/key"), http_port=None, monitor="tcp:[::1]:9")
    config = ChildConfig(serve=serve, runtime=Path("/run"), index=3, listen_descriptor=9, address="host:1")
    assert ChildConfig.from_json(config.to_json()) == config
    plain = ChildConfig(serve=ServeConfig(data=Path("d"), verified=False), runtime=Path("/run"))
    assert ChildConfig.from_json(plain.to_json()) == plain


def test_addresses() -> None:
    assert parse_address("unix:/run/monitor.sock") == Path("/run/monitor.sock")
    assert parse_address("tcp:monitor:7719") == ("monitor", 7719)
    assert parse_address("tcp:[::1]:7719") == ("::1", 7719)
