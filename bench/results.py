"""Result files: the figures as JSON, with all that they depend on, and the plot beside it."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import machine

Result = dict[str, Any]
Draw = Callable[[Result, Path], None]

Output = Annotated[
    Path | None, typer.Option(help="write the figures here, as JSON, and a plot beside it, as PNG", dir_okay=False)
]


def check(output: Path | None) -> None:
    """Before anything is measured: can it be written in the end?"""
    if output is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise typer.BadParameter("plots need matplotlib: pip install '.[bench]'")
    output.resolve().parent.mkdir(parents=True, exist_ok=True)


def new(benchmark: str, parameters: object) -> Result:
    """A result without its figures."""
    return {"benchmark": benchmark, "parameters": parameters, "machine": machine.describe()}


def write(result: Result, output: Path | None, draw: Draw) -> None:
    if output is None:
        return
    output.write_text(json.dumps(result, indent=1, default=str) + "\n")
    draw(result, output.with_suffix(".png"))
