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

    faulthandler.enable()  # shows which check of a device has crashed the process
    results: list[CheckResult] = []
    for name, check in list_sections():
        section_results = list(run_section(name, check))
        results += section_results
        if not as_json:
            typer.echo(format_section(name, section_results))
    broken = [result for result in results if result.state is CheckStatus.broken]
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], indent=1))
    else:
        typer.echo(format_verdict(broken))
    if broken:
        raise typer.Exit(1)


def format_section(name: str, results: Sequence[CheckResult]) -> str:
    """Format the results of a section as lines, with a mark before notes and broken items."""
    marks = {CheckStatus.ok: "  ", CheckStatus.note: "- ", CheckStatus.broken: "! "}
    width = max((len(result.name) for result in results), default=0)
    lines = [name]
    for result in results:
        seconds = result.seconds or 0.0
        duration = f" ({seconds:.1f} s)" if seconds >= 0.1 else ""
        lines.append(f"{marks[result.state]}{result.name.ljust(width)}  {result.said}{duration}")
    return "\n".join(lines) + "\n"


def format_verdict(broken: Sequence[CheckResult]) -> str:
    """Format the last line of the report."""
    if not broken:
        return "Nothing is broken."
    names = ", ".join(f"{result.section}: {result.name}" for result in broken)
    return f"{len(broken)} of these are broken: {names}."
