"""The machine that figures were measured on, and the code that was measured: part of every result file."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_PACKAGES = ("zetakv", "zetakv-client", "uvloop", "lmdb", "blake3")


def describe() -> dict[str, object]:
    """Processor, cores, memory, kernel, versions, commit, and how busy the machine is at this moment."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "load_average_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "rustc": _output("rustc", "--version"),
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _output("git", "rev-parse", "HEAD"),
        "uncommitted_changes": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
    }


def caption(machine: dict[str, object]) -> str:
    """One line for plots."""
    commit = str(machine["commit"] or "unknown")[:10] + ("+" if machine["uncommitted_changes"] else "")
    memory = f"{int(str(machine['memory_bytes'])) / (1 << 30):.0f} GiB"
    return f"{machine['processor']}, {machine['cores']} cores, {memory}, {machine['kernel']}, commit {commit}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
