"""`zetakv backup`, `restore` and `compact`: copies of a store, on the machine that has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from kvstore import backup as copies
from kvstore.cli_connect import EXIT_ERROR, say

DataOption = Annotated[Path, typer.Option(help="Data directory of the server.")]


def backup(
    target: Annotated[Path, typer.Argument(help="Where to; must not exist.")],
    data: DataOption,
) -> None:
    """Copy the store as of its last checkpoint, while the server runs or not.

    The copy holds all keys and values, and no secret of the monitor: keep monitor/root.key apart, too.
    """
    with _reported(), _bar("copying") as progress:
        manifest = copies.backup(data, target, progress)
    say(f"epoch {manifest['epoch']}, {manifest['bytes']:,} bytes in {target}")
    if manifest["verified"]:
        say(
            "nobody can start from it without the monitor's root.key, which is not in it: keep a copy of that elsewhere"
        )


def restore(
    source: Annotated[Path, typer.Argument(help="A backup.", exists=True, file_okay=False)],
    data: DataOption,
    replace: Annotated[bool, typer.Option("--replace", help="Move a store that is there aside.")] = False,
    override: Annotated[
        str | None,
        typer.Option(help="Go on from it though it is not the latest, for this reason, which every client is told."),
    ] = None,
    admin_key: Annotated[Path | None, typer.Option(help="An admin's key, to sign the override.")] = None,
    monitor_state: Annotated[
        Path | None, typer.Option(help="The monitor's state directory; by default the one of the data directory.")
    ] = None,
    register_lost: Annotated[
        bool, typer.Option("--register-lost", help="With --override: the monitor's register is lost, too.")
    ] = False,
) -> None:
    """Put a backup in place of the store of a stopped server.

    A monitor refuses to start from an older store than its last: that is a rollback. If the later one is lost, only an
    admin may decide to go on (--override): what was certified after the backup is lost, and every client is told so.
    """
    state = monitor_state or data / "monitor"
    if override is None and (admin_key is not None or register_lost):
        raise typer.BadParameter("--admin-key and --register-lost go with --override")
    with _reported():
        change = None
        if override is not None:
            key = admin_key or state / "admin.key"
            change = copies.monitor_override(state, key, override, register_lost=register_lost)
        aside = copies.restore(source, data, replace=replace, override=change)
    say(f"restored to {data / 'store'}" + (f"; the former store is in {aside}" if aside else ""))
    if change is None:
        say("unless it is the monitor's latest, it will refuse it (rollback): see --override")


def compact(data: DataOption) -> None:
    """Write the store of a stopped server anew, in order and without free pages."""
    with _reported(), _bar("writing") as progress:
        before, after = copies.compact(data, progress)
    say(f"{before:,} bytes before, {after:,} after")


def register(application: typer.Typer) -> None:
    """Add the commands."""
    for command in (backup, restore, compact):
        application.command()(command)


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except copies.BackupError as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_ERROR) from None


@contextmanager
def _bar(what: str) -> Iterator[copies.Progress]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
