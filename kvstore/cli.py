"""The command line, `zetakv`. Each command is a thin call of the module that does it."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from kvstore_client import Answer, ClientKey, Role

from kvstore import __version__, cli_data, cli_head, cli_store
from kvstore.children import ServiceError
from kvstore.cli_connect import (
    EXIT_ERROR,
    EXIT_VIOLATION,
    SERVER_DEFAULT,
    CertifiedOption,
    KeyOption,
    MonitorOption,
    ServerOption,
    Target,
    UnverifiedOption,
    errors_reported,
    fail,
    run,
    say,
)
from kvstore.cli_override import override_rollback
from kvstore.cli_serve import run_service
from kvstore.cli_status import ask_status, print_status
from kvstore.config import HTTP_PORT_DEFAULT, PORT_DEFAULT, ConfigError, ServeConfig, parse_size
from kvstore.demo import demonstrate_tampering
from kvstore.limits import MIB
from kvstore.storage import StorageError
from kvstore.violation import Violation

_PUBLIC_KEY_BYTES: Final = 32  # Ed25519

application = typer.Typer(
    help="An integrity-protected key-value store.", no_args_is_help=True, pretty_exceptions_enable=False
)
clients = typer.Typer(help="The clients that the monitor admits (needs an admin's key).", no_args_is_help=True)
demonstrations = typer.Typer(help="Demonstrations.", no_args_is_help=True)
application.add_typer(clients, name="client")
cli_store.add_commands(application)
application.add_typer(demonstrations, name="demo")


def main() -> None:
    application()


@application.command()
def serve(
    data: Annotated[Path, typer.Option(help="Data directory; created if absent.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = ServeConfig.host,
    port: Annotated[int, typer.Option(help="Port for clients; 0: any.")] = PORT_DEFAULT,
    http_port: Annotated[int, typer.Option(help="Port for HTTP; 0: any.")] = HTTP_PORT_DEFAULT,
    no_http: Annotated[bool, typer.Option("--no-http", help="Serve no HTTP.")] = False,
    http_key: Annotated[Path | None, typer.Option(help="The HTTP gateway's client key.")] = None,
    workers: Annotated[int, typer.Option(help="Worker processes, a power of two.")] = ServeConfig.workers,
    durability: Annotated[
        str,
        typer.Option(
            help="What survives a crash: epoch (what is certified), or wal (all that was answered; each answer waits "
            "for a write to disk)."
        ),
    ] = ServeConfig.durability,
    epoch_ms: Annotated[int, typer.Option(help="Time between certificates, in milliseconds.")] = ServeConfig.epoch_ms,
    unverified: Annotated[bool, typer.Option("--unverified", help="Without a monitor: nothing is checked.")] = False,
    open_mode: Annotated[bool, typer.Option("--open", help="Let anyone read and write, without a key.")] = False,
    monitor: Annotated[
        str | None, typer.Option(help="A running monitor, unix:PATH or tcp:HOST:PORT; else one is started.")
    ] = None,
    register: Annotated[
        str | None, typer.Option(help="The monitor's trusted register: file, tpm:PATH:INDEX or tpm:HOST:PORT:INDEX.")
    ] = None,
    memory: Annotated[
        str, typer.Option(help="What all processes together may hold, as 512MiB or 2GiB.")
    ] = f"{ServeConfig.memory_bytes // MIB}MiB",
    slots: Annotated[int | None, typer.Option(help="Verified cache per worker, in records.")] = None,
    hot_records: Annotated[int | None, typer.Option(help="Records per worker that stay hot over a checkpoint.")] = None,
    key_bytes: Annotated[int, typer.Option(help="Longest key.")] = ServeConfig.key_bytes_max,
    value_bytes: Annotated[int, typer.Option(help="Longest value.")] = ServeConfig.value_bytes_max,
) -> None:
    """Run a server until Ctrl-C or SIGTERM."""
    try:
        config = ServeConfig(
            data=data,
            host=host,
            port=port,
            http_port=None if no_http else http_port,
            http_key=http_key,
            workers=workers,
            durability=durability,
            epoch_ms=epoch_ms,
            verified=not unverified,
            open=open_mode,
            monitor=monitor,
            register=register,
            memory_bytes=parse_size(memory),
            slots=slots,
            hot_records_max=hot_records,
            key_bytes_max=key_bytes,
            value_bytes_max=value_bytes,
        )
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    run_service(config)


@application.command("override")
def override(
    data: Annotated[Path, typer.Option(help="Data directory of the stopped server.")],
    reason: Annotated[str, typer.Option(help="Why, in at most 200 bytes: every client is told.")],
    admin_key: Annotated[Path | None, typer.Option(help="Key of an admin; else the monitor's own.")] = None,
    register: Annotated[str | None, typer.Option(help="As of `zetakv serve`.")] = None,
    register_lost: Annotated[
        bool, typer.Option("--register-lost", help="The register is lost or was put back: set it up again.")
    ] = False,
) -> None:
    """Go on from a store that was put back. What was certified later is lost, and every client is told."""
    config = ServeConfig(data=data, register=register)
    try:
        override_rollback(config, reason=reason, admin_key=admin_key, register_lost=register_lost)
    except (ServiceError, StorageError) as error:
        fail(error)


@application.command()
def put(
    key: str,
    value: Annotated[str, typer.Argument(help="The value, or - for standard input.")],
    certified: CertifiedOption = False,
    server: ServerOption = SERVER_DEFAULT,
    monitor: MonitorOption = None,
    key_file: KeyOption = None,
    unverified: UnverifiedOption = False,
) -> None:
    """Set the value of a key."""
    content = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)

    async def command() -> None:
        async with Target(server, monitor, key_file, unverified).connected() as kv:
            say(_standing(await kv.put(os.fsencode(key), content, certified=certified), unverified))

    run(command)


@application.command()
def get(
    key: str,
    certified: CertifiedOption = False,
    raw: Annotated[bool, typer.Option("--raw", help="Add no newline.")] = False,
    server: ServerOption = SERVER_DEFAULT,
    monitor: MonitorOption = None,
    key_file: KeyOption = None,
    unverified: UnverifiedOption = False,
) -> None:
    """Print the value of a key. Exits with 1 if it has none."""

    async def command() -> None:
        async with Target(server, monitor, key_file, unverified).connected() as kv:
            answer = await kv.get(os.fsencode(key), certified=certified)
        if answer.value is None:
            say(f"{key}: no value, {_standing(answer, unverified)}")
            raise typer.Exit(EXIT_ERROR)
        sys.stdout.buffer.write(answer.value + (b"" if raw else b"\n"))

    run(command)


@application.command()
def delete(
    key: str,
    certified: CertifiedOption = False,
    server: ServerOption = SERVER_DEFAULT,
    monitor: MonitorOption = None,
    key_file: KeyOption = None,
    unverified: UnverifiedOption = False,
) -> None:
    """Take the value of a key away."""

    async def command() -> None:
        async with Target(server, monitor, key_file, unverified).connected() as kv:
            say(_standing(await kv.delete(os.fsencode(key), certified=certified), unverified))

    run(command)


@application.command()
def load(
    file: Annotated[Path, typer.Argument(help='JSON lines: {"key": …, "value": …}.', exists=True, dir_okay=False)],
    server: ServerOption = SERVER_DEFAULT,
    monitor: MonitorOption = None,
    key_file: KeyOption = None,
    unverified: UnverifiedOption = False,
) -> None:
    """Put every record of a file, and wait until all are certified."""

    async def command() -> None:
        count = await cli_data.load(Target(server, monitor, key_file, unverified), file)
        say(f"{count} records loaded and " + ("durable, but unverified" if unverified else "certified"))

    run(command)


@application.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to; else standard output.")] = None,
    server: ServerOption = SERVER_DEFAULT,
    monitor: MonitorOption = None,
    key_file: KeyOption = None,
    unverified: UnverifiedOption = False,
) -> None:
    """Write every record as JSON lines. Each value is verified; that no key is left out is not."""

    async def command() -> None:
        count = await cli_data.export(Target(server, monitor, key_file, unverified), file)
        say(f"{count} records exported" + ("" if unverified else ", each verified and certified"))

    run(command)


@application.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    server: ServerOption = SERVER_DEFAULT,
    monitor: MonitorOption = None,
    key_file: KeyOption = None,
) -> None:
    """Show the server's account of itself. Exits with 3 if it has met an integrity violation."""
    del monitor, key_file  # taken so that the same options fit every command; status proves nothing and needs neither

    async def command() -> None:
        content = await ask_status(server)
        if as_json:
            print(json.dumps(content, indent=2))
        else:
            print_status(content)
        if violation := content.get("violation"):
            say(f"INTEGRITY VIOLATION {Violation(**violation).summary()}")
            raise typer.Exit(EXIT_VIOLATION)

    run(command)


@application.command()
def head(
    compare: Annotated[
        str | None, typer.Option(help="Compare with another client's head: its text, or a file with it.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="With --compare: the second head, in place of a server's. Needs --monitor.")
    ] = None,
    evidence: Annotated[Path | None, typer.Option(help="Where to write the proof if they contradict.")] = None,
    accept_override: Annotated[
        str | None,
        typer.Option(help="From now on go on with this instance, which an operator's override of a rollback began."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for certificates.", min=0)] = 60.0,
    server: ServerOption = SERVER_DEFAULT,
    monitor: MonitorOption = None,
    key_file: KeyOption = None,
) -> None:
    """Print the last certificate in a short form that other clients can compare with theirs, or compare with theirs.

    Also tells what overrides of a rollback there were, as the monitor says.

    Exits with 3 if two heads contradict each other: the store was rolled back or forked.
    """
    if against is not None and (compare is None or monitor is None):
        raise typer.BadParameter("--against needs --compare and --monitor")
    with errors_reported(evidence):
        if against is not None and compare is not None and monitor is not None:
            cli_head.compare_offline(monitor, against, compare)
        else:
            target = Target(server, monitor, key_file, accept_override=accept_override)
            asyncio.run(cli_head.head(target, compare, timeout))


@clients.command("add")
def client_add(
    role: Annotated[str, typer.Option(help="read, write or admin.")],
    name: Annotated[str, typer.Option(help="For people.")],
    public_key: Annotated[str | None, typer.Option(help="The client's public key, hex.")] = None,
    new_key: Annotated[Path | None, typer.Option(help="Make a key for it in this file.")] = None,
    server: ServerOption = SERVER_DEFAULT,
    monitor: MonitorOption = None,
    key_file: KeyOption = None,
) -> None:
    """Admit a client, durably."""
    if (public_key is None) == (new_key is None):
        raise typer.BadParameter("one of --public-key and --new-key is needed")
    try:
        wanted = Role[role.upper()]
    except KeyError:
        raise typer.BadParameter("--role is read, write or admin") from None

    given = _public_key(public_key) if public_key is not None else b""

    async def command() -> None:
        async with Target(server, monitor, key_file).connected() as kv:
            # The key is saved first: an admitted client whose key is lost would be of no use.
            if new_key is not None:
                key = ClientKey.generate()
                key.save(new_key)
                public = key.public_key
            else:
                public = given
            await (await kv.clients.add(name, public, wanted)).certified()
        say(f"admitted {name} ({wanted.name.lower()}): {public.hex()}")

    run(command)


@clients.command("remove")
def client_remove(
    public_key: Annotated[str, typer.Argument(help="The client's public key, hex.")],
    server: ServerOption = SERVER_DEFAULT,
    monitor: MonitorOption = None,
    key_file: KeyOption = None,
) -> None:
    """Admit a client no more, durably."""
    public = _public_key(public_key)

    async def command() -> None:
        async with Target(server, monitor, key_file).connected() as kv:
            await (await kv.clients.remove(public)).certified()
        say(f"removed: {public_key}")

    run(command)


@clients.command("list")
def client_list(
    server: ServerOption = SERVER_DEFAULT, monitor: MonitorOption = None, key_file: KeyOption = None
) -> None:
    """Show the admitted clients, as the monitor says."""

    async def command() -> None:
        async with Target(server, monitor, key_file).connected() as kv:
            for client in await kv.clients.list():
                print(f"{client.public_key.hex()} {client.role.name.lower():5} {client.name}")

    run(command)


@demonstrations.command("tamper")
def demo_tamper() -> None:
    """Edit a record behind a server's back, and see how the lie is caught, and where."""
    try:
        caught = demonstrate_tampering()
    except (OSError, RuntimeError) as error:
        fail(error)
    if not caught:
        raise typer.Exit(EXIT_ERROR)


@application.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _public_key(text: str) -> bytes:
    try:
        public = bytes.fromhex(text)
    except ValueError:
        public = b""
    if len(public) != _PUBLIC_KEY_BYTES:
        raise typer.BadParameter(f"a public key has {2 * _PUBLIC_KEY_BYTES} hex digits, as `zetakv client list` shows")
    return public


def _standing(answer: Answer, unverified: bool) -> str:
    final = "durable, but unverified" if unverified else "certified"
    return f"{final if answer.is_certified else 'provisional'}, epoch {answer.epoch}"


if __name__ == "__main__":
    main()
