"""What a service is told at its start: checked once here, then passed on unchanged as JSON to every process."""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from kvstore import limits
from kvstore.memory import MEMORY_BYTES_DEFAULT, MemoryPlan, memory_bytes_min, plan_memory

PORT_DEFAULT: Final = 7717
HTTP_PORT_DEFAULT: Final = 7718
DURABILITY_EPOCH: Final = "epoch"
DURABILITY_WAL: Final = "wal"
FORMAT_VERSION: Final = 3
"""Of the data directory; raised by every change that an older release cannot read."""

_EPOCH_MS_MIN: Final = 10
_EPOCH_MS_MAX: Final = 3_600_000
_SLOTS_MIN: Final = 80  # twice the longest path in the tree
_SLOTS_MAX: Final = 1 << 24  # what the monitor allows (protocol section 9)
_HOT_RECORDS_MAX: Final = 1 << 28
_SIZE: Final = re.compile(r"(\d+)(KiB|MiB|GiB|)")
_UNITS: Final = {"": 1, "KiB": limits.KIB, "MiB": limits.MIB, "GiB": 1 << 30}


_REGISTER_OF_CHILD: Final = "left out with --unverified, and with --monitor, which has its own"


class ConfigError(ValueError):
    """An option has a value that cannot be served. The text names the option and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Options of `zetakv serve`. Ports of 0 are chosen by the system. Raises ConfigError."""

    data: Path
    host: str = "127.0.0.1"
    port: int = PORT_DEFAULT
    http_port: int | None = HTTP_PORT_DEFAULT
    """None: no HTTP gateway."""
    http_key: Path | None = None
    """The gateway's client key; None: the admin key that the monitor made."""
    workers: int = 1
    epoch_ms: int = 1_000
    verified: bool = True
    """False: the baseline without a monitor."""
    open: bool = False
    """Clients need no key of their own."""
    monitor: str | None = None
    """Address of a running monitor, `unix:PATH` or `tcp:HOST:PORT`; None: a child of this service."""
    register: str | None = None
    """Trusted register of the monitor that is started; None: a file in its directory."""
    durability: str = DURABILITY_EPOCH
    """What survives a crash: `epoch`, what is certified; `wal`, all that was answered."""
    memory_bytes: int = MEMORY_BYTES_DEFAULT
    """What all processes together may hold (`kvstore.memory`)."""
    slots: int | None = None
    """Verified cache of each verifier thread, in records; None: as the memory allows."""
    hot_records_max: int | None = None
    """Records of each worker that stay in Blum over a cut; None: as the memory allows."""
    key_bytes_max: int = 4_096
    value_bytes_max: int = limits.MIB
    map_bytes_start: int = 256 * limits.MIB
    """LMDB's map at first; it doubles when full."""

    def __post_init__(self) -> None:
        _check("--workers", self.workers in {1 << bit for bit in range(7)}, "a power of two, at most 64")
        _check("--epoch-ms", _EPOCH_MS_MIN <= self.epoch_ms <= _EPOCH_MS_MAX, f"{_EPOCH_MS_MIN} to {_EPOCH_MS_MAX}")
        memory_min = memory_bytes_min(self.workers)
        _check(
            "--memory", self.memory_bytes >= memory_min, f"at least {memory_min // limits.MIB}MiB with these workers"
        )
        memory = self.memory
        _check("--slots", _SLOTS_MIN <= memory.slots <= _SLOTS_MAX, f"{_SLOTS_MIN} to {_SLOTS_MAX}")
        _check("--hot-records", 0 <= memory.hot_records_max <= _HOT_RECORDS_MAX, f"0 to {_HOT_RECORDS_MAX}")
        _check("--port", 0 <= self.port < 1 << 16, "0 to 65535")
        _check("--http-port", self.http_port is None or 0 <= self.http_port < 1 << 16, "0 to 65535")
        _check("--key-bytes", 1 <= self.key_bytes_max <= limits.KEY_BYTES_MAX, f"1 to {limits.KEY_BYTES_MAX}")
        _check("--value-bytes", 1 <= self.value_bytes_max <= limits.VALUE_BYTES_MAX, f"1 to {limits.VALUE_BYTES_MAX}")
        together, together_max = self.key_bytes_max + self.value_bytes_max, limits.KEY_AND_VALUE_BYTES_MAX
        _check("--key-bytes and --value-bytes", together <= together_max, f"{together_max} at most, together")
        _check("--monitor", self.verified or self.monitor is None, "left out with --unverified")
        _check("--register", self.register is None or (self.verified and self.monitor is None), _REGISTER_OF_CHILD)
        _check("--durability", self.durability in {DURABILITY_EPOCH, DURABILITY_WAL}, "epoch or wal")
        _check("--durability", self.verified or not self.has_log, "epoch with --unverified")
        if self.monitor is not None:
            parse_address(self.monitor)

    @property
    def memory(self) -> MemoryPlan:
        """The limits of each worker: as the memory is divided, but for what was chosen."""
        plan = plan_memory(self.memory_bytes, self.workers)
        chosen = {"slots": self.slots, "hot_records_max": self.hot_records_max}
        return dataclasses.replace(plan, **{name: value for name, value in chosen.items() if value is not None})

    @property
    def store_path(self) -> Path:
        return self.data / "store"

    @property
    def has_log(self) -> bool:
        """Whether it keeps a write-ahead log."""
        return self.durability == DURABILITY_WAL

    @property
    def log_path(self) -> Path:
        return self.data / "wal"

    @property
    def monitor_state_path(self) -> Path:
        return self.data / "monitor"

    @property
    def admin_key_path(self) -> Path:
        return self.monitor_state_path / "admin.key"

    @property
    def http_token_path(self) -> Path:
        return self.data / "http.token"


@dataclass(frozen=True, kw_only=True)
class ChildConfig:
    """What every child process gets as its one argument: who it is, and where it finds the others."""

    serve: ServeConfig
    runtime: Path
    """The private directory of this service's Unix sockets."""
    index: int = 0
    """Of a worker."""
    listen_descriptor: int = -1
    """The inherited listening socket of a worker or of the gateway; -1: none."""
    address: str = ""
    """The service's address, for the gateway."""

    @property
    def control_socket(self) -> Path:
        return self.runtime / "control.sock"

    @property
    def checkpoint_socket(self) -> Path:
        return self.runtime / "checkpoint.sock"

    def peer_socket(self, index: int) -> Path:
        return self.runtime / f"worker-{index}.sock"

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields: dict[str, Any] = json.loads(text)
        serve: dict[str, Any] = fields.pop("serve")
        for name in ("data", "http_key"):
            serve[name] = None if serve[name] is None else Path(serve[name])
        fields["runtime"] = Path(fields["runtime"])
        return cls(serve=ServeConfig(**serve), **fields)


def parse_size(text: str) -> int:
    """`512MiB`, `2GiB`, or a number of bytes. Raises ConfigError."""
    number, unit = (found[1], found[2]) if (found := _SIZE.fullmatch(text)) else ("", "")
    if not number:
        raise ConfigError(f"a size is a number with KiB, MiB or GiB, not {text!r}")
    return int(number) * _UNITS[unit]


def parse_address(address: str) -> Path | tuple[str, int]:
    """`unix:PATH` -> Path, `tcp:HOST:PORT` -> (host, port). Raises ConfigError."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix" and rest:
        return Path(rest)
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isdecimal():
        return host.strip("[]"), int(port)
    raise ConfigError(f"a monitor's address is unix:PATH or tcp:HOST:PORT, not {address!r}")


def _check(option: str, allowed: bool, what: str) -> None:
    if not allowed:
        raise ConfigError(f"{option} must be {what}")
