"""The verifier alone, on recorded logs: `kvstore/prover/benches/verifier.rs` measures, this shows.

One thread, no sockets, no disk, no prover. Each operation comes in a request with a MAC, and is answered in a receipt
with one. Figures are of CPU time; wall time is beside them in the file.
"""

import json
import subprocess
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import results
from bench.figures import Spread, show, spread
from bench.generator import pinned
from bench.machine import ROOT
from bench.results import Result

NAMES = {
    "cached": "cached",
    "blum": "Blum: add,\nrun, evict",
    "merkle_cached": "Merkle, upper\nlevels cached",
    "merkle_root": "Merkle, from\nthe root",
    "carry_over": "carry over,\nper record",
}


def run(*, records: int, rounds: int, operations: int, upper: int, cpus: str | None) -> Result:
    """All measurements, as what the JSON file holds: nanoseconds per operation (carry over: per record)."""
    arguments = {"records": records, "rounds": rounds, "operations": operations, "upper": upper}
    result = results.new("verifier", arguments)
    options = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    command = ["cargo", "bench", "--quiet", "--package", "zetakv-prover", "--bench", "verifier", "--", *options]
    done = subprocess.run([*pinned(cpus), *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError("the benchmark of the verifier failed: see its messages above")
    measured = json.loads(done.stdout)
    rows = [
        {
            "name": row["name"],
            "log_bytes": row["log_bytes"],
            "cpu_ns": spread(row["cpu_ns"]),
            "wall_ns": spread(row["wall_ns"]),
        }
        for row in measured
    ]
    return result | {"rows": rows}


def draw(result: Result, path: Path) -> None:
    from bench import plots

    drawn, (times, logs) = plots.figure(2)
    rows = result["rows"]
    names = [NAMES[row["name"]] for row in rows]
    plots.bars(times, names, {name: [row[f"{name}_ns"] for row in rows] for name in ("cpu", "wall")})
    times.legend(["CPU time", "wall time"], fontsize=8)
    times.set_yscale("log")
    times.set_ylabel("nanoseconds per operation")
    sizes: list[Spread] = [spread([row["log_bytes"]]) for row in rows]
    plots.bars(logs, names, {"": sizes})
    logs.set_yscale("log")
    logs.set_ylabel("bytes of verifier log per operation")
    for axes in (times, logs):
        axes.tick_params(axis="x", labelsize=7)
    title = f"The verifier alone, one thread, {result['parameters']['records']:,} records, MACs included"
    plots.save(drawn, path, title, result)


def command(
    records: int = 1_000_000,
    rounds: Annotated[int, typer.Option(help="samples of each figure")] = 15,
    operations: Annotated[int, typer.Option(help="operations per request")] = 64,
    upper: Annotated[int, typer.Option(help="upper nodes of the tree that are cached in one of the cases")] = 32_768,
    cpus: Annotated[str | None, typer.Option(help="the core to run on, as for taskset")] = None,
    output: results.Output = None,
) -> None:
    """Nanoseconds and log bytes of an operation in the verifier alone."""
    results.check(output)
    result = run(records=records, rounds=rounds, operations=operations, upper=upper, cpus=cpus)
    results.write(result, output, draw)
    table = Table("", "CPU ns", "op/s by CPU time", "wall ns", "log bytes")
    for row in result["rows"]:
        name = NAMES[row["name"]].replace("\n", " ")
        rate = f"{1e9 / row['cpu_ns']['median']:,.0f}"
        table.add_row(name, show(row["cpu_ns"]), rate, show(row["wall_ns"]), f"{row['log_bytes']:,.0f}")
    Console().print(table)
