"""`python -m bench`: benchmarks against servers that they start themselves."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from bench.epochs import EpochsBenchmark, run
from bench.load import Workload

application = typer.Typer(no_args_is_help=True, add_completion=False)


@application.callback()
def benchmarks() -> None:
    """Benchmarks of ZetaKV, through the Python SDK."""


@application.command()
def epochs(
    epoch_ms: Annotated[list[int] | None, typer.Option(help="epoch lengths; may be given several times")] = None,
    repeats: int = 3,
    workers: int = 1,
    clients: Annotated[int, typer.Option(help="client processes")] = 1,
    records: int = 100_000,
    value_bytes: int = 100,
    batch: Annotated[int, typer.Option(help="operations per call of the SDK")] = 512,
    reads: Annotated[float, typer.Option(help="share of gets")] = 0.95,
    seconds: Annotated[float, typer.Option(help="length of each run")] = 5.0,
    seed: int = 1,
    output: Annotated[Path | None, typer.Option(help="also write the figures here, as JSON")] = None,
) -> None:
    """Throughput, verified and unverified, against epoch length."""
    workload = Workload(records=records, value_bytes=value_bytes, batch=batch, reads=reads, seconds=seconds, seed=seed)
    benchmark = EpochsBenchmark(
        epoch_ms=epoch_ms or [100, 300, 1000, 3000],
        repeats=repeats,
        workers=workers,
        clients=clients,
        workload=workload,
    )
    result = run(benchmark)
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")
    table = Table(
        "epoch ms",
        "verified op/s",
        "unverified op/s",
        Column("ratio", no_wrap=True),
        "certified p50 s",
        "certified p99 s",
    )
    for row in result["rows"]:  # type: ignore[attr-defined]
        table.add_row(
            f"{row['epoch_ms']:,}",
            f"{row['verified']:,.0f}",
            f"{row['unverified']:,.0f}",
            f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})",
            f"{row['certification_p50']:.3f}",
            f"{row['certification_p99']:.3f}",
        )
    Console().print(table)


application()
