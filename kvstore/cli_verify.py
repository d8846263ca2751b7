"""`zetakv verify`: what the check of a store found, for people and as JSON."""

import base64
import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kvstore.children import ServiceError
from kvstore.cli_connect import EXIT_ERROR, EXIT_VIOLATION, say
from kvstore.progress import bar
from kvstore.storage import StorageError
from kvstore.verify import Finding, Report, VerifyError
from kvstore.verify import verify as verify_store

_LINES_MAX: Final = 100
"""Findings that are shown to a person; --json has them all, up to 10,000."""
_WHAT: Final = {"r": "record", "n": "node of the tree", "h": "hot marker", "m": "meta row", "s": "sealed state"}


def verify(
    directory: Annotated[
        Path, typer.Argument(help="Data directory of a stopped server, or a backup.", file_okay=False)
    ],
    monitor_state: Annotated[
        Path | None,
        typer.Option(help="The monitor's state directory; by default `monitor` in the directory, if there."),
    ] = None,
    register: Annotated[str | None, typer.Option(help="As of `zetakv serve`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Check every record of a store against its sealed state, offline, and name each that is wrong.

    Writes nothing. Exits with 3 if anything is wrong, and with 1 if the store cannot be checked.
    """
    try:
        with bar("verifying") as progress:
            report = verify_store(directory, monitor_state, register, progress)
    except (VerifyError, StorageError, ServiceError) as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_ERROR) from None
    if as_json:
        print(json.dumps(_as_json(report), indent=2))
    else:
        _print(report)
    if not report.is_whole:
        raise typer.Exit(EXIT_VIOLATION)


def _print(report: Report) -> None:
    for finding in report.findings[:_LINES_MAX]:
        print(_sentence(finding))
    if report.findings_total > _LINES_MAX:
        print(f"… and {report.findings_total - _LINES_MAX:,} more")
    if report.blum_matches is False:
        print(
            f"The {report.in_blum:,} records and nodes in Blum are not those that the monitor left there: "
            "one or more of them were changed, added or removed"
        )
    if report.is_rolled_back:
        print("The store is older than the monitor's latest: a start will refuse it as a rollback")
    for what in report.not_checked:
        print(f"NOT CHECKED: {what}")
    if report.unproved:
        print(f"{report.unproved:,} records are unproved, because what vouches for them is wrong")
    counts = f"{report.records:,} records, {report.nodes:,} nodes, {report.in_blum:,} in Blum"
    verdict = "everything fits" if report.is_whole else f"NOT WHOLE: {report.findings_total:,} findings"
    print(f"epoch {report.epoch}: {counts}: {verdict}")
    if report.standing not in (None, "latest", "next") and not report.is_rolled_back:
        print(f"standing before the monitor: {report.standing}")


def _sentence(finding: Finding) -> str:
    names = ", ".join(repr(key)[1:] for key in finding.keys)
    row = f"row {finding.store_key.hex()}"
    what = _WHAT.get(chr(finding.store_key[0]), "row of no known kind")
    match finding.kind:
        case "subtree_changed":
            return f"changed: one or more of the records {names or 'that are missing'} (below {row})"
        case "changed" | "garbled" | "missing" if finding.records_below:
            return f"{finding.kind}: {what}, {row}; it vouches for {finding.records_below:,} records, as {names}"
        case _:
            return f"{finding.kind}: {what}{' ' + names if names else ''}, {row}"


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "whole": report.is_whole,
        "epoch": report.epoch,
        "records": report.records,
        "nodes": report.nodes,
        "in_blum": report.in_blum,
        "root_checked": report.root_checked,
        "blum_matches": report.blum_matches,
        "standing": report.standing,
        "rolled_back": report.is_rolled_back,
        "unproved": report.unproved,
        "findings_total": report.findings_total,
        "findings": [
            {
                "kind": finding.kind,
                "store_key": finding.store_key.hex(),
                "keys": [_text(key) for key in finding.keys],
                "records_below": finding.records_below,
            }
            for finding in report.findings
        ],
        "not_checked": report.not_checked,
    }


def _text(key: bytes) -> str | dict[str, str]:
    """Text, or what is not UTF-8 as base64, as `zetakv export` writes it."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(key).decode()}
