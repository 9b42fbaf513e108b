"""`napari-dkan doctor`: print the diagnostics for a bug report."""

from __future__ import annotations

import faulthandler
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from ..doctor.check_result import CheckResult, CheckStatus, run_section


def run_doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Try everything this program stands on and print what a bug report needs.

    Nothing is sent anywhere. Ends with 1 when something is broken.
    """
    from ..doctor import list_sections

    faulthandler.enable()  # a device that kills the process is named by where it did
    found: list[CheckResult] = []
    for name, check in list_sections():
        part = list(run_section(name, check))
        found += part
        if not as_json:
            typer.echo(format_section(name, part))
    broken = [f for f in found if f.state is CheckStatus.broken]
    if as_json:
        typer.echo(json.dumps([asdict(f) for f in found], indent=1))
    else:
        typer.echo(format_verdict(broken))
    if broken:
        raise typer.Exit(1)


def format_section(name: str, found: Sequence[CheckResult]) -> str:
    """A section as lines; what is not as it should be has a mark before it."""
    marks = {CheckStatus.ok: "  ", CheckStatus.note: "- ", CheckStatus.broken: "! "}
    width = max((len(f.name) for f in found), default=0)
    lines = [name]
    for f in found:
        took = "" if f.seconds is None or f.seconds < 0.1 else f" ({f.seconds:.1f} s)"
        lines.append(f"{marks[f.state]}{f.name.ljust(width)}  {f.said}{took}")
    return "\n".join(lines) + "\n"


def format_verdict(broken: Sequence[CheckResult]) -> str:
    if not broken:
        return "Nothing is broken."
    names = ", ".join(f"{f.section}: {f.name}" for f in broken)
    return f"{len(broken)} of these are broken: {names}."
