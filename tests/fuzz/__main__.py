"""`make fuzz`: coverage-guided fuzzing, by libFuzzer, of all that the monitor and the prover read from others.

Every target is fuzzed for so many seconds, from the inputs in `corpus/TARGET.txt`. An input that fails is kept in
`target/fuzz/failed`, and the printed command repeats it. Needs a C++ compiler, but no nightly Rust: the passes for
coverage are in the stable compiler, too.
"""

import argparse
import hashlib
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = ROOT / "tests" / "fuzz"
BUILD: Final = ROOT / "target" / "fuzz"
FAILED: Final = BUILD / "failed"

COVERAGE: Final = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
]
"""What `cargo fuzz` gives to the compiler, but the address sanitizer: nothing here has unsafe code of its own."""

INPUT_BYTES_MAX: Final = 4096
"""Longer inputs find little more, and take long."""
INPUT_SECONDS_MAX: Final = 10
"""One input takes microseconds; this is a hang, even on a machine that is busy."""
CANARY_SECONDS_MAX: Final = 30
"""It is found in a tenth of a second."""
CORPUS_BYTES_MAX: Final = 4096
"""Of the inputs of one target that the repository keeps, the smallest first."""
MEMORY_MIB_MAX: Final = 1024
"""For a whole process; what one input may allocate is in the targets."""


CANARY: Final = "canary"
"""The target that must fail."""


def targets() -> list[str]:
    names = [target["name"] for target in tomllib.loads((HERE / "Cargo.toml").read_text())["bin"]]
    return [name for name in names if name != CANARY]


def build() -> Path:
    """The folder of the programs, one for each target."""
    version = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    host = re.findall(r"^host: (.*)$", version, re.MULTILINE)[0]
    # with a target of its own, what runs at build time is built without coverage
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--target", host, "--target-dir", str(BUILD)]
    environment = os.environ | {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(COVERAGE)}
    subprocess.run(command, cwd=HERE, env=environment, check=True)
    return BUILD / host / "release"


def corpus_file(name: str) -> Path:
    """One input on each line, in hex."""
    return HERE / "corpus" / f"{name}.txt"


def inputs_folder(name: str) -> Path:
    """The inputs of the repository, and those that this checkout has found to reach new places."""
    folder = BUILD / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    if corpus_file(name).exists():
        for line in corpus_file(name).read_text().splitlines():
            content = bytes.fromhex(line)
            (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)
    return folder


def run(program: Path, seconds: int, seed: int) -> tuple[str, bool]:
    """What it printed, and whether all went well."""
    name = program.name
    command = [
        str(program),
        str(inputs_folder(name)),
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-artifact_prefix={FAILED}/{name}-",
        "-print_final_stats=1",
    ]
    log = BUILD / f"{name}.log"
    with log.open("wb") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False)
    return log.read_text(errors="replace"), done.returncode == 0


def canary_is_caught(program: Path, seed: int) -> bool:
    printed, went_well = run(program, CANARY_SECONDS_MAX, seed)
    return not went_well and "the canary is found" in printed


def fuzz(program: Path, seconds: int, seed: int) -> tuple[int, bool]:
    """How many inputs were tried, and whether all went well."""
    name = program.name
    printed, went_well = run(program, seconds, seed)
    tried = re.findall(r"stat::number_of_executed_units: *(\d+)", printed)
    covered = re.findall(r"cov: (\d+)", printed)
    inputs = int(tried[-1]) if tried else 0
    if went_well and inputs > 0:
        print(f"{name}: {inputs} inputs, {covered[-1] if covered else 0} places reached", flush=True)
        return inputs, True
    print("\n".join(line for line in printed.splitlines()[-60:] if not line.startswith("#")))
    for artifact in re.findall(r"Test unit written to (\S+)", printed):
        print(f"{name} FAILED; this repeats it: make fuzz TARGET={name} INPUT={artifact}")
        print(f"the input: {Path(artifact).read_bytes().hex()}")
    print(f"{name} FAILED: see {BUILD / name}.log", flush=True)
    return inputs, False


def repeat(program: Path, path: str) -> int:
    command = [str(program), f"-artifact_prefix={FAILED}/{program.name}-", path]
    return subprocess.run(command, check=False).returncode


def keep(program: Path) -> None:
    """Make the corpus of the repository of the smallest inputs that reach what has been reached."""
    name = program.name
    with tempfile.TemporaryDirectory() as merged:
        command = [str(program), "-merge=1", f"-max_len={INPUT_BYTES_MAX}", merged, str(inputs_folder(name))]
        subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
        inputs = sorted(
            (path.read_bytes() for path in Path(merged).iterdir()), key=lambda content: (len(content), content)
        )
    sizes = itertools.accumulate(map(len, inputs))
    kept = [content for content, size in zip(inputs, sizes, strict=True) if size <= CORPUS_BYTES_MAX]
    corpus_file(name).parent.mkdir(exist_ok=True)
    corpus_file(name).write_text("".join(f"{content.hex()}\n" for content in kept))


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="for each target")
    parser.add_argument("--target", help="this one only")
    parser.add_argument("--input", help="repeat this input of the target")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="afterwards keep what was found in the repository")
    arguments = parser.parse_args()
    names = [arguments.target] if arguments.target else targets()
    programs = build()
    FAILED.mkdir(parents=True, exist_ok=True)
    if arguments.input:
        return repeat(programs / names[0], arguments.input)
    seed = arguments.seed or random.randrange(1, 1 << 31)
    print(f"SEED={seed}")
    start, tried, findings = time.monotonic(), 0, 0
    caught = canary_is_caught(programs / CANARY, seed)
    print("the canary is caught" if caught else "the canary is NOT caught: what is fuzzed like this proves nothing")
    for name in names:
        inputs, went_well = fuzz(programs / name, arguments.seconds, seed)
        tried += inputs
        findings += not went_well
        if arguments.keep and went_well:
            keep(programs / name)
    result = "ok" if caught and not findings else "failed"
    print(
        f"ASSURANCE fuzz result={result} targets={len(names)} cases={tried} findings={findings}"
        f" canaries={int(caught)} seed={seed} seconds={time.monotonic() - start:.0f}"
    )
    return 0 if result == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
