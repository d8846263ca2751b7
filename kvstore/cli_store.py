"""`zetakv backup`, `restore`, `compact` and `verify`: copies of a store, on the machine that has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from kvstore import backup as copies
from kvstore.children import ServiceError
from kvstore.cli_connect import EXIT_ERROR, say
from kvstore.cli_override import override_rollback
from kvstore.cli_verify import verify
from kvstore.config import ServeConfig
from kvstore.progress import bar
from kvstore.storage import StorageError

DataOption = Annotated[Path, typer.Option(help="Data directory of the server.")]


def backup(
    target: Annotated[Path, typer.Argument(help="Where to; must not exist.")],
    data: DataOption,
) -> None:
    """Copy the store as of its last checkpoint, while the server runs or not.

    The copy holds all keys and values, and no secret of the monitor: keep monitor/root.key apart, too. It holds no
    write-ahead log: answers that are not certified yet are not in it.
    """
    with _reported(), bar("copying") as progress:
        manifest = copies.backup(data, target, progress)
    say(f"epoch {manifest['epoch']}, {manifest['bytes']:,} bytes in {target}")
    if any((data / "wal").glob("*")):
        say("the write-ahead log is not in it: of what is not certified yet, a restore knows nothing")
    if manifest["verified"]:
        say(
            "nobody can start from it without the monitor's root.key, which is not in it: keep a copy of that elsewhere"
        )


def restore(
    source: Annotated[Path, typer.Argument(help="A backup.", exists=True, file_okay=False)],
    data: DataOption,
    replace: Annotated[bool, typer.Option("--replace", help="Move a store that is there aside, with its log.")] = False,
    override: Annotated[
        str | None,
        typer.Option(help="Go on from it though it is not the latest, for this reason, which every client is told."),
    ] = None,
    admin_key: Annotated[Path | None, typer.Option(help="With --override: an admin's key.")] = None,
    register: Annotated[str | None, typer.Option(help="As of `zetakv serve`, for --override.")] = None,
    register_lost: Annotated[
        bool, typer.Option("--register-lost", help="With --override: the register is lost, too: set it up again.")
    ] = False,
) -> None:
    """Put a backup in place of the store of a stopped server.

    A monitor refuses to start from an older store than its last: that is a rollback. If the later one is lost, only an
    admin may decide to go on (--override, or `zetakv override` afterwards): what was certified after the backup is
    lost, and every client is told so.
    """
    if override is None and (admin_key is not None or register is not None or register_lost):
        raise typer.BadParameter("--admin-key, --register and --register-lost go with --override")
    config = ServeConfig(data=data, register=register)
    with _reported():
        aside = copies.restore(source, data, replace=replace)
        say(f"restored to {config.store_path}" + (f"; kept: {', '.join(map(str, aside))}" if aside else ""))
        if override is None:
            say("unless it is the monitor's latest, it will refuse it (rollback): then see `zetakv override`")
            return
        override_rollback(config, reason=override, admin_key=admin_key, register_lost=register_lost)


def compact(data: DataOption) -> None:
    """Write the store of a stopped server anew, in order and without free pages."""
    with _reported(), bar("writing") as progress:
        before, after = copies.compact(data, progress)
    say(f"{before:,} bytes before, {after:,} after")


def add_commands(application: typer.Typer) -> None:
    """Add the commands."""
    for command in (backup, restore, compact, verify):
        application.command()(command)


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except (copies.BackupError, ServiceError, StorageError) as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_ERROR) from None
