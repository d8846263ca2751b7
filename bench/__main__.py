"""`python -m bench`: benchmarks against servers that they start themselves."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from bench import epochs, latency, peers, scale, sdk, verifier
from bench import sizes as sizes_benchmark
from bench.sizes import SizesBenchmark

application = typer.Typer(no_args_is_help=True, add_completion=False)


@application.callback()
def benchmarks() -> None:
    """Benchmarks of ZetaKV. What the figures mean, and how to measure: docs/performance.md."""


for _name, _module in {
    "epochs": epochs,
    "verifier": verifier,
    "scale": scale,
    "peers": peers,
    "latency": latency,
    "sdk": sdk,
}.items():
    application.command(_name)(_module.command)


@application.command()
def sizes(
    records: int = 1_000_000,
    value_bytes: int = 100,
    overwrites: Annotated[int, typer.Option(help="writes to random records after the load")] = 8_640_000,
    crashes: Annotated[int, typer.Option(help="kills of the whole service under load")] = 3,
    workers: int = 1,
    epoch_ms: int = 1_000,
    memory: Annotated[str | None, typer.Option(help="the server's option")] = None,
    seed: int = 1,
    output: Annotated[Path | None, typer.Option(help="also write the figures here, as JSON")] = None,
) -> None:
    """Disk and memory of a store, and the time to come back after a crash. (8,640,000 overwrites: 100/s for a day.)"""
    benchmark = SizesBenchmark(
        records=records,
        value_bytes=value_bytes,
        overwrites=overwrites,
        crashes=crashes,
        workers=workers,
        epoch_ms=epoch_ms,
        memory=memory,
        seed=seed,
    )
    result = sizes_benchmark.run(benchmark)
    _write(result, output)
    table = Table("", Column("MB", justify="right"), Column("x raw", justify="right"))
    for name in ("raw", "loaded", "overwritten", "final"):
        size = result[f"{name}_bytes"]
        table.add_row(name, f"{size / 1e6:,.0f}", f"{size / result['raw_bytes']:.2f}")
    table.add_row("memory, all processes, peak", f"{result['memory_bytes_max'] / 1e6:,.0f}", "")
    console = Console()
    console.print(table)
    console.print(
        f"load {result['loads_per_second']:,.0f}/s, overwrites {result['overwrites_per_second']:,.0f}/s; after a crash "
        f"ready in {result['ready_seconds']:.1f} s, first certified answer after "
        f"{result['first_certified_seconds']:.1f} s (at most {result['first_certified_seconds_max']:.1f}); after the "
        f"monitor's death next answer after {result['monitor_death_seconds']:.1f} s "
        f"(at most {result['monitor_death_seconds_max']:.1f})"
    )


def _write(result: object, output: Path | None) -> None:
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")


application()
